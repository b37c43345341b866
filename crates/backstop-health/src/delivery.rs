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
    let (waiting, lost) = (delivery.waiting, delivery.lost);
    let age = delivery.since.map_or(0, |since| moment.age(since));
    let state = match () {
        () if lost > 0 || (waiting > 0 && age > VERY_LONG) => State::Critical,
        () if waiting > 0 && age > LONG => State::Warning,
        () => State::Ok,
    };
    let mut text = match (waiting, lost) {
        (0, 0) => "all messages were delivered".to_owned(),
        (waiting, 0) => format!("{waiting} messages wait, the oldest for {}", span_text(age)),
        (waiting, lost) => format!("{lost} messages were given up, and {waiting} wait"),
    };
    if let (Some(error), true) = (&delivery.error, waiting.saturating_add(lost) > 0) {
        text.push_str(&format!("; last error: {error}"));
    }
    let finding = match state {
        State::Ok => ok(text),
        state => {
            let since = delivery.since.map(|since| since.saturating_add(LONG));
            ok(text).bad(
                state,
                since,
                format!("see whether {kind} '{}' is set up rightly and can be reached, and send it a test", delivery.target),
            )
        }
    };
    findings.push(finding.measured(float_u(waiting.saturating_add(lost)), "", None, None));
}
