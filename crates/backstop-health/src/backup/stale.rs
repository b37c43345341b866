//! Too old, by what is expected or by the own cadence; and made by a clock that is wrong.

use super::About;
use crate::cadence::{Cadence, ENOUGH, LEARNING};
use crate::number::{float, float_u};
use crate::{Code, Every, Expectation, Finding, Learnt, Moment, State, span_text};

/// A backup that lies further in the future shows that a clock is wrong, in seconds.
const CLOCK_TOLERANCE: i64 = 3600;

const STALE: &str = "see whether its backup job runs and reaches this server; if its cadence has changed, say so with 'backstop health expect \
                     set', and with '--every never' if it is finished";
pub(super) const NO_BACKUP: &str = "see whether its backup job runs and reaches this server";

impl About<'_> {
    pub(super) fn stale(&self, expectation: Option<&Expectation>, learnt: &Learnt) -> Finding {
        let code = Code::BackupStale;
        let moment = self.moment;
        // What lies in the future says nothing of what came lately.
        let past = self.group.newest.iter().map(|snapshot| snapshot.time);
        let Some(newest) = past.clone().find(|time| !is_future(*time, moment)) else {
            return self.none(expectation);
        };
        let age = moment.age(newest);
        let (limits, why) = match expectation.map(|made| (made, made.every)) {
            Some((_, Every::Never)) => {
                let text = format!(
                    "its newest backup is of {}; no further one is expected",
                    moment.ago(newest)
                );
                return self.ok(code, text);
            }
            Some((made, every)) => (
                every.limits().unwrap_or((i64::MAX, i64::MAX)),
                format!("one every {every} is expected of {}", made.place),
            ),
            None => match learnt.cadence(self.object, moment.now) {
                Ok(cadence) => ((cadence.limit, cadence.worse), usual(&cadence)),
                Err(known) => {
                    let text = format!(
                        "its newest backup is of {}; with {known} of the {ENOUGH} intervals that tell how often it is backed up, nothing \
                         is said of its age",
                        moment.ago(newest)
                    );
                    return self.ok(code, text);
                }
            },
        };
        let (limit, worse) = limits;
        let state = match age {
            old if old > worse => State::Critical,
            old if old > limit => State::Warning,
            _ => State::Ok,
        };
        let finding = self.ok(
            code,
            format!("its newest backup is of {}; {why}", moment.ago(newest)),
        );
        let finding = match state {
            State::Ok => finding,
            state => finding.bad(state, Some(newest.saturating_add(limit)), STALE),
        };
        finding.measured(float(age), "s", float(limit), float(worse))
    }

    /// It holds no backup that would count.
    fn none(&self, expectation: Option<&Expectation>) -> Finding {
        let code = Code::BackupStale;
        let what = match self.group.newest.is_empty() {
            true => "it holds no finished backup",
            false => "it holds no backup that is not of the future",
        };
        let expected = expectation.and_then(|made| Some((made, made.every.limits()?.0)));
        let Some((made, limit)) = expected else {
            return self.ok(code, format!("{what}, and none is expected"));
        };
        let due = made.made_at.saturating_add(limit);
        let text = format!("{what}; one every {} is expected", made.every);
        match self.moment.now > due {
            true => self
                .ok(code, text)
                .bad(State::Critical, Some(due), NO_BACKUP),
            false => self.ok(code, text),
        }
    }

    /// Backups of the future, which tell of a wrong clock; `None`: there are none.
    pub(super) fn clock(&self) -> Option<Finding> {
        let moment = self.moment;
        let times = self.group.newest.iter().map(|snapshot| snapshot.time);
        let future: Vec<i64> = times.filter(|time| is_future(*time, moment)).collect();
        let (first, count) = (future.first()?, future.len());
        let (noun, verb) = match count {
            1 => ("backup", "is"),
            _ => ("backups", "are"),
        };
        let text = format!(
            "{count} {noun} {verb} of the future: the newest of {}",
            moment.ago(*first)
        );
        let finding = self.ok(Code::ClockJump, text).bad(
            State::Warning,
            None,
            "set the clock of the host that made it; pruning would keep it and remove others: forget it when there is a newer one",
        );
        Some(finding.measured(float_u(count as u64), "", 0.0, None))
    }
}

fn is_future(time: i64, moment: &Moment) -> bool {
    time > moment.now.saturating_add(CLOCK_TOLERANCE)
}

fn usual(cadence: &Cadence) -> String {
    let (usual, pause) = (span_text(cadence.usual), span_text(cadence.pause));
    let mut text = match () {
        () if cadence.irregular => format!("they come irregularly, with pauses of up to {pause}"),
        () if cadence.pause > cadence.usual.saturating_add(cadence.usual / 2) => {
            format!("one every {usual} is usual, with pauses of up to {pause}")
        }
        () => format!("one every {usual} is usual"),
    };
    if cadence.is_new {
        text.push_str(&format!(
            " (it is watched for less than {}, and judged by that)",
            span_text(LEARNING)
        ));
    }
    text
}
