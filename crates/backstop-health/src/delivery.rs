//! What goes out and does not arrive.

use crate::facts::DeliveryFacts;
use crate::number::float_u;
use crate::{Code, Finding, Moment, Scope, State, span_text};

/// What waits for longer is a warning, and critical; in seconds. Attempts are repeated, so that a short outage is none.
const LONG: i64 = 10 * 60;
const VERY_LONG: i64 = 4 * 3600;

pub fn judge(delivery: &DeliveryFacts, moment: &Moment, findings: &mut Vec<Finding>) {
    let (code, kind) = match delivery.heartbeat {
        true => (Code::HeartbeatUndelivered, "monitor"),
        false => (Code::NotificationUndelivered, "target"),
    };
    let object = format!("{kind}/{}", delivery.target);
    let ok = |evidence: String| Finding::ok(code, &object, &Scope::default(), evidence);
    let (waiting, lost, refused) = (delivery.waiting, delivery.lost, delivery.refused);
    let gone = lost.saturating_add(refused);
    let age = delivery.since.map_or(0, |since| moment.age(since));
    let state = match () {
        () if gone > 0 || (waiting > 0 && age > VERY_LONG) => State::Critical,
        () if waiting > 0 && age > LONG => State::Warning,
        () => State::Ok,
    };
    let mut text = match (waiting, gone) {
        (0, 0) => "all messages were delivered".to_owned(),
        (waiting, 0) => format!("{waiting} messages wait, the oldest for {}", span_text(age)),
        _ => {
            let counts = [
                (refused, "are refused"),
                (lost, "were given up"),
                (waiting, "wait"),
            ];
            let counts = counts.iter().filter(|(count, _)| *count > 0);
            let counts: Vec<String> = counts
                .map(|(count, what)| format!("{count} messages {what}"))
                .collect();
            counts.join(", ")
        }
    };
    if let (Some(error), true) = (&delivery.error, waiting.saturating_add(gone) > 0) {
        text.push_str(&format!("; last error: {error}"));
    }
    let finding = match state {
        State::Ok => ok(text),
        state => {
            let since = delivery.since.map(|since| since.saturating_add(LONG));
            let target = &delivery.target;
            let mut remedy = format!(
                "see whether {kind} '{target}' is set up rightly and can be reached, and send it a test"
            );
            if refused > 0 {
                remedy.push_str(match delivery.heartbeat {
                    true => "; changing the heartbeat tries what was refused again, removing it gives that up",
                    false => "; try again what was refused (backstop notification spool retry), or give it up (spool discard)",
                });
            }
            ok(text).bad(state, since, remedy)
        }
    };
    findings.push(finding.measured(float_u(waiting.saturating_add(gone)), "", None, None));
}
