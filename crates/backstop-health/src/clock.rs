//! The clock of the host: schedules, ages and retention go by it.

use crate::facts::ClockFacts;
use crate::{Code, Finding, Moment, Scope, State, span_text};

/// For how long a jump is told, in seconds.
const TOLD: i64 = 86_400;

pub fn judge(clock: &ClockFacts, moment: &Moment, findings: &mut Vec<Finding>) {
    let code = Code::ClockJump;
    let host = Scope::default();
    let recent = clock.jumps.iter().rev();
    let recent = recent.clone().find(|(at, _)| moment.age(*at) < TOLD);
    findings.push(match recent {
        None => Finding::ok(
            code,
            "clock/host",
            &host,
            "it has not jumped in the last day",
        ),
        Some((at, by)) => {
            let direction = if *by < 0 { "back" } else { "ahead" };
            let far = span_text(by.saturating_abs());
            let text = format!("it was set {direction} by {far}, {}", moment.ago(*at));
            Finding::ok(code, "clock/host", &host, text).bad(
                State::Warning,
                Some(*at),
                "set it by NTP; look at what was backed up and pruned meanwhile",
            )
        }
    });
    for (datastore, seconds) in &clock.ahead {
        let object = format!("datastore/{datastore}");
        let scope = Scope::datastore(datastore);
        findings.push(match *seconds > 0 {
            false => Finding::ok(code, &object, &scope, "its retention locks go by the clock"),
            true => {
                let text = format!(
                    "the clock is {} ahead of the time that has passed, and its retention locks do not go by it",
                    span_text(*seconds)
                );
                let remedy = format!(
                    "set the clock right; if it is right, confirm it with 'backstop retention-lock confirm-clock {datastore}'"
                );
                Finding::ok(code, &object, &scope, text).bad(State::Warning, None, remedy)
            }
        });
    }
}
