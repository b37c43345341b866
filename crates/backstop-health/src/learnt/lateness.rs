//! How long a job that is due waits for being started, counted only while a server ran that could have started it. A restart ends
//! no waiting and begins none anew.

use serde::{Deserialize, Serialize};

use crate::job::VERY_LATE;

/// More is not counted.
const MOST: i64 = VERY_LATE + 1;

/// The waiting of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lateness {
    /// When it was due.
    pub due: i64,
    /// For how many seconds it waits since then.
    pub waited: i64,
    /// When it was looked at last.
    seen: i64,
}

impl Lateness {
    /// What is known now; `known` is what was known of the same turn.
    pub fn since(known: Option<&Self>, due: i64, started: i64, now: i64) -> Self {
        let Some(known) = known else {
            let waited = now.saturating_sub(due.max(started)).clamp(0, MOST);
            return Self {
                due,
                waited,
                seen: now,
            };
        };
        if known.waited >= MOST {
            return *known;
        }
        let more = now.saturating_sub(known.seen.max(started)).max(0);
        Self {
            due,
            waited: known.waited.saturating_add(more).min(MOST),
            seen: now,
        }
    }
}
