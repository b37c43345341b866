//! Heartbeats: each finished run is told to whoever watches for it, once.
//!
//! Whoever ends a run notes an [`Event`]; for each monitor that watches it, a push is put into a spool on the disk before the run
//! counts as ended. From there it is delivered, and tried again what fails. The spool holds names of monitors and never their URLs.

mod delivery;
mod settings;
mod unsorted;

use std::sync::Arc;

use backstop_heartbeat::{Event, Monitor, WaitingPush};
use backstop_outgoing::spool::Dropped;
use backstop_outgoing::{Limits, Spool, SpoolError, Undelivered};
use jiff::Timestamp;

pub use delivery::send;
pub(crate) use settings::broken;
pub use settings::{create, get, monitors, remove, shown, update};

use crate::config::ConfigStore;
use crate::roots::Roots;

/// The heartbeats of a server.
#[derive(Debug)]
pub struct Heartbeats {
    config: Arc<ConfigStore>,
    spool: Spool,
    /// What was noted while it was not known whom it concerns.
    unsorted: Spool,
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
            unsorted: Spool::open(&roots.heartbeats().join("unsorted"), Limits::default())?,
        })
    }

    /// Notes that a run began or ended. It is on the disk when this returns; what cannot be noted is logged. Blocking.
    pub(crate) fn note(&self, event: &Event) {
        let now = Timestamp::now().as_second();
        match settings::read(&self.config) {
            Ok((monitors, broken)) => {
                for (name, monitor) in &monitors {
                    if let Err(err) = self.add(name, monitor, event, now) {
                        tracing::error!(%err, monitor = name, source = %event.source, "this heartbeat is not told of a run");
                    }
                }
                for name in broken.keys() {
                    self.keep_unsorted(name, event, now);
                }
            }
            Err(err) => {
                tracing::error!(%err, source = %event.source, "whom this run concerns is not known; it is told once the file can be read");
                self.keep_unsorted(unsorted::ANYBODY, event, now);
            }
        }
    }

    /// Puts the push of an event into the spool, if the monitor wants it. Blocking.
    fn add(
        &self,
        name: &str,
        monitor: &Monitor,
        event: &Event,
        now: i64,
    ) -> Result<(), SpoolError> {
        if !monitor.wants(event) {
            return Ok(());
        }
        let push = WaitingPush::of(&monitor.counted(event.clone()));
        let replaces = push.clone();
        let is_replaced = |earlier: &WaitingPush, _| replaces.replaces(earlier, now);
        self.spool
            .add_in_place_of(name, push, now, is_replaced, WaitingPush::absorb)?;
        Ok(())
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
        self.spool.undelivered(Timestamp::now().as_second())
    }

    /// Pushes that were given up since the server was set up. Blocking.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn dropped(&self) -> Result<Dropped, SpoolError> {
        self.spool.dropped()
    }
}
