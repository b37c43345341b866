//! `backstop prune-simulator`: what retention rules would keep, without a datastore.

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use backstop_calendar::CalendarEvent;
use backstop_calendar::retention::KeepOptions;
use backstop_calendar::simulator::{self, SimulatedBackup, Simulation};
use backstop_types::config_schema::value;
use backstop_types::record::PruneSimulation;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::client_commands::KEEP;
use crate::command::{Arguments, Command, Parameter};
use crate::moment;
use crate::output::{self, Format, OUTPUT_FORMAT};

/// Largest file of moments, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// The declaration of the command.
pub fn command() -> Command {
    Command::new(
        "Show which backups of a schedule, or which of given ones, retention rules would keep.",
        simulate,
    )
    .option(Parameter::of(
        "schedule",
        "When backups happen, as a calendar event such as '6,18:00'. Rules are applied after each.",
        &value::CALENDAR_EVENT,
    ))
    .option(
        Parameter::text(
            "snapshots",
            "Decide about the moments in this file instead, one on each line: RFC 3339, or seconds since 1970.",
        )
        .file(),
    )
    .options(KEEP)
    .option(
        Parameter::integer("days", "For how many days backups happen.", Some(1), Some(3660)).default("28"),
    )
    .option(Parameter::text(
        "base-time",
        "When the simulation ends (RFC 3339, or seconds since 1970 as @SECONDS) instead of now.",
    ))
    .option(OUTPUT_FORMAT)
}

fn simulate(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let zone = TimeZone::system();
    let keep = keep_options(arguments)?;
    let simulation = match (arguments.text("schedule"), arguments.text("snapshots")) {
        (Some(_), Some(_)) => {
            bail!("--schedule makes up backups and --snapshots names them: give one of both")
        }
        (None, None) => bail!("give --schedule EVENT, or --snapshots FILE"),
        (None, Some(file)) => Simulation {
            days: Vec::new(),
            backups: simulator::decide(&moments(file)?, &keep, &zone),
        },
        (Some(schedule), None) => {
            let schedule: CalendarEvent = schedule.parse()?;
            let end = arguments.text("base-time").map(moment::parse);
            let end = end.transpose()?.unwrap_or_else(output::time::now);
            let days = arguments.text("days").unwrap_or("28").parse()?;
            simulator::simulate(&schedule, &keep, end, days, &zone)?
        }
    };
    let value = serde_json::to_value(PruneSimulation::from(&simulation))?;
    match Format::of(arguments)?.json(&value) {
        Some(json) => output::out(&json),
        None => output::out(&listing(&simulation, &zone)),
    }
    Ok(ExitCode::SUCCESS)
}

fn keep_options(arguments: &Arguments) -> anyhow::Result<KeepOptions> {
    let number = |name| -> anyhow::Result<Option<u64>> {
        Ok(arguments.integer(name).map(u64::try_from).transpose()?)
    };
    Ok(KeepOptions {
        last: number("keep-last")?,
        hourly: number("keep-hourly")?,
        daily: number("keep-daily")?,
        weekly: number("keep-weekly")?,
        monthly: number("keep-monthly")?,
        yearly: number("keep-yearly")?,
    })
}

/// The moments in a file; empty lines and lines that begin with `#` are left out.
fn moments(file: &str) -> anyhow::Result<Vec<i64>> {
    let size = fs::metadata(file)
        .with_context(|| format!("unable to read {file:?}"))?
        .len();
    if size > MAX_FILE {
        bail!("{file:?} has {size} bytes; moments of backups have at most {MAX_FILE}");
    }
    let text = fs::read_to_string(file).with_context(|| format!("unable to read {file:?}"))?;
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            moment::parse(line).map_err(|err| anyhow!("{file:?}, line {}: {err}", number + 1))
        })
        .collect()
}

/// A line for each day with the backups that were made on it, oldest first.
fn listing(simulation: &Simulation, zone: &TimeZone) -> String {
    let mut text = String::new();
    let mut day = None;
    for backup in &simulation.backups {
        let Some(made) = local(backup.time, zone) else {
            continue;
        };
        if day.replace(made.date()) != Some(made.date()) {
            let _ = write!(text, "{}", made.strftime("%a %Y-%m-%d"));
            if let Some(kept) = kept_on(simulation, made.date()) {
                let _ = write!(text, "  ({kept} there at the end of the day)");
            }
            text.push('\n');
        }
        let _ = writeln!(
            text,
            "  {}  {}",
            made.strftime("%H:%M:%S"),
            fate(backup, zone)
        );
    }
    let kept = simulation
        .backups
        .iter()
        .filter(|backup| backup.verdict.mark.keeps());
    let _ = writeln!(
        text,
        "{} of {} backups are kept.",
        kept.count(),
        simulation.backups.len()
    );
    text
}

fn fate(backup: &SimulatedBackup, zone: &TimeZone) -> String {
    let reason = backup.verdict.reason;
    if backup.verdict.mark.keeps() {
        return format!("keep    {reason}");
    }
    match backup.removed_at.and_then(|time| local(time, zone)) {
        Some(removed) => format!(
            "remove  {reason} (on {})",
            removed.strftime("%Y-%m-%d %H:%M")
        ),
        None => format!("remove  {reason}"),
    }
}

fn kept_on(simulation: &Simulation, date: Date) -> Option<usize> {
    let day = simulation.days.iter().find(|day| day.date == date);
    day.map(|day| day.kept)
}

fn local(time: i64, zone: &TimeZone) -> Option<DateTime> {
    let time = Timestamp::from_second(time).ok()?;
    Some(zone.to_datetime(time))
}
