//! The list of checks for people: what calls for somebody first, then what somebody knows of, then what has recovered.

use std::fmt::Write as _;

use backstop_health::{Change, Check, Overall, span_text};
use serde_json::Value;

use crate::output::time;

/// The whole text; `all` shows also what is well.
pub fn text(checks: &[Check], overall: &Overall, age: i64, all: bool) -> String {
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
    if let Some(note) = &overall.note {
        let _ = writeln!(text, "{}: {note}", overall.state.as_str().to_uppercase());
    }
    let _ = writeln!(
        text,
        "{} (looked at {} ago)",
        overall.counts.text(),
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
    wrapped(text, &finding.evidence);
    let mut line = |what: &str| wrapped(text, what);
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
        // It holds commands, which are copied as a whole.
        let _ = writeln!(text, "{INDENT}-> {}", printable(remedy));
    }
}

/// What is said of something stands below it.
const INDENT: &str = "          ";
/// Longer lines are broken between words; in characters.
const WIDTH: usize = 110;

/// Adds a text below what it is said of, in as many lines as it takes.
fn wrapped(text: &mut String, what: &str) {
    let mut line = String::new();
    for word in printable(what).split_whitespace() {
        let length = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && length > WIDTH - INDENT.len() {
            let _ = writeln!(text, "{INDENT}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(text, "{INDENT}{line}");
}

/// What has changed, a line each; what does not fit there stands below.
pub fn history(answer: &Value) -> String {
    let mut text = String::new();
    for change in answer.as_array().into_iter().flatten() {
        let Ok(change) = serde_json::from_value::<Change>(change.clone()) else {
            continue;
        };
        let line = format!(
            "{}  {} -> {}  {}  {}",
            time::plain(change.at),
            change.from,
            change.to,
            change.code,
            printable(&change.object),
        );
        let evidence = printable(&change.evidence);
        if line.chars().count() + 2 + evidence.chars().count() <= WIDTH {
            let _ = writeln!(text, "{line}: {evidence}");
        } else {
            let _ = writeln!(text, "{line}");
            wrapped(&mut text, &evidence);
        }
    }
    if text.is_empty() {
        text.push_str("Nothing has changed.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use backstop_health::{Code, Finding, Reason, Scope, State};
    use serde_json::json;

    use super::*;

    #[test]
    fn long_evidence_is_broken_and_what_is_copied_is_not() {
        let evidence = format!(
            "expected AA, shown BB (of {})",
            "CN=a very long name, ".repeat(40)
        );
        let remedy = format!("run {}", "word ".repeat(60));
        let scope = Scope::remote("peer");
        let code = Code::CertificateChanged;
        let finding = Finding::ok(code, "remote/peer", &scope, evidence.clone());
        let check = Check {
            finding: finding.bad(State::Critical, Some(5), remedy.clone()),
            acknowledged: None,
            expected: None,
            recovered: None,
            held: None,
        };
        let checks = [check];
        let shown = text(&checks, &Overall::of(&checks, 1), 1, false);
        let (long, short): (Vec<&str>, Vec<&str>) =
            shown.lines().partition(|line| line.chars().count() > WIDTH);
        assert_eq!(long, [format!("{INDENT}-> {remedy}")]);
        let all: String = short.join(" ");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&all).contains(&words(&evidence)), "{shown}");

        let change = |evidence: &str| Change {
            at: 5,
            code,
            object: "remote/peer".to_owned(),
            scope: scope.clone(),
            from: State::Ok,
            to: State::Critical,
            reason: Reason::Changed,
            since: 5,
            evidence: evidence.to_owned(),
            remedy: None,
            loud: true,
        };
        let told = history(&json!([change(&evidence), change("short")]));
        assert!(told.lines().count() > 5, "{told}");
        assert!(told.lines().all(|line| line.chars().count() <= WIDTH));
        assert!(
            told.ends_with("certificate-changed  remote/peer: short\n"),
            "{told}"
        );
        // A word that is longer than a line stands on its own.
        let mut one = String::new();
        wrapped(&mut one, &format!("a {} b", "x".repeat(300)));
        assert_eq!(one.lines().count(), 3);
    }

    #[test]
    fn an_empty_list_says_that_nothing_matches() {
        let shown = text(&[], &Overall::of(&[], 1), 1, true);
        assert!(shown.starts_with("UNKNOWN: no check matches"), "{shown}");
    }
}
