//! The list in the form that monitoring systems read from plugins: exit code, a line with performance data, then a line for each
//! check that is bad.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{Check, State};

/// Checks that the first line names.
const NAMED: usize = 3;

/// Numbers of checks by what is to be done about them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Loud and critical.
    pub critical: usize,
    /// Loud and a warning.
    pub warning: usize,
    /// Loud and unknown.
    pub unknown: usize,
    /// Well.
    pub ok: usize,
    /// Bad, and somebody knows of it.
    pub acknowledged: usize,
    /// Bad, in a maintenance window.
    pub expected: usize,
    /// Well when they were looked at last, which is not possible now.
    pub held: usize,
}

impl Counts {
    /// Counts checks.
    pub fn of<'a>(checks: impl IntoIterator<Item = &'a Check>) -> Self {
        let mut counts = Self::default();
        for check in checks {
            let count = match check.finding.state {
                State::Ok => &mut counts.ok,
                _ if check.acknowledged.is_some() => &mut counts.acknowledged,
                _ if check.expected.is_some() => &mut counts.expected,
                _ if !check.is_loud() => &mut counts.held,
                State::Critical => &mut counts.critical,
                State::Warning => &mut counts.warning,
                State::Unknown => &mut counts.unknown,
            };
            *count += 1;
        }
        counts
    }

    /// The worst that calls for somebody.
    pub fn state(&self) -> State {
        match self {
            counts if counts.critical > 0 => State::Critical,
            counts if counts.warning > 0 => State::Warning,
            counts if counts.unknown > 0 => State::Unknown,
            _ => State::Ok,
        }
    }

    /// For people: `2 critical, 410 ok, 1 acknowledged`.
    pub fn text(&self) -> String {
        let all = [
            (self.critical, "critical"),
            (self.warning, "warning"),
            (self.unknown, "unknown"),
            (self.held, "not looked at"),
            (self.acknowledged, "acknowledged"),
            (self.expected, "expected"),
        ];
        let some = all.into_iter().filter(|(count, _)| *count > 0);
        let mut parts: Vec<_> = some
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        parts.push(format!("{} ok", self.ok));
        parts.join(", ")
    }
}

/// The exit code of a state: 0, 1, 2, 3.
pub const fn exit_code(state: State) -> u8 {
    match state {
        State::Ok => 0,
        State::Warning => 1,
        State::Critical => 2,
        State::Unknown => 3,
    }
}

/// The whole output. `age` is how old the list is, in seconds: one that is too old is worth nothing.
pub fn render(checks: &[Check], age: i64) -> (State, String) {
    /// The list is made each minute.
    const TOO_OLD: i64 = 15 * 60;
    let counts = Counts::of(checks);
    let mut state = counts.state();
    let mut line = counts.text();
    if age > TOO_OLD {
        line = format!(
            "this is {age} seconds old, as the server does not get on with its checks; {line}"
        );
        if matches!(state, State::Ok | State::Unknown) {
            state = State::Unknown;
        }
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
    let word = state.as_str().to_uppercase();
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
    (state, text)
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
