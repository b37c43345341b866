//! Messages that were for somebody of whom no address is known: counted by target, so that health can say so.
//!
//! Kept in `backstop-notifications/unheard.json` below the state directory, so that a restart forgets nothing. It holds no message.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::state_file;

/// For how long they are counted, in seconds.
const KEPT: i64 = 86_400;
/// Targets that are remembered.
const MOST: usize = 100;
const MODE: u32 = 0o640;

/// What reached nobody at one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Lost {
    /// How many messages.
    pub count: u64,
    /// When the last one was, in seconds since 1970.
    pub last: i64,
    /// Why it reached nobody.
    pub reason: String,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Unheard {
    file: PathBuf,
    lanes: BTreeMap<String, Lost>,
}

impl Unheard {
    /// What is remembered below the state directory; nothing if that cannot be read.
    pub fn open(var_lib: &Path) -> Self {
        let file = var_lib.join("backstop-notifications/unheard.json");
        let text = std::fs::read(&file).unwrap_or_default();
        Self {
            lanes: serde_json::from_slice(&text).unwrap_or_default(),
            file,
        }
    }

    /// Counts a message. Blocks for a small file.
    pub fn note(&mut self, lane: &str, reason: &str, now: i64) {
        let is_new = |lost: &Lost| now.saturating_sub(lost.last) < KEPT;
        self.lanes.retain(|_, lost| is_new(lost));
        if !self.lanes.contains_key(lane) && self.lanes.len() >= MOST {
            return;
        }
        let lost = self.lanes.entry(lane.to_owned()).or_insert(Lost {
            count: 0,
            last: now,
            reason: String::new(),
        });
        lost.count = lost.count.saturating_add(1);
        lost.last = now;
        lost.reason = reason.to_owned();
        let text = serde_json::to_vec(&self.lanes).unwrap_or_default();
        if let Err(err) = state_file::replace(&self.file, &text, MODE) {
            tracing::warn!(path = %self.file.display(), %err, "what reached nobody is not remembered after a restart");
        }
    }

    /// What reached nobody, where the last one was after `since`.
    pub fn since(&self, since: i64) -> Vec<(String, Lost)> {
        let lanes = self.lanes.iter().filter(|(_, lost)| lost.last > since);
        lanes
            .map(|(lane, lost)| (lane.clone(), lost.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_reached_nobody_is_counted_for_a_day_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("backstop-notifications")).unwrap();
        let mut unheard = Unheard::open(dir.path());
        unheard.note("mail-to-root", "no address", 1000);
        unheard.note("mail-to-root", "no address", 1010);
        unheard.note("user:ann@pbs", "no address", 1020);
        let again = Unheard::open(dir.path());
        let seen = again.since(1010);
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].0.as_str(), seen[0].1.count), ("user:ann@pbs", 1));
        assert_eq!(again.since(0)[0].1.count, 2);
        let mut later = again;
        later.note("user:ann@pbs", "no address", 1010 + KEPT);
        assert_eq!(later.since(0).len(), 1);
    }
}
