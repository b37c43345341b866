//! Whether anybody can be told of errors, and what reached nobody.

use crate::facts::AudienceFacts;
use crate::number::float_u;
use crate::{Code, Finding, Moment, Scope, State};

/// What the check of all targets together is about.
const ERRORS: &str = "notifications/errors";
/// Reasons that are told.
const TOLD: usize = 5;

pub fn judge(audience: &AudienceFacts, moment: &Moment, findings: &mut Vec<Finding>) {
    let code = Code::NotificationNobody;
    let scope = Scope::default();
    let unheard: u64 = audience.unheard.iter().map(|lane| lane.count).sum();
    if audience.reached.is_empty() {
        let mut text = "nobody is told of errors: no enabled target that a matcher leads errors to can be reached".to_owned();
        for reason in audience.reasons.iter().take(TOLD) {
            text.push_str("; ");
            text.push_str(reason);
        }
        if unheard > 0 {
            let noun = if unheard == 1 { "message" } else { "messages" };
            text.push_str(&format!(
                "; {unheard} {noun} of the last day reached nobody"
            ));
        }
        findings.push(
            Finding::ok(code, ERRORS, &scope, text)
                .bad(
                    State::Warning,
                    None,
                    "say who is to be told: proxmox-backup-manager user update root@pam --email ADDRESS; or add a target and a matcher \
                     that leads to it (docs/notifications.md)",
                )
                .measured(float_u(unheard), "", 0.0, None),
        );
        return;
    }
    let text = format!("errors are told to: {}", audience.reached.join(", "));
    findings.push(Finding::ok(code, ERRORS, &scope, text));
    for lane in &audience.unheard {
        let (object, whom) = match lane.target.strip_prefix("user:") {
            Some(user) => (format!("target/{}", lane.target), format!("user {user}")),
            None => (
                format!("target/{}", lane.target),
                format!("a recipient of '{}'", lane.target),
            ),
        };
        let (noun, verb) = if lane.count == 1 {
            ("message", "has")
        } else {
            ("messages", "have")
        };
        let text = format!(
            "{} {noun} of the last day {verb} reached nobody, the last {}: {}",
            lane.count,
            moment.ago(lane.last),
            lane.reason
        );
        findings.push(
            Finding::ok(code, &object, &scope, text)
                .bad(
                    State::Warning,
                    Some(lane.last),
                    format!("give {whom} an address: proxmox-backup-manager user update USER --email ADDRESS"),
                )
                .measured(float_u(lane.count), "", 0.0, None),
        );
    }
}
