//! Delivering pushes.

use backstop_heartbeat::{Monitor, Push, WaitingPush};
use backstop_outgoing::answer::{excerpt, refusal};
use backstop_outgoing::spool::{Look, Pass};
use backstop_outgoing::{Carrier, Delivery, HttpClient, Refusal, Route, Spool, SpoolError};
use jiff::Timestamp;

use super::{Heartbeats, settings};
use crate::config::remote::node_proxy;
use crate::config::{ConfigStore, EditError};

impl Carrier for Heartbeats {
    type Item = WaitingPush;

    fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Sorts what was noted while the settings could not be read.
    fn fill(&self, now: i64) -> Vec<(String, WaitingPush)> {
        self.sort(now);
        Vec::new()
    }

    fn deliver(&self, name: &str, waiting: &WaitingPush) -> Delivery {
        let now = Timestamp::now().as_second();
        let Some(push) = waiting.told(now, shown) else {
            return Delivery::Withdrawn;
        };
        let sent = match settings::get(&self.config, name) {
            Ok(monitor) if monitor.disable => return Delivery::Withdrawn,
            // Nobody watches any more.
            Err(EditError::NotFound(_)) => return Delivery::Withdrawn,
            Ok(monitor) => send(&self.config, &monitor, &push),
            Err(err) => Err(failed(&err)),
        };
        match sent {
            Ok(()) => Delivery::Delivered,
            Err(Refusal {
                reason,
                is_final,
                retry_after,
            }) => {
                tracing::warn!(monitor = name, reason, "a heartbeat did not arrive");
                match retry_after {
                    _ if is_final => Delivery::Refused(reason),
                    Some(wait) => Delivery::Busy { reason, wait },
                    None => Delivery::Failed(reason),
                }
            }
        }
    }

    fn looked(&self, found: &Result<Look, SpoolError>) {
        if let Err(err) = found {
            tracing::error!(%err, "no heartbeat can be delivered");
        }
    }

    fn delivered(&self, name: &str, outcome: &Result<Pass, SpoolError>) {
        if let Err(err) = outcome {
            tracing::error!(%err, monitor = name, "unable to deliver heartbeats");
        }
    }
}

/// A moment as messages show it.
fn shown(moment: i64) -> String {
    Timestamp::from_second(moment).map_or_else(|_| moment.to_string(), |time| time.to_string())
}

/// Tells a receiver, once. Blocking, for at most ten seconds; not for threads of a runtime.
///
/// # Errors
/// Why it did not take it; without the URL.
pub fn send(config: &ConfigStore, monitor: &Monitor, push: &Push) -> Result<(), Refusal> {
    let request = push
        .request(monitor.receiver, &monitor.url, monitor.exit_code)
        .map_err(|err| failed(&err))?;
    let Some(request) = request else {
        return Ok(());
    };
    let proxy = node_proxy(config).map_err(|err| failed(&err))?;
    let client = HttpClient {
        route: Route::of_host(proxy).map_err(|err| failed(&err))?,
        verify: monitor.verify_tls,
        authorities: monitor.ca_file.clone(),
        server_name: monitor.tls_server_name.clone(),
        ..HttpClient::default()
    };
    let url = request.uri().clone();
    let answer = client.send_blocking(request).map_err(|err| failed(&err))?;
    let refused = refusal(&answer, &url, &[]).or_else(|| {
        let objection = monitor.receiver.objection(answer.body())?;
        let said = excerpt(answer.body(), &url, &[]);
        Some(Refusal {
            reason: format!("{}; it answered {said:?}", objection.reason),
            is_final: false,
            retry_after: objection.wait,
        })
    });
    match refused {
        None => Ok(()),
        Some(refused) => Err(Refusal {
            reason: format!("{}: {}", monitor.server(), refused.reason),
            ..refused
        }),
    }
}

/// What failed on the way there, and may not fail later.
fn failed(err: &dyn std::error::Error) -> Refusal {
    Refusal {
        reason: err.to_string(),
        is_final: false,
        retry_after: None,
    }
}
