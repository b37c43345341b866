//! What is remembered of one check, and how what is found of it changes that.

use serde::{Deserialize, Serialize};

use super::change::{Change, Observation, Reason};
use crate::{Acknowledgement, Check, Code, Expected, Finding, Moment, Recovered, State, Window};

/// For how long something that has recovered shows that it was bad, in seconds.
const SHOWN: i64 = 86_400;

/// What is remembered of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// As it was found last.
    pub(super) finding: Finding,
    /// Since when it is bad, or well.
    since: i64,
    /// When it was seen to become bad, or worse.
    noticed: i64,
    /// Whether somebody was told of it.
    told: bool,
    /// Whether it was expected when it was looked at last.
    #[serde(default)]
    expected: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) acknowledged: Option<Acknowledgement>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recovered: Option<Recovered>,
}

impl Entry {
    pub(super) fn new(finding: Finding, now: i64) -> Self {
        Self {
            since: now,
            noticed: now,
            told: false,
            expected: false,
            acknowledged: None,
            recovered: None,
            finding: Finding {
                state: State::Ok,
                ..finding
            },
        }
    }

    /// Whether it would be missed after a restart.
    pub(super) fn is_memorable(&self) -> bool {
        self.finding.state.is_bad() || self.recovered.is_some()
    }

    fn change(&self, from: State, reason: Reason, since: i64, at: i64, loud: bool) -> Change {
        let finding = &self.finding;
        Change {
            at,
            code: finding.code,
            object: finding.object.clone(),
            scope: finding.scope.clone(),
            from,
            to: finding.state,
            reason,
            since,
            evidence: finding.evidence.clone(),
            remedy: finding.remedy.clone(),
            loud,
        }
    }

    /// Takes in what was found of it.
    pub(super) fn take(
        &mut self,
        finding: Finding,
        windows: &[Window],
        moment: &Moment,
        observation: &mut Observation,
    ) {
        let now = moment.now;
        let (from, to) = (self.finding.state, finding.state);
        let told_since = finding.since.filter(|since| *since <= now);
        // Judged by what was known of it before it became what it is now.
        let was_quiet = from.is_bad() && self.is_quiet(windows, moment);
        let evidence = std::mem::take(&mut self.finding.evidence);
        self.finding = finding;
        match (from.is_bad(), to.is_bad()) {
            (false, true) => {
                self.since = told_since.unwrap_or(now);
                self.noticed = now;
                self.recovered = None;
            }
            (true, false) => {
                self.recovered = Some(Recovered {
                    from,
                    at: now,
                    bad_since: self.since,
                    evidence,
                    gone: false,
                });
                self.since = now;
            }
            // What was loud stays loud: a window takes over only what nobody was called for.
            _ if to > from && was_quiet => self.noticed = now,
            _ => {}
        }
        let bad_since = self
            .recovered
            .as_ref()
            .filter(|recovered| recovered.at == now && !to.is_bad())
            .map_or(self.since, |recovered| recovered.bad_since);
        let (was_acknowledged, was_expected) = (self.acknowledged.is_some(), self.expected);
        let expected = self.settle(windows, moment);
        let is_quiet = self.acknowledged.is_some() || expected.is_some();
        let change = if from != to {
            let loud = match to.is_bad() {
                true => !is_quiet,
                false => self.told,
            };
            Some((Reason::Changed, loud))
        } else if to.is_bad() && !is_quiet && was_acknowledged && !was_expected {
            Some((Reason::AcknowledgementEnded, true))
        } else if to.is_bad() && !is_quiet && was_expected {
            Some((Reason::OutlastedWindow, true))
        } else if to.is_bad() && !is_quiet && !self.told {
            // Its acknowledgement was taken back before anybody was told.
            Some((Reason::AcknowledgementEnded, true))
        } else {
            None
        };
        if let Some((reason, loud)) = change {
            self.told = (self.told || loud) && to.is_bad();
            let change = self.change(from, reason, bad_since, now, loud);
            observation.changes.push(change);
        }
        let check = self.check(expected, None);
        observation.checks.push(check);
    }

    /// Whether trouble with it that comes now, or goes on, calls for nobody.
    pub(super) fn is_quiet(&self, windows: &[Window], moment: &Moment) -> bool {
        if self.finding.state.is_bad() {
            let is_expected = self.expected_in(windows, moment).is_some();
            return is_expected || self.is_acknowledged(moment.now);
        }
        let mut concern = windows.iter().filter(|window| window.covers(&self.finding));
        concern.any(|window| window.occurrence(moment.now, &moment.zone).is_some())
    }

    fn is_acknowledged(&self, now: i64) -> bool {
        self.acknowledged
            .as_ref()
            .is_some_and(|made| made.lasts(now))
    }

    /// Ends what has ended: acknowledgements, and the memory of trouble. Tells in which window it is expected.
    fn settle(&mut self, windows: &[Window], moment: &Moment) -> Option<Expected> {
        let (now, state) = (moment.now, self.finding.state);
        let count = self.finding.damage();
        self.acknowledged = self
            .acknowledged
            .take()
            .filter(|made| state.is_bad() && state <= made.state && made.lasts(now))
            .and_then(|made| made.still_knows(count));
        let is_news =
            |recovered: &Recovered| moment.age(recovered.at) < SHOWN && recovered.at <= now;
        self.recovered = self.recovered.take().filter(is_news);
        let expected = match state.is_bad() {
            true => self.expected_in(windows, moment),
            false => None,
        };
        self.expected = expected.is_some();
        expected
    }

    /// The window in which it came up, if that lasts.
    fn expected_in(&self, windows: &[Window], moment: &Moment) -> Option<Expected> {
        let concern = windows.iter().filter(|window| window.covers(&self.finding));
        let spans = concern.filter_map(|window| {
            let span = window.occurrence(self.noticed, &moment.zone)?;
            (moment.now < span.end && span.start <= moment.now).then(|| Expected {
                window: window.id.clone(),
                until: span.end,
            })
        });
        spans.max_by_key(|expected| expected.until)
    }

    fn check(&self, expected: Option<Expected>, held: Option<&str>) -> Check {
        let mut finding = self.finding.clone();
        finding.since = Some(self.since);
        if held.is_some() && !finding.state.is_bad() {
            finding.state = State::Unknown;
        }
        Check {
            finding,
            acknowledged: self.acknowledged.clone(),
            expected,
            recovered: self.recovered.clone(),
            held: held.map(str::to_owned),
        }
    }

    /// It could not be looked at.
    pub(super) fn hold(
        &mut self,
        reason: &str,
        windows: &[Window],
        moment: &Moment,
        observation: &mut Observation,
    ) {
        let same = self.finding.clone();
        let mut own = Observation::default();
        self.take(same, windows, moment, &mut own);
        observation.changes.append(&mut own.changes);
        let expected = own.checks.pop().and_then(|check| check.expected);
        observation.checks.push(self.check(expected, Some(reason)));
    }

    /// It is not there any more. Tells whether it is still to be remembered.
    pub(super) fn leave(&mut self, moment: &Moment, observation: &mut Observation) -> bool {
        if self.finding.state.is_bad() {
            // Ways out are known only while something waits for them.
            let (evidence, reason) = match self.finding.code {
                Code::NotificationUndelivered | Code::HeartbeatUndelivered => {
                    ("nothing waits for it any more", Reason::Changed)
                }
                Code::NotificationNobody => ("it does not concern anything now", Reason::Changed),
                _ => ("it is not there any more", Reason::Gone),
            };
            let gone = Finding::ok(
                self.finding.code,
                &self.finding.object,
                &self.finding.scope,
                evidence,
            );
            let mut own = Observation::default();
            self.take(gone, &[], moment, &mut own);
            for change in &mut own.changes {
                change.reason = reason;
            }
            observation.changes.append(&mut own.changes);
            if let Some(recovered) = &mut self.recovered {
                recovered.gone = reason == Reason::Gone;
            }
        } else {
            self.settle(&[], moment);
        }
        if self.recovered.is_none() {
            return false;
        }
        observation.checks.push(self.check(None, None));
        true
    }
}
