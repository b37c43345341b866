//! Damaged, or not verified for too long.

use super::About;
use crate::facts::{VerificationFacts, reaches};
use crate::number::{float, float_u};
use crate::{Code, Finding, State};

const DAY: i64 = 86_400;
/// A backup that is older than this and was never verified is noticed, in seconds. A job has had several turns by then.
const UNVERIFIED: i64 = 37 * DAY;
/// How much longer than its job says a verification may take to come again, in seconds.
const VERIFY_GRACE: i64 = 7 * DAY;

impl About<'_> {
    pub(super) fn damage(&self) -> Finding {
        let code = Code::BackupVerifyFailed;
        let damaged = &self.group.damaged;
        let count = damaged.len();
        let finding = match damaged.as_slice() {
            [] => self.ok(code, "verification has found no damage"),
            times => {
                let shown: Vec<String> = times
                    .iter()
                    .take(3)
                    .map(|time| self.moment.text(*time))
                    .collect();
                let more = count.saturating_sub(shown.len());
                let more = match more {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let (noun, verb) = if count == 1 {
                    ("backup", "is")
                } else {
                    ("backups", "are")
                };
                self.ok(code, format!("{count} {noun} {verb} damaged: of {}{more}", shown.join(", "))).bad(
                    State::Critical,
                    None,
                    "back it up anew, which may heal its chunks, or sync them from a good copy with 'resync-corrupt'; then verify \
                     again",
                )
            }
        };
        finding.measured(float_u(count as u64), "", None, 0.0)
    }

    pub(super) fn verification(&self, jobs: &[VerificationFacts]) -> Finding {
        let code = Code::BackupVerifyOld;
        let Some(oldest) = self.group.oldest else {
            return self.ok(code, "there is nothing to verify");
        };
        let covers = |job: &&VerificationFacts| {
            job.datastore == self.group.datastore
                && reaches(&job.namespace, job.depth, &self.group.namespace)
        };
        let Some(job) = jobs
            .iter()
            .filter(covers)
            .min_by_key(|job| job.again_after.unwrap_or(i64::MAX))
        else {
            let text = match self.group.verified {
                Some(at) => format!("last verified {}; no job verifies it", self.moment.ago(at)),
                None => "it was never verified; no job verifies it".to_owned(),
            };
            return self.ok(code, text);
        };
        let remedy = || {
            format!(
                "see why verify job '{0}' does not reach it: proxmox-backup-manager verify-job run {0}",
                job.job
            )
        };
        let Some(verified) = self.group.verified else {
            let age = self.moment.age(oldest);
            let finding = self.ok(code, "it was not verified yet");
            return match age > UNVERIFIED {
                true => finding.bad(
                    State::Warning,
                    Some(oldest.saturating_add(UNVERIFIED)),
                    remedy(),
                ),
                false => finding,
            }
            .measured(float(age), "s", float(UNVERIFIED), None);
        };
        // What is verified once and never again is as it should be while nothing new comes.
        let newest = self
            .group
            .newest
            .first()
            .map_or(verified, |snapshot| snapshot.time);
        let limit = match job.again_after {
            Some(days) => days.saturating_mul(DAY).saturating_add(VERIFY_GRACE),
            None if newest <= verified => i64::MAX,
            None => UNVERIFIED,
        };
        let age = self.moment.age(verified);
        let finding = self.ok(code, format!("last verified {}", self.moment.ago(verified)));
        match age > limit {
            true => finding.bad(
                State::Warning,
                Some(verified.saturating_add(limit)),
                remedy(),
            ),
            false => finding,
        }
        .measured(
            float(age),
            "s",
            Some(float(limit)).filter(|_| limit < i64::MAX),
            None,
        )
    }
}
