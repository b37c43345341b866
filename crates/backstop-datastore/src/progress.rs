//! How far a long operation is: now and then a line with the share done, the rate and the time left.
//!
//! Short operations say nothing, so that their logs read as those of a stock server.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::task_log::TaskLog;

/// Time between two lines, and before the first one.
const INTERVAL: Duration = Duration::from_secs(30);

/// The progress of one operation. Shared by the threads that work on it.
#[derive(Debug)]
pub struct Progress {
    /// What is counted, such as `index files`.
    unit: &'static str,
    total: u64,
    begun: Instant,
    told: Mutex<Instant>,
}

impl Progress {
    /// An operation on `total` things that begins now.
    pub fn new(unit: &'static str, total: u64) -> Self {
        let now = Instant::now();
        Self {
            unit,
            total,
            begun: now,
            told: Mutex::new(now),
        }
    }

    /// Writes a line if it is time for one; `done` things are done. Cheap, so it can be called for each of them.
    pub fn tell(&self, done: u64, log: &dyn TaskLog) {
        if let Some(line) = self.line(Instant::now(), done) {
            log.info(&line);
        }
    }

    fn line(&self, now: Instant, done: u64) -> Option<String> {
        // Somebody else may be about to write the line.
        let mut told = self.told.try_lock()?;
        if now.saturating_duration_since(*told) < INTERVAL {
            return None;
        }
        *told = now;
        let seconds = now.saturating_duration_since(self.begun).as_secs_f64();
        let rate = done as f64 / seconds;
        let percent = done as f64 * 100.0 / self.total.max(1) as f64;
        let left = match self.total.saturating_sub(done) as f64 / rate {
            left if left.is_finite() => format!("about {} left", span(left as u64)),
            _ => "no end in sight".to_owned(),
        };
        Some(format!(
            "{percent:.1}% of {} {} done, {rate:.1} per second, {left}",
            self.total, self.unit
        ))
    }
}

/// Seconds for people: the two largest units.
fn span(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m {}s", seconds % 60),
        (hours, _) => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn rate_and_time_left_are_told_every_half_minute() {
        let progress = Progress::new("index files", 1000);
        let after = |seconds| progress.begun + Duration::from_secs(seconds);
        assert_eq!(progress.line(after(29), 99), None);
        assert_eq!(
            progress.line(after(40), 100).unwrap(),
            "10.0% of 1000 index files done, 2.5 per second, about 6m 0s left"
        );
        assert_eq!(progress.line(after(69), 500), None);
        assert_eq!(
            progress.line(after(100), 1000).unwrap(),
            "100.0% of 1000 index files done, 10.0 per second, about 0s left"
        );
    }

    #[test]
    fn a_standstill_and_an_empty_operation_are_no_fault() {
        let progress = Progress::new("chunks", 0);
        let line = progress.line(progress.begun + INTERVAL, 0).unwrap();
        assert_eq!(
            line,
            "0.0% of 0 chunks done, 0.0 per second, no end in sight"
        );
        let progress = Progress::new("chunks", 10_000_000);
        let line = progress.line(progress.begun + INTERVAL, 30).unwrap();
        assert!(
            line.ends_with("1.0 per second, about 2777h 46m left"),
            "{line}"
        );
    }
}
