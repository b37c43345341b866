//! What failed lately, told beside the list of tasks. It goes to standard error: scripts read standard output.

use serde_json::{Value, json};

use crate::output::time;

/// How far back a failure is still news, in seconds.
const PERIOD: i64 = 24 * 60 * 60;
/// Tasks that began earlier than this before the period are not looked for: none runs for so long.
const LONGEST_TASK: i64 = 7 * 24 * 60 * 60;
/// Failures that are looked at.
const LIMIT: usize = 1000;
/// Failures that are shown one by one.
const SHOWN: usize = 10;

/// What to ask a server for.
pub fn filter(now: i64) -> Value {
    json!({
        "start": 0,
        "limit": LIMIT,
        "since": now - PERIOD - LONGEST_TASK,
        "statusfilter": ["error", "unknown"],
    })
}

/// Whether a task counts, as the server's answer to [`filter`] tells it.
fn is_news(task: &Value, now: i64) -> bool {
    let failed = match task.get("status").and_then(Value::as_str) {
        None | Some("OK") => false,
        Some(status) => !status.starts_with("WARNINGS: "),
    };
    let end = task.get("endtime").and_then(Value::as_i64);
    failed && end.is_some_and(|end| end >= now - PERIOD)
}

/// A few lines about the failed ones among `tasks`, and how to see more; nothing if none failed. `program` are the
/// words that the tool is called by, `options` those that its commands need to reach the same server.
pub fn report(tasks: &Value, now: i64, program: &str, options: &str) -> String {
    let tasks = tasks.as_array().map(Vec::as_slice).unwrap_or_default();
    let failed: Vec<&Value> = tasks.iter().filter(|task| is_news(task, now)).collect();
    let count = match failed.len() {
        0 => return String::new(),
        1 => "1 task".to_owned(),
        count if count >= LIMIT => format!("{count} tasks or more"),
        count => format!("{count} tasks"),
    };
    let mut text = format!("{count} failed in the last 24 hours:\n");
    for task in failed.iter().take(SHOWN) {
        let member = |name: &str| printable(task.get(name).and_then(Value::as_str).unwrap_or(""));
        let end = task.get("endtime").and_then(Value::as_i64);
        text.push_str(&format!(
            "  {}  {} {}\n    {}\n    {program} task log '{}'{options}\n",
            time::plain(end.unwrap_or_default()),
            member("worker_type"),
            member("worker_id"),
            member("status"),
            member("upid"),
        ));
    }
    if failed.len() > SHOWN {
        text.push_str(&format!("  … and {} more\n", failed.len() - SHOWN));
    }
    text + &format!("All tasks: {program} task list --all --limit 50{options}\n")
}

/// What comes from a server must not command the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn task(age: i64, status: &str) -> Value {
        json!({
            "upid": "UPID:x", "worker_type": "syncjob", "worker_id": "a:b", "status": status,
            "starttime": NOW - age - 5, "endtime": NOW - age,
        })
    }

    fn told(tasks: Value) -> String {
        report(&tasks, NOW, "proxmox-backup-manager", "")
    }

    #[test]
    fn failures_of_a_day_are_told_with_the_way_to_their_logs() {
        let running = json!({"upid": "UPID:y", "worker_type": "backup", "starttime": NOW});
        let text = told(json!([
            running,
            task(10, "ESTALE: Stale file\u{1b}[2J handle"),
            task(20, "OK"),
            task(30, "WARNINGS: 3"),
            task(PERIOD, "unknown"),
            task(PERIOD + 1, "too old"),
        ]));
        assert!(
            text.starts_with("2 tasks failed in the last 24 hours:\n"),
            "{text}"
        );
        assert!(
            text.contains(" syncjob a:b\n    ESTALE: Stale file [2J handle\n"),
            "{text}"
        );
        assert!(
            text.contains("    proxmox-backup-manager task log 'UPID:x'\n"),
            "{text}"
        );
        assert!(
            text.ends_with("All tasks: proxmox-backup-manager task list --all --limit 50\n"),
            "{text}"
        );
    }

    #[test]
    fn without_failures_nothing_is_told() {
        for tasks in [
            json!([]),
            Value::Null,
            json!([task(1, "OK"), task(PERIOD * 2, "x")]),
        ] {
            assert_eq!(told(tasks), "");
        }
    }

    #[test]
    fn many_failures_are_counted() {
        let tasks: Vec<Value> = (0..30).map(|age| task(age, "no")).collect();
        let text = told(tasks.into());
        assert!(text.starts_with("30 tasks failed"), "{text}");
        assert!(text.contains("\n  … and 20 more\n"), "{text}");
        assert_eq!(text.matches("task log").count(), 10);
    }
}
