//! Folding a message that comes over and over again, so that a flood neither fills the disk nor hides what matters.
//!
//! The first message of a row is always written at once; only what follows it unchanged is counted.

use std::time::{Duration, Instant};

/// How long repetitions are counted before the count so far is told, so that somebody who follows the log sees
/// that the flood goes on.
const PATIENCE: Duration = Duration::from_secs(60);

/// The last message of a log, and how often it came again.
#[derive(Debug, Default)]
pub struct Repeats {
    last: Option<String>,
    again: u64,
    since: Option<Instant>,
}

impl Repeats {
    /// Takes a message and returns what is to be written now, in order.
    pub fn take(&mut self, now: Instant, text: &str) -> Vec<String> {
        if self.last.as_deref() != Some(text) {
            let mut lines: Vec<String> = self.flush().into_iter().collect();
            self.last = Some(text.to_owned());
            lines.push(text.to_owned());
            return lines;
        }
        self.again = self.again.saturating_add(1);
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < PATIENCE {
            return Vec::new();
        }
        self.flush().into_iter().collect()
    }

    /// What is left to be told about repetitions. A message that came twice is simply written twice.
    pub fn flush(&mut self) -> Option<String> {
        self.since = None;
        match std::mem::take(&mut self.again) {
            0 => None,
            1 => self.last.clone(),
            count => Some(format!("last message repeated {count} times")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn log(messages: &[&str]) -> Vec<String> {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let mut lines: Vec<String> = messages
            .iter()
            .flat_map(|text| repeats.take(now, text))
            .collect();
        lines.extend(repeats.flush());
        lines
    }

    #[test]
    fn a_flood_becomes_one_line_with_a_count() {
        let mut messages = vec!["begin"];
        messages.extend(["stale"; 1001]);
        messages.push("end");
        assert_eq!(
            log(&messages),
            ["begin", "stale", "last message repeated 1000 times", "end"]
        );
        assert_eq!(
            log(&["stale"; 3]),
            ["stale", "last message repeated 2 times"]
        );
    }

    #[test]
    fn nothing_else_is_changed() {
        for messages in [
            &["a", "b", "a", "b"][..],
            &["a", "a"],
            &["a", "a", "b"],
            &[],
        ] {
            assert_eq!(log(messages), messages);
        }
    }

    #[test]
    fn a_flood_that_goes_on_is_told_every_minute() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        assert_eq!(repeats.take(start, "stale"), ["stale"]);
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            assert!(repeats.take(now, "stale").is_empty());
        }
        let now = start + Duration::from_secs(60);
        assert_eq!(
            repeats.take(now, "stale"),
            ["last message repeated 61 times"]
        );
        assert!(repeats.take(now, "stale").is_empty());
    }
}
