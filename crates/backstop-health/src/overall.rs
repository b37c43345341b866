//! How a list of checks is as a whole. Whoever says so, says it by this.

use serde::{Deserialize, Serialize};

use crate::{Check, State, span_text};

/// The list is made each minute; one that is older than this is worth nothing. Seconds.
const TOO_OLD: i64 = 15 * 60;

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

/// How all checks together are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overall {
    /// The worst that calls for somebody; unknown when there is nothing that was looked at.
    pub state: State,
    /// How many there are.
    pub counts: Counts,
    /// What is to be known of the list itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Overall {
    /// Of these checks, which were made so many seconds ago.
    pub fn of<'a>(checks: impl IntoIterator<Item = &'a Check>, age: i64) -> Self {
        let mut count = 0_usize;
        let counts = Counts::of(
            checks
                .into_iter()
                .inspect(|_| count = count.saturating_add(1)),
        );
        let note = match () {
            () if age > TOO_OLD => Some(format!(
                "this is {} old, as the server does not get on with its checks",
                span_text(age)
            )),
            () if count == 0 => Some(
                "no check matches: see whether the names are right, and whether what they name may be seen".to_owned(),
            ),
            () => None,
        };
        // What is known to be bad is not less bad for that.
        let state = match counts.state() {
            State::Ok if note.is_some() => State::Unknown,
            state => state,
        };
        Self {
            state,
            counts,
            note,
        }
    }
}
