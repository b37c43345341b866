//! Heartbeats: each finished run is told to whoever watches for it, once.
//!
//! Whoever ends a run notes an [`Event`]; for each monitor that watches it, a push is put into a spool on the disk before the run
//! counts as ended. From there it is delivered, and tried again what fails. The spool holds names of monitors and never their URLs.

mod delivery;
mod settings;

use std::sync::Arc;

use backstop_heartbeat::Event;
use backstop_outgoing::spool::Dropped;
use backstop_outgoing::{Limits, Spool, SpoolError, Undelivered};
use jiff::Timestamp;

pub use delivery::send;
pub use settings::{create, get, monitors, remove, shown, update};

use crate::config::ConfigStore;
use crate::roots::Roots;

/// The heartbeats of a server.
#[derive(Debug)]
pub struct Heartbeats {
    config: Arc<ConfigStore>,
    spool: Spool,
}

impl Heartbeats {
    /// Opens the spool.
    ///
    /// # Errors
    /// When its folder cannot be used.
    pub fn open(roots: &Roots, config: Arc<ConfigStore>) -> Result<Self, SpoolError> {
        Ok(Self {
            config,
            spool: Spool::open(&roots.heartbeats(), Limits::default())?,
        })
    }

    /// Notes that a run began or ended. It is on the disk when this returns; what cannot be noted is logged. Blocking.
    pub(crate) fn note(&self, event: &Event) {
        let monitors = match settings::monitors(&self.config) {
            Ok(monitors) => monitors,
            Err(err) => {
                return tracing::error!(%err, source = %event.source, "nobody is told of this run");
            }
        };
        let now = Timestamp::now().as_second();
        for (name, monitor) in monitors.iter().filter(|(_, monitor)| monitor.wants(event)) {
            let push = monitor.counted(event.clone()).push();
            if let Err(err) = self.spool.add(name, &push, now) {
                tracing::error!(%err, monitor = name, source = %event.source, "this heartbeat is not told of a run");
            }
        }
    }

    /// Tries everything again at once, because monitors have changed. Blocking.
    pub(crate) fn retry(&self) {
        if let Err(err) = self.spool.retry_now(Timestamp::now().as_second()) {
            tracing::error!(%err, "unable to make heartbeats due");
        }
    }

    /// Pushes that have failed so far, and those that wait behind them; the lane is the name of the monitor. Blocking.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn undelivered(&self) -> Result<Vec<Undelivered>, SpoolError> {
        self.spool.undelivered()
    }

    /// Pushes that were given up since the server was set up. Blocking.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn dropped(&self) -> Result<Dropped, SpoolError> {
        self.spool.dropped()
    }
}
