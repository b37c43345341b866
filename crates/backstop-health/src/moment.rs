//! Now, as it is given, and times for people.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::span::span_text;

/// A moment with the time zone of the host.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Seconds since 1970.
    pub now: i64,
    /// Where calendar events are looked up.
    pub zone: TimeZone,
}

impl Moment {
    /// This moment.
    pub fn new(now: i64, zone: TimeZone) -> Self {
        Self { now, zone }
    }

    /// How long ago something was, in seconds; never negative.
    pub fn age(&self, at: i64) -> i64 {
        self.now.saturating_sub(at).max(0)
    }

    /// A time for people, such as `2026-11-29 02:00:00`.
    pub fn text(&self, at: i64) -> String {
        match Timestamp::from_second(at) {
            Ok(time) => {
                let zoned = time.to_zoned(self.zone.clone());
                zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
            }
            Err(_) => at.to_string(),
        }
    }

    /// A time with its distance, such as `2026-11-29 02:00:00 (3h 5m ago)`.
    pub fn ago(&self, at: i64) -> String {
        if at > self.now {
            let span = span_text(at.saturating_sub(self.now));
            return format!("{} (in {span})", self.text(at));
        }
        format!("{} ({} ago)", self.text(at), span_text(self.age(at)))
    }
}
