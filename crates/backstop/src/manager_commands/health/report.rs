//! The list of checks for people: what calls for somebody first, then what somebody knows of, then what has recovered.

use std::fmt::Write as _;

use backstop_health::plugin::Counts;
use backstop_health::{Change, Check, span_text};
use serde_json::Value;

use crate::output::time;

/// The whole text; `all` shows also what is well.
pub fn text(checks: &[Check], age: i64, all: bool) -> String {
    let mut bad: Vec<&Check> = checks
        .iter()
        .filter(|check| check.finding.state.is_bad())
        .collect();
    // What could not be looked at is told by what keeps it from being looked at.
    bad.retain(|check| all || check.is_loud() || check.held.is_none());
    bad.sort_by_key(|check| (!check.is_loud(), std::cmp::Reverse(check.finding.state)));
    let mut text = String::new();
    for check in bad {
        one(&mut text, check);
    }
    let well = checks
        .iter()
        .filter(|check| !check.finding.state.is_bad() && (all || check.recovered.is_some()));
    for check in well {
        one(&mut text, check);
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "{} (looked at {} ago)",
        Counts::of(checks).text(),
        span_text(age)
    );
    text
}

/// What comes from elsewhere must not command the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn one(text: &mut String, check: &Check) {
    let finding = &check.finding;
    let word = match finding.state.is_bad() {
        true => finding.state.as_str().to_uppercase(),
        false => match &check.recovered {
            Some(was) if was.gone => "gone".to_owned(),
            Some(_) => "recovered".to_owned(),
            None => "ok".to_owned(),
        },
    };
    let since = match finding.since {
        Some(since) => format!("  since {}", time::plain(since)),
        None => String::new(),
    };
    let _ = writeln!(
        text,
        "{word:<9} {}  {}{since}",
        finding.code,
        printable(&finding.object)
    );
    let mut line = |what: &str| {
        let _ = writeln!(text, "          {}", printable(what));
    };
    line(&finding.evidence);
    if let Some(reason) = &check.held {
        line(&format!("as it was last; not looked at now: {reason}"));
    }
    if let Some(expected) = &check.expected {
        let until = time::plain(expected.until);
        line(&format!(
            "expected in maintenance window '{}' until {until}",
            expected.window
        ));
    }
    if let Some(made) = &check.acknowledged {
        let until = match made.until {
            Some(until) => format!(" until {}", time::plain(until)),
            None => String::new(),
        };
        let comment = match made.comment.is_empty() {
            true => String::new(),
            false => format!(": {}", made.comment),
        };
        let at = time::plain(made.at);
        line(&format!(
            "acknowledged by {} on {at}{until}{comment}",
            made.by
        ));
    }
    if let Some(was) = &check.recovered {
        let bad = span_text(was.at.saturating_sub(was.bad_since));
        line(&format!("was {} for {bad}: {}", was.from, was.evidence));
    }
    if let Some(remedy) = finding.remedy.as_ref().filter(|_| finding.state.is_bad()) {
        line(&format!("-> {remedy}"));
    }
}

/// What has changed, a line each.
pub fn history(answer: &Value) -> String {
    let mut text = String::new();
    for change in answer.as_array().into_iter().flatten() {
        let Ok(change) = serde_json::from_value::<Change>(change.clone()) else {
            continue;
        };
        let _ = writeln!(
            text,
            "{}  {} -> {}  {}  {}: {}",
            time::plain(change.at),
            change.from,
            change.to,
            change.code,
            printable(&change.object),
            printable(&change.evidence)
        );
    }
    if text.is_empty() {
        text.push_str("Nothing has changed.\n");
    }
    text
}
