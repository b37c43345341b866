//! Delivering pushes.

use backstop_heartbeat::{Monitor, Push};
use backstop_outgoing::http_client::refusal;
use backstop_outgoing::spool::{Look, Pass};
use backstop_outgoing::{Carrier, Delivery, HttpClient, Route, Spool, SpoolError};

use super::{Heartbeats, settings};
use crate::config::remote::node_proxy;
use crate::config::{ConfigStore, EditError};

impl Carrier for Heartbeats {
    type Item = Push;

    fn spool(&self) -> &Spool {
        &self.spool
    }

    fn deliver(&self, name: &str, push: &Push) -> Delivery {
        let sent = match settings::get(&self.config, name) {
            Ok(monitor) if monitor.disable => return Delivery::Withdrawn,
            // Nobody watches any more.
            Err(EditError::NotFound(_)) => return Delivery::Withdrawn,
            Ok(monitor) => send(&self.config, &monitor, push),
            Err(err) => Err(err.to_string()),
        };
        match sent {
            Ok(()) => Delivery::Delivered,
            Err(reason) => {
                tracing::warn!(monitor = name, reason, "a heartbeat did not arrive");
                Delivery::Failed(reason)
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

/// Tells a receiver, once. Blocking, for at most ten seconds; not for threads of a runtime.
///
/// # Errors
/// Why it did not take it; without the URL.
pub fn send(config: &ConfigStore, monitor: &Monitor, push: &Push) -> Result<(), String> {
    let request = push
        .request(monitor.receiver, &monitor.url, monitor.exit_code)
        .map_err(|err| err.to_string())?;
    let Some(request) = request else {
        return Ok(());
    };
    let proxy = node_proxy(config).map_err(|err| err.to_string())?;
    let client = HttpClient {
        route: Route::of_host(proxy).map_err(|err| err.to_string())?,
        verify: monitor.verify_tls,
        authorities: monitor.ca_file.clone(),
        server_name: monitor.tls_server_name.clone(),
        ..HttpClient::default()
    };
    let url = request.uri().clone();
    let answer = client
        .send_blocking(request)
        .map_err(|err| err.to_string())?;
    match refusal(&answer, &url, &[]) {
        None => Ok(()),
        Some(reason) => Err(format!("{}: {reason}", monitor.server())),
    }
}
