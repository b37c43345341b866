//! The list in the form that monitoring systems read from plugins: exit code, a line with performance data, then a line for each
//! check that is bad.

use std::fmt::Write as _;

use crate::overall::Counts;
use crate::{Check, Overall, State};

/// Checks that the first line names.
const NAMED: usize = 3;

/// The exit code of a state: 0, 1, 2, 3.
pub const fn exit_code(state: State) -> u8 {
    match state {
        State::Ok => 0,
        State::Warning => 1,
        State::Critical => 2,
        State::Unknown => 3,
    }
}

/// The whole output for these checks, of which `overall` was said.
pub fn render(checks: &[Check], overall: &Overall) -> String {
    let counts = overall.counts;
    let mut line = counts.text();
    if let Some(note) = &overall.note {
        line = format!("{note}; {line}");
    }
    let mut loud: Vec<&Check> = checks.iter().filter(|check| check.is_loud()).collect();
    loud.sort_by_key(|check| std::cmp::Reverse(check.finding.state));
    for check in loud.iter().take(NAMED) {
        let finding = &check.finding;
        let _ = write!(
            line,
            "; {} {}: {}",
            finding.code, finding.object, finding.evidence
        );
    }
    if loud.len() > NAMED {
        let _ = write!(line, "; and {} more", loud.len() - NAMED);
    }
    let word = overall.state.as_str().to_uppercase();
    let mut text = format!(
        "BACKSTOP {word} - {} | {}\n",
        plain(&line),
        performance(checks, counts)
    );
    for check in loud {
        let finding = &check.finding;
        let word = finding.state.as_str().to_uppercase();
        let remedy = finding.remedy.as_deref().unwrap_or_default();
        let more = format!(
            "{} {}: {} -> {remedy}",
            finding.code, finding.object, finding.evidence
        );
        let _ = writeln!(text, "{word} {}", plain(&more));
    }
    text
}

/// One line without what separates performance data.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '|' => '/',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect()
}

fn performance(checks: &[Check], counts: Counts) -> String {
    let mut text = format!(
        "critical={} warning={} unknown={} ok={} acknowledged={} expected={}",
        counts.critical,
        counts.warning,
        counts.unknown,
        counts.ok,
        counts.acknowledged,
        counts.expected
    );
    for check in checks {
        let finding = &check.finding;
        // Thousands of groups would make the line too long for what reads it.
        if finding.scope.group.is_some() {
            continue;
        }
        let Some(measure) = &finding.measure else {
            continue;
        };
        let label = format!("{} {}", finding.code, finding.object).replace(['\'', '=', '|'], "_");
        // A certificate is bad when less than this is left.
        let below = matches!(finding.code, crate::Code::CertificateExpiring);
        let limit = |limit: Option<f64>| match limit {
            Some(limit) if below => format!("{}:", number(limit)),
            Some(limit) => number(limit),
            None => String::new(),
        };
        let _ = write!(
            text,
            " '{}'={}{};{};{}",
            plain(&label),
            number(measure.value),
            measure.unit,
            limit(measure.warning),
            limit(measure.critical)
        );
    }
    text
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}
