//! Runs that ended while it was not known which monitors they concern, as the file of monitors, or the entry of one, made no sense. They
//! are told once it does.

use backstop_heartbeat::Event;
use backstop_outgoing::Delivery;

use super::{Heartbeats, settings};

/// The lane of what may concern any monitor; no monitor has such a name. Other lanes are those of monitors that make no sense.
pub(super) const ANYBODY: &str = "*";

impl Heartbeats {
    /// Keeps an event for later. Blocking.
    pub(super) fn keep_unsorted(&self, lane: &str, event: &Event, now: i64) {
        if let Err(err) = self.unsorted.add(lane, event, now) {
            tracing::error!(%err, monitor = lane, source = %event.source, "nobody is told of this run");
        }
    }

    /// Tells what was kept, as far as it can be read now whom it concerns. Blocking.
    pub(super) fn sort(&self, now: i64) {
        if self.unsorted.is_empty().unwrap_or(true) {
            return;
        }
        // Whoever noted them has said why.
        let Ok((monitors, broken)) = settings::read(&self.config) else {
            return;
        };
        let sorted = self.unsorted.deliver(now, |lane, event: &Event| {
            let mut is_done = true;
            let concerned = monitors.iter().filter(|(name, _)| matches!(lane, ANYBODY) || lane == *name);
            for (name, monitor) in concerned {
                if let Err(err) = self.add(name, monitor, event, now) {
                    tracing::error!(%err, monitor = name, "this heartbeat is not told of a run yet");
                    is_done = false;
                }
            }
            match lane {
                ANYBODY => broken
                    .keys()
                    .for_each(|name| self.keep_unsorted(name, event, now)),
                name => is_done &= !broken.contains_key(name),
            }
            match is_done {
                true => Delivery::Delivered,
                false => Delivery::Later,
            }
        });
        if let Err(err) = sorted {
            tracing::error!(%err, "unable to tell heartbeats of earlier runs");
        }
    }
}
