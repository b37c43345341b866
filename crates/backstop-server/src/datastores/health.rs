//! From the answers of a file system, and their absence, to what is believed of it. Touches nothing and knows no clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::availability::Availability;

/// A file system that has not answered for this long is doubtful.
const SILENCE: Duration = Duration::from_secs(5);
/// One that has not answered for this long is lost.
const LONG_SILENCE: Duration = Duration::from_secs(15);
/// One that has answered with nothing but errors for this long is lost.
const LONG_FAILURE: Duration = Duration::from_secs(2);

/// What a file system has answered so far.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Since when an answer is awaited.
    asked: Option<Instant>,
    /// Since when it answers with errors, and the last one.
    failing: Option<(Instant, Arc<str>)>,
}

impl Health {
    /// It was asked.
    pub(super) fn ask(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
    }

    /// It has answered.
    pub(super) fn answer(&mut self, now: Instant, answer: Result<(), String>) {
        self.asked = None;
        self.failing = match (answer, self.failing.take()) {
            (Ok(()), _) => None,
            (Err(reason), Some((since, _))) => Some((since, reason.into())),
            (Err(reason), None) => Some((now, reason.into())),
        };
    }

    /// For how long an answer is awaited.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        self.asked
            .map_or(Duration::ZERO, |asked| now.saturating_duration_since(asked))
    }

    /// What is to be believed; `silent` is what is wrong with a file system that does not answer.
    pub(super) fn judge(&self, now: Instant, silent: impl FnOnce() -> String) -> Availability {
        let silence = self.silence(now);
        let failing = self
            .failing
            .as_ref()
            .map(|(since, reason)| (now.saturating_duration_since(*since), reason));
        match failing {
            Some((long, reason)) if long >= LONG_FAILURE => Availability::Lost(Arc::clone(reason)),
            _ if silence >= LONG_SILENCE => Availability::Lost(silent().into()),
            Some((_, reason)) => Availability::Doubtful(Arc::clone(reason)),
            None if silence >= SILENCE => Availability::Doubtful(silent().into()),
            None => Availability::Available,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn judged(health: &Health, now: Instant) -> Availability {
        health.judge(now, || "silent".to_owned())
    }

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn silence_is_first_doubtful_and_then_a_loss() {
        let start = Instant::now();
        let mut health = Health::default();
        assert_eq!(judged(&health, start), Availability::Available);
        health.ask(start);
        // asking again does not begin the silence anew
        health.ask(after(start, 4000));
        assert_eq!(judged(&health, after(start, 4999)), Availability::Available);
        let doubtful = Availability::Doubtful("silent".into());
        assert_eq!(judged(&health, after(start, 5000)), doubtful);
        assert_eq!(judged(&health, after(start, 14_999)), doubtful);
        let lost = Availability::Lost("silent".into());
        assert_eq!(judged(&health, after(start, 15_000)), lost);
        health.answer(after(start, 60_000), Ok(()));
        assert_eq!(
            judged(&health, after(start, 90_000)),
            Availability::Available
        );
    }

    #[test]
    fn one_error_is_doubtful_and_lasting_errors_are_a_loss() {
        let start = Instant::now();
        let mut health = Health::default();
        health.ask(start);
        health.answer(start, Err("stale".into()));
        assert_eq!(
            judged(&health, after(start, 1000)),
            Availability::Doubtful("stale".into())
        );
        health.ask(after(start, 1000));
        health.answer(after(start, 2000), Err("gone".into()));
        assert_eq!(
            judged(&health, after(start, 2000)),
            Availability::Lost("gone".into())
        );
        health.ask(after(start, 3000));
        health.answer(after(start, 3000), Ok(()));
        assert_eq!(judged(&health, after(start, 3000)), Availability::Available);
        health.ask(after(start, 4000));
        health.answer(after(start, 4000), Err("stale".into()));
        assert!(!judged(&health, after(start, 4000)).is_lost());
    }

    #[test]
    fn a_file_system_that_fails_and_then_hangs_is_still_lost() {
        let start = Instant::now();
        let mut health = Health::default();
        health.ask(start);
        health.answer(start, Err("stale".into()));
        health.ask(after(start, 1000));
        assert_eq!(
            judged(&health, after(start, 60_000)),
            Availability::Lost("stale".into())
        );
    }
}
