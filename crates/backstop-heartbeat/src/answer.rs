//! What the text of an answer says of a push: receivers answer with a good status to pushes that they did not take, too.

use std::time::Duration;

use serde_json::Value;

use crate::receiver::Receiver;

/// What Healthchecks says of a check that it does not know, with the status 200.
const UNKNOWN: &str = "not found";
/// What it says when it is asked too often, with the status 200.
const TOO_OFTEN: &str = "rate limited";
/// How long it is left alone then: it takes five pushes of a check within a minute.
const PAUSE: Duration = Duration::from_secs(60);

/// Why a push was not taken though the status of the answer is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Objection {
    /// In words that repeat nothing of the answer.
    pub reason: &'static str,
    /// How long the receiver wants to be left alone.
    pub wait: Option<Duration>,
}

impl Receiver {
    /// What an answer with a good status objects; `None` when the push was taken. Uptime Kuma says that it took one, and whatever
    /// answers in its place does not; Healthchecks says when it did not.
    pub fn objection(self, body: &[u8]) -> Option<Objection> {
        let because = |reason| Some(Objection { reason, wait: None });
        match self {
            Self::UptimeKuma => match serde_json::from_slice::<Value>(body) {
                Ok(answer) if answer.get("ok") == Some(&Value::Bool(true)) => None,
                Ok(Value::Object(_)) => because("Uptime Kuma did not take the push"),
                _ => because(
                    "the answer is none of Uptime Kuma; see whether the URL leads to its push monitor",
                ),
            },
            Self::Healthchecks => {
                let text = String::from_utf8_lossy(body).to_ascii_lowercase();
                if text.contains(UNKNOWN) {
                    because("Healthchecks does not know the check of this URL")
                } else if text.contains(TOO_OFTEN) {
                    Some(Objection {
                        reason: "Healthchecks takes no more pushes of this check for now",
                        wait: Some(PAUSE),
                    })
                } else {
                    None
                }
            }
        }
    }
}
