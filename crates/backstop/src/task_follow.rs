//! Tasks on a server: the table of tasks, and following one until it ends.

use std::time::Duration;

use anyhow::{Context as _, bail};
use backstop_client::api::TaskApi;
use serde_json::Value;

use crate::output::{self, Column, Table, time};

/// Lines fetched at once.
const PAGE: u64 = 500;
/// Pause between two looks at a running task.
const PAUSE: Duration = Duration::from_secs(1);

/// Tasks, oldest first.
pub const TASKS: Table = Table::new(&[
    Column::text("starttime").rendered(moment),
    Column::text("endtime").rendered(moment),
    Column::text("upid"),
    Column::text("status").rendered(status),
]);

fn moment(value: &Value, _: &Value) -> anyhow::Result<String> {
    Ok(value.as_i64().map(time::local).unwrap_or_default())
}

fn status(value: &Value, task: &Value) -> anyhow::Result<String> {
    let running = task.get("endtime").is_none_or(Value::is_null);
    let absent = if running { "running" } else { "unknown" };
    Ok(value.as_str().unwrap_or(absent).to_string())
}

/// What Ctrl-C does while a task is followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OnInterrupt {
    /// The first asks the server to stop the task, the second leaves.
    Stop,
    /// It leaves; the task goes on.
    Detach,
}

/// Prints the log of a task as it grows, until the task ends.
///
/// # Errors
/// If the task fails, or the server cannot be asked.
pub async fn follow(tasks: &TaskApi, upid: &str, on_interrupt: OnInterrupt) -> anyhow::Result<()> {
    let mut interrupted = false;
    let mut printed = 0;
    loop {
        let step = print_new_lines(tasks, upid, &mut printed);
        let active = tokio::select! {
            active = step => active?,
            _ = tokio::signal::ctrl_c() => {
                if on_interrupt == OnInterrupt::Detach {
                    return Ok(());
                }
                if interrupted {
                    output::err("forced exit (task still running)\n");
                    return Ok(());
                }
                interrupted = true;
                output::err("got shutdown request (SIGINT)\n");
                tasks.stop(upid).await?;
                true
            }
        };
        if !active {
            break;
        }
    }
    let state = tasks.status(upid).await?;
    match state.get("exitstatus").and_then(Value::as_str) {
        Some(status) if status == "OK" || status.starts_with("WARNINGS") => Ok(()),
        Some(status) => bail!("task failed (status {status})"),
        None => bail!("task failed (status unknown)"),
    }
}

/// Prints what the log has beyond `printed` lines; tells whether there may be more.
async fn print_new_lines(tasks: &TaskApi, upid: &str, printed: &mut u64) -> anyhow::Result<bool> {
    let answer = tasks.log(upid, *printed, PAGE).await?;
    let lines = answer
        .get("data")
        .and_then(Value::as_array)
        .context("the server's answer holds no log lines")?;
    let total = answer.get("total").and_then(Value::as_u64).unwrap_or(0);
    let active = answer
        .get("active")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let mut fresh = 0;
    for line in lines {
        let number = line.get("n").and_then(Value::as_u64).unwrap_or(0);
        if number <= *printed {
            continue;
        }
        fresh += 1;
        *printed = number;
        let text = line.get("t").and_then(Value::as_str).unwrap_or_default();
        output::out(&format!("{}\n", without_time(text)));
    }
    if *printed < total && fresh > 0 {
        return Ok(true);
    }
    if active {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(active)
}

/// A log line without the time it begins with.
pub fn without_time(line: &str) -> &str {
    match line.split_once(": ") {
        Some((time, rest)) if time.len() <= 64 && time.parse::<jiff::Timestamp>().is_ok() => rest,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_a_time_is_cut_from_a_line() {
        assert_eq!(
            without_time("2026-11-20T22:36:30+00:00: TASK OK"),
            "TASK OK"
        );
        assert_eq!(without_time("TASK ERROR: no"), "TASK ERROR: no");
        assert_eq!(without_time("a: b"), "a: b");
        assert_eq!(without_time(""), "");
    }
}
