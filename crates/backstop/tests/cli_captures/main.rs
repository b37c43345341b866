//! Runs again what was recorded from stock programs, with the real program under their names, and compares.
//!
//! `lists/*.tsv` say for every recorded command line what is expected; see `list.rs`. `CAPTURE=text` runs only those
//! whose names hold the text.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod capture;
mod compare;
mod list;
mod setting;

use capture::Capture;
use list::{Row, State};
use setting::Setting;

#[test]
fn every_recorded_command_line_is_accounted_for() {
    list::check_complete(&list::rows());
}

#[test]
fn commands_answer_as_those_of_release_4_2_3() {
    replay("4.2.3");
}

#[test]
fn commands_answer_as_those_of_release_3_2_4() {
    replay("3.2.4");
}

fn replay(version: &str) {
    let only = std::env::var("CAPTURE").unwrap_or_default();
    let mine = |row: &Row| row.version == version && row.is_run() && row.name.contains(&only);
    let rows: Vec<Row> = list::rows().into_iter().filter(mine).collect();
    let (for_new, for_copy): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(Row::is_for_new);
    let mut faults = Vec::new();
    if !for_new.is_empty() {
        faults.extend(run(&Setting::new(version), &for_new));
    }
    if !for_copy.is_empty() {
        faults.extend(run(&Setting::copy(version), &for_copy));
    }
    assert!(
        faults.is_empty(),
        "{} of {} command lines:\n{}",
        faults.len(),
        for_new.len() + for_copy.len(),
        faults.join("\n")
    );
}

fn run(setting: &Setting, rows: &[Row]) -> Vec<String> {
    rows.iter()
        .filter_map(|row| {
            let capture = Capture::read(&row.version, &row.name);
            let got = setting.replay(&capture);
            let difference = compare::difference(&capture.said, &got, &row.tolerance());
            let name = &row.name;
            match (row.state, difference) {
                (State::Same, Some(difference)) => Some(format!("{name}: {difference}")),
                (State::Differs, None) => Some(format!(
                    "{name}: is the same now, the list says that it differs"
                )),
                _ => None,
            }
        })
        .collect()
}
