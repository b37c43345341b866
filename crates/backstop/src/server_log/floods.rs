//! Lines that come again and again: the first ones of a minute are written, the others counted.
//!
//! Two lines are the same when they come from the same place and say the same. What is kept back is told at the end of its
//! time, with the number; nothing is lost without a word. A warning or an error that goes on for five minutes is written once in two
//! minutes from then on, then in four, and so on up to an hour. Memory is bounded: of too many different lines all are written.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{self, Context};

/// How long equal lines belong together at first.
const WINDOW: Duration = Duration::from_secs(60);
/// Equal lines that are written in that time.
const WRITTEN: u64 = 10;
/// In how many such times in a row trouble has to come until it counts as trouble that goes on.
const STREAK: u32 = 5;
/// How long equal lines of trouble that goes on belong together at most. One of them is written.
const LONGEST: Duration = Duration::from_secs(3600);
/// Different lines that are remembered.
const REMEMBERED: usize = 1024;
/// How often it is looked whether a window has ended.
const LOOK: Duration = Duration::from_secs(10);
/// The origin of the lines that tell of others.
const TARGET: &str = "backstop::repeated";

/// What is known of the last lines.
#[derive(Debug, Default)]
pub(super) struct Floods {
    lines: Mutex<HashMap<(&'static str, String), Seen>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    level: Level,
    begin: Instant,
    /// How long it lasts.
    window: Duration,
    /// How many lines are written in it.
    written: u64,
    count: u64,
    /// How many times before, without a gap, had such a line.
    streak: u32,
}

impl Seen {
    fn new(level: Level, begin: Instant) -> Self {
        Self {
            level,
            begin,
            window: WINDOW,
            written: WRITTEN,
            count: 0,
            streak: 0,
        }
    }

    /// What comes after the end of its time, when it is trouble that may go on.
    fn next(self, begin: Instant) -> Option<Self> {
        let may_go_on = self.count > 0 && self.level <= Level::WARN;
        may_go_on.then(|| {
            let streak = self.streak.saturating_add(1);
            let (window, written) = if streak < STREAK {
                (WINDOW, WRITTEN)
            } else {
                (self.window.saturating_mul(2).min(LONGEST), 1)
            };
            Self {
                window,
                written,
                streak,
                ..Self::new(self.level, begin)
            }
        })
    }
}

impl Floods {
    /// Whether a line is to be written.
    fn pass(&self, place: &'static str, level: Level, text: String, now: Instant) -> bool {
        let mut lines = self.lines.lock();
        let is_full = lines.len() >= REMEMBERED;
        let key = (place, text);
        if is_full && !lines.contains_key(&key) {
            return true;
        }
        let seen = lines.entry(key).or_insert_with(|| Seen::new(level, now));
        seen.count += 1;
        seen.count <= seen.written
    }

    /// What was kept back in times that have ended, or in all: level, text and number.
    fn ended(&self, now: Instant, all: bool) -> Vec<(Level, String, u64)> {
        let mut told = Vec::new();
        self.lines.lock().retain(|(_, text), seen| {
            if !all && now.saturating_duration_since(seen.begin) < seen.window {
                return true;
            }
            if seen.count > seen.written {
                told.push((seen.level, text.clone(), seen.count - seen.written));
            }
            match seen.next(now) {
                Some(next) => {
                    *seen = next;
                    true
                }
                None => false,
            }
        });
        told
    }

    fn tell_ended(&self, all: bool) {
        for (level, text, repeated) in self.ended(Instant::now(), all) {
            match level {
                Level::ERROR => tracing::error!(target: TARGET, repeated, "the same again: {text}"),
                Level::WARN => tracing::warn!(target: TARGET, repeated, "the same again: {text}"),
                _ => tracing::info!(target: TARGET, repeated, "the same again: {text}"),
            }
        }
    }

    /// Tells all that is kept back.
    pub(super) fn tell(&self) {
        self.tell_ended(true);
    }
}

/// Starts the thread that tells what was kept back; it ends with `floods`.
pub(super) fn watch(floods: &Arc<Floods>) -> io::Result<()> {
    let floods: Weak<Floods> = Arc::downgrade(floods);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            while let Some(floods) = floods.upgrade() {
                floods.tell_ended(false);
                drop(floods);
                std::thread::sleep(LOOK);
            }
        })?;
    Ok(())
}

/// Keeps lines back from all other layers.
pub(super) struct Layer(Arc<Floods>);

impl Layer {
    pub(super) fn new(floods: Arc<Floods>) -> Self {
        Self(floods)
    }
}

impl<S: Subscriber> layer::Layer<S> for Layer {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if metadata.target() == TARGET {
            return true;
        }
        let mut text = Text::default();
        event.record(&mut text);
        self.0
            .pass(metadata.name(), *metadata.level(), text.0, Instant::now())
    }
}

/// The fields of an event as one text, the message first as far as it comes first.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let space = if self.0.is_empty() { "" } else { " " };
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{space}{value:?}"),
            name => write!(self.0, "{space}{name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_first_equal_lines_of_a_minute_pass_and_the_others_are_counted() {
        let floods = Floods::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let pass = |text: &str, seconds: u64| {
            floods.pass("here", Level::INFO, text.to_owned(), at(seconds))
        };
        let passed = (0..100).filter(|_| pass("a", 0)).count();
        assert_eq!(passed, 10);
        assert!(pass("b", 0));
        assert!(floods.ended(at(59), false).is_empty());
        assert_eq!(
            floods.ended(at(60), false),
            [(Level::INFO, "a".to_owned(), 90)]
        );
        assert!(pass("a", 61), "a new minute");
        assert!(floods.ended(at(61), false).is_empty());
    }

    #[test]
    fn trouble_that_goes_on_is_written_ever_more_seldom_and_anew_after_a_rest() {
        let floods = Floods::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let (mut written, mut told) = (Vec::new(), 0);
        // A day long, each ten seconds.
        for second in (0..86_400).step_by(10) {
            told += floods
                .ended(at(second), false)
                .iter()
                .map(|told| told.2)
                .sum::<u64>();
            if floods.pass("here", Level::WARN, "it fails".to_owned(), at(second)) {
                written.push(second);
            }
        }
        // All of the first five minutes, then one in two minutes, in four, …
        let first: Vec<u64> = (0..300).step_by(10).collect();
        assert_eq!(written[..30], first);
        assert_eq!(written[30..34], [300, 420, 660, 1140], "{written:?}");
        assert!(written.len() < 70, "{written:?}");
        told += floods
            .ended(at(86_400), true)
            .iter()
            .map(|told| told.2)
            .sum::<u64>();
        assert_eq!(
            told + written.len() as u64,
            8640,
            "nothing is lost without a word"
        );
        assert!(floods.ended(at(86_400 + 3600), false).is_empty());
        let passed = (0..20)
            .filter(|_| floods.pass("here", Level::WARN, "it fails".to_owned(), at(100_000)));
        assert_eq!(passed.count(), 10);
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_kept_back_for_want_of_it() {
        let floods = Floods::default();
        let now = Instant::now();
        for number in 0..10 * REMEMBERED {
            assert!(floods.pass("here", Level::INFO, number.to_string(), now));
        }
        assert_eq!(floods.lines.lock().len(), REMEMBERED);
    }
}
