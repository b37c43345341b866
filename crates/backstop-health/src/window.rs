//! Maintenance windows: times in which trouble is expected. What comes up in one is shown as expected until the window ends, and
//! calls for somebody when it lasts longer. Nothing is ever left out because of a window.

use backstop_calendar::CalendarEvent;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::settings::SettingsError;
use crate::{Code, Finding, Place};

/// Longest window: a week, in seconds. What takes longer is no window.
const LONGEST: i64 = 7 * 86_400;
/// Most occurrences that are looked at to find the last one.
const MAX_STEPS: usize = 2000;

/// A maintenance window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Window {
    /// Its name.
    pub id: String,
    /// When it begins: a calendar event. `None`: once, at `start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// When it begins if it comes once, in seconds since 1970. With a schedule, it does not come before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<i64>,
    /// How long it is, in seconds.
    pub duration: i64,
    /// What it concerns; `None`: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Which checks it concerns; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<Code>,
    /// Which object it concerns, such as `job/sync/offsite`; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Who made it.
    pub made_by: String,
    /// When, in seconds since 1970.
    pub made_at: i64,
}

/// A time from a second to another, which it does not include.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first second.
    pub start: i64,
    /// The end.
    pub end: i64,
}

impl Window {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.duration < 1 || self.duration > LONGEST {
            return Err(SettingsError(
                "a maintenance window lasts for a second at least, and for a week at most"
                    .to_owned(),
            ));
        }
        match (&self.schedule, self.start) {
            (None, None) => Err(SettingsError(
                "a maintenance window needs a schedule or a start".to_owned(),
            )),
            (Some(schedule), _) => match schedule.parse::<CalendarEvent>() {
                Ok(_) => Ok(()),
                Err(err) => Err(SettingsError(err.to_string())),
            },
            (None, Some(_)) => Ok(()),
        }
    }

    /// Whether it concerns a finding.
    pub fn covers(&self, finding: &Finding) -> bool {
        let (codes, object) = (&self.codes, &self.object);
        (codes.is_empty() || codes.contains(&finding.code))
            && object
                .as_ref()
                .is_none_or(|object| *object == finding.object)
            && self
                .place
                .as_ref()
                .is_none_or(|place| place.contains(&finding.scope))
    }

    /// The occurrence in which a time lies, in seconds since 1970; of several, the one that began last. What begins in one
    /// occurrence and lasts into the next has lasted beyond its window, even when they follow each other without a gap.
    pub fn occurrence(&self, at: i64, zone: &TimeZone) -> Option<Span> {
        let duration = self.duration.clamp(1, LONGEST);
        let not_before = self.start.unwrap_or(i64::MIN);
        let start = match &self.schedule {
            None => self.start?,
            Some(schedule) => last_start(&schedule.parse().ok()?, at, duration, zone)?,
        };
        let end = start.saturating_add(duration);
        (not_before <= start && start <= at && at < end).then_some(Span { start, end })
    }
}

/// When an event came last, if that was less than `reach` seconds before `at`. Looks at a short time first: the event may be one of
/// each second.
fn last_start(event: &CalendarEvent, at: i64, reach: i64, zone: &TimeZone) -> Option<i64> {
    const REACHES: [i64; 5] = [60, 900, 6 * 3600, 2 * 86_400, i64::MAX];
    let next = |after: i64| event.next_after(after, zone).filter(|next| *next <= at);
    let back = |reach: i64| next(at.saturating_sub(reach).max(0));
    let shorter = REACHES.into_iter().map(|some| some.min(reach));
    let mut last = shorter.into_iter().find_map(back)?;
    for _ in 0..MAX_STEPS {
        match next(last) {
            Some(later) => last = later,
            None => break,
        }
    }
    Some(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const DAY: i64 = 86_400;

    fn window(schedule: Option<&str>, start: Option<i64>, duration: i64) -> Window {
        Window {
            id: "w".to_owned(),
            schedule: schedule.map(str::to_owned),
            start,
            duration,
            place: None,
            codes: Vec::new(),
            object: None,
            comment: String::new(),
            made_by: "root@pam".to_owned(),
            made_at: 0,
        }
    }

    fn at(window: &Window, now: i64) -> Option<(i64, i64)> {
        let span = window.occurrence(now, &TimeZone::UTC);
        span.map(|span| (span.start, span.end))
    }

    #[test]
    fn a_window_begins_with_its_event_and_ends_after_its_duration() {
        let nightly = window(Some("2:00"), None, 3600);
        let start = 10 * DAY + 7200;
        assert_eq!(at(&nightly, start - 1), None);
        for now in [start, start + 1, start + 3599] {
            assert_eq!(at(&nightly, now), Some((start, start + 3600)), "{now}");
        }
        assert_eq!(at(&nightly, start + 3600), None);
        let once = window(None, Some(500), 100);
        assert_eq!(at(&once, 499), None);
        assert_eq!(at(&once, 500), Some((500, 600)));
        assert_eq!(at(&once, 600), None);
    }

    #[test]
    fn of_occurrences_that_overlap_the_last_one_counts() {
        // At each full hour for 90 minutes, from 8 to 10 o'clock.
        let joined = window(Some("8..10:00"), None, 5400);
        let hour = |hour: i64| 10 * DAY + hour * 3600;
        assert_eq!(at(&joined, hour(8) - 1), None);
        let of = |start: i64| Some((start, start + 5400));
        assert_eq!(at(&joined, hour(8)), of(hour(8)));
        assert_eq!(at(&joined, hour(9) + 60), of(hour(9)));
        assert_eq!(at(&joined, hour(11)), of(hour(10)));
        assert_eq!(at(&joined, hour(11) + 1800), None);
        let always = window(Some("*:*:*"), None, LONGEST);
        assert_eq!(at(&always, hour(9)), Some((hour(9), hour(9) + LONGEST)));
        let monthly = window(Some("monthly"), None, LONGEST);
        let february = 31 * DAY;
        assert_eq!(
            at(&monthly, february + 6 * DAY),
            Some((february, february + LONGEST))
        );
        assert_eq!(at(&monthly, february + 7 * DAY), None);
    }

    #[test]
    fn a_window_does_not_come_before_its_start() {
        let later = window(Some("2:00"), Some(20 * DAY), 3600);
        assert_eq!(at(&later, 10 * DAY + 7200), None);
        assert!(at(&later, 20 * DAY + 7200).is_some());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(window(None, None, 60).check().is_err());
        assert!(window(Some("25:00:00"), None, 60).check().is_err());
        assert!(window(Some("daily"), None, 0).check().is_err());
        assert!(window(Some("daily"), None, LONGEST + 1).check().is_err());
        assert!(window(Some("daily"), None, LONGEST).check().is_ok());
    }
}
