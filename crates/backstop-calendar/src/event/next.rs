//! When an event happens next.
//!
//! Where the clock jumps, an event with fixed hours happens once for each local time that it names: one that was skipped
//! happens at the end of the gap, one that comes twice happens the first time. An event of every hour follows the clock
//! instead: what is skipped is skipped, what comes twice happens twice, so that its distances stay even.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use super::CalendarEvent;

/// After so many years the calendar repeats itself.
const CYCLE: i16 = 400;
/// More than any clock was ever set back or forward, in seconds.
const LONGEST_JUMP: i64 = 2 * 86_400;

impl CalendarEvent {
    /// The first moment later than `after` at which the event happens, both in seconds since 1970. Local times are those of
    /// `zone`, unless the event itself is one of universal time. `None` if it never happens again.
    pub fn next_after(&self, after: i64, zone: &TimeZone) -> Option<i64> {
        let zone = if self.utc { &TimeZone::UTC } else { zone };
        let after = Timestamp::from_second(after).ok()?;
        let next = if self.hours.is_full() {
            self.next_of_clock(after, zone)
        } else {
            self.next_of_local_time(after, zone)
        };
        next.map(Timestamp::as_second)
    }

    /// Each local time counts once.
    fn next_of_local_time(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut from = one_second_later(zone.to_datetime(after))?;
        loop {
            let local = self.next_local(from)?;
            let (moment, retry) = match zone.to_ambiguous_timestamp(local).offset() {
                AmbiguousOffset::Unambiguous { offset } => (offset.to_timestamp(local).ok()?, None),
                AmbiguousOffset::Gap { before, .. } => {
                    // Read with the old offset, a skipped time is a moment after the jump.
                    let after_jump = offset_time(before, local)?;
                    let jump = zone.preceding(next_second(after_jump)?).next()?.timestamp();
                    (jump, Some(zone.to_datetime(jump)))
                }
                AmbiguousOffset::Fold { before, .. } => {
                    let first_pass = offset_time(before, local)?;
                    let jump = zone.following(first_pass).next()?.timestamp();
                    (first_pass, Some(before.to_datetime(jump)))
                }
            };
            if moment > after {
                return Some(moment);
            }
            // All times of this gap or of this repeated hour have happened.
            from = retry
                .unwrap_or(one_second_later(local)?)
                .max(one_second_later(from)?);
        }
    }

    /// The clock counts: stretches of constant offset one after the other.
    fn next_of_clock(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut from = next_second(after)?;
        loop {
            let offset = zone.to_offset(from);
            let local = self.next_local(offset.to_datetime(from))?;
            let moment = offset_time(offset, local)?;
            let jump = zone.following(from).next().map(|jump| jump.timestamp());
            let Some(jump) = jump.filter(|jump| *jump <= moment) else {
                return Some(moment);
            };
            // Shortly after a jump, times before `local` may come again. Later none does until `local` is near.
            let is_near = jump.as_second() - from.as_second() <= LONGEST_JUMP;
            let skip = Timestamp::from_second(moment.as_second() - LONGEST_JUMP).ok()?;
            from = if is_near { jump } else { jump.max(skip) };
        }
    }

    /// The first local time not before `from` that matches.
    fn next_local(&self, from: DateTime) -> Option<DateTime> {
        if self.matches_date(from.date())
            && let Some(time) = self.next_time(from.time())
        {
            return Some(from.date().to_datetime(time));
        }
        let date = self.next_date(from.date().tomorrow().ok()?)?;
        Some(date.to_datetime(self.next_time(Time::midnight())?))
    }

    fn matches_date(&self, date: Date) -> bool {
        self.has_year(date.year())
            && self.months.contains(date.month().unsigned_abs().into())
            && self.days.contains(date.day().unsigned_abs().into())
            && self.has_weekday(date)
    }

    fn has_year(&self, year: i16) -> bool {
        self.years.is_full() || u16::try_from(year).is_ok_and(|year| self.years.contains(year))
    }

    fn has_weekday(&self, date: Date) -> bool {
        let number = date.weekday().to_monday_zero_offset();
        self.weekdays.contains(number.unsigned_abs().into())
    }

    /// The first date not before `from` that matches.
    fn next_date(&self, from: Date) -> Option<Date> {
        let last = from.year().saturating_add(CYCLE).max(2200);
        for year in (from.year()..=last).filter(|year| self.has_year(*year)) {
            for month in self.months.iter() {
                let month = i8::try_from(month).ok()?;
                let Ok(first) = Date::new(year, month, 1) else {
                    continue;
                };
                if first.last_of_month() < from {
                    continue;
                }
                let dates = self.days.iter().filter_map(|day| {
                    let day = i8::try_from(day).ok()?;
                    Date::new(year, month, day).ok()
                });
                if let Some(date) = { dates }.find(|date| *date >= from && self.has_weekday(*date))
                {
                    return Some(date);
                }
            }
        }
        None
    }

    /// The first time of day not before `from` that matches.
    fn next_time(&self, from: Time) -> Option<Time> {
        let part = |value: i8| u16::from(value.unsigned_abs());
        let (hour, minute, second) = (part(from.hour()), part(from.minute()), part(from.second()));
        let time = |hour, minute, second| {
            let part = |value: u16| i8::try_from(value).ok();
            Time::new(part(hour)?, part(minute)?, part(second)?, 0).ok()
        };
        let (first_minute, first_second) = (self.minutes.next(0)?, self.seconds.next(0)?);
        if self.hours.contains(hour) {
            if self.minutes.contains(minute)
                && let Some(second) = self.seconds.next(second)
            {
                return time(hour, minute, second);
            }
            if let Some(minute) = self.minutes.next(minute + 1) {
                return time(hour, minute, first_second);
            }
        }
        time(self.hours.next(hour + 1)?, first_minute, first_second)
    }
}

fn offset_time(offset: Offset, local: DateTime) -> Option<Timestamp> {
    offset.to_timestamp(local).ok()
}

fn next_second(moment: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(moment.as_second().checked_add(1)?).ok()
}

fn one_second_later(local: DateTime) -> Option<DateTime> {
    local.checked_add(jiff::Span::new().seconds(1)).ok()
}
