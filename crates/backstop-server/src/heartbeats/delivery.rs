//! The thread that delivers pushes.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstop_heartbeat::{Monitor, Push};
use backstop_outgoing::http_client::refusal;
use backstop_outgoing::{Delivery, HttpClient, Route};
use jiff::Timestamp;

use super::{Heartbeats, settings};
use crate::config::ConfigStore;
use crate::config::remote::node_proxy;

/// How long the thread sleeps when nothing is due.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// How long to wait after the spool or the configuration could not be used.
const AFTER_TROUBLE: Duration = Duration::from_secs(30);

/// The running thread. Dropping it lets the push under way end and does not wait for it.
#[derive(Debug)]
pub struct Deliverer(Arc<Heartbeats>);

impl Drop for Deliverer {
    fn drop(&mut self) {
        self.0.signal.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

impl Deliverer {
    /// Starts the thread, which delivers what an earlier process has left, too.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(heartbeats: &Arc<Heartbeats>) -> io::Result<Self> {
        let own = Arc::clone(heartbeats);
        std::thread::Builder::new()
            .name("heartbeats".to_owned())
            .spawn(move || own.deliver_until_over())?;
        Ok(Self(Arc::clone(heartbeats)))
    }
}

impl Heartbeats {
    fn deliver_until_over(&self) {
        loop {
            {
                let mut signal = self.signal.lock();
                if signal.is_over {
                    return;
                }
                signal.is_changed = false;
            }
            let sleep = self.deliver_due();
            let until = Instant::now() + sleep;
            let mut signal = self.signal.lock();
            while !signal.is_changed && !signal.is_over {
                if self.changed.wait_until(&mut signal, until).timed_out() {
                    break;
                }
            }
        }
    }

    /// Delivers what is due, and says how long there is nothing to do.
    fn deliver_due(&self) -> Duration {
        let monitors = match settings::monitors(&self.config) {
            Ok(monitors) => monitors,
            Err(err) => {
                tracing::error!(%err, "no heartbeat can be delivered");
                return AFTER_TROUBLE;
            }
        };
        let now = Timestamp::now().as_second();
        let pass = self.spool.deliver(now, |name, push: &Push| {
            if self.signal.lock().is_over {
                return Delivery::Later;
            }
            let Some(monitor) = monitors.get(name).filter(|monitor| !monitor.disable) else {
                // Nobody watches any more.
                return Delivery::Withdrawn;
            };
            match send(&self.config, monitor, push) {
                Ok(()) => Delivery::Delivered,
                Err(reason) => {
                    tracing::warn!(monitor = name, reason, "a heartbeat did not arrive");
                    Delivery::Failed(reason)
                }
            }
        });
        match pass {
            Ok(pass) => {
                let next = pass.next.map(|next| u64::try_from(next - now).unwrap_or(0));
                let next =
                    next.map_or(LONGEST_SLEEP, |seconds| Duration::from_secs(seconds.max(1)));
                next.min(LONGEST_SLEEP)
            }
            Err(err) => {
                tracing::error!(%err, "unable to deliver heartbeats");
                AFTER_TROUBLE
            }
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
