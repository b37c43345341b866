//! Measured values of the host and of the datastores: sampled every few seconds, kept in memory for half an hour.
//!
//! Monitoring fetches them by `GET /status/metrics`. Nothing is written to disk, and nothing here can hold up a
//! request: a reader gets what was measured last, even while a file system hangs.

mod disk;
mod forwarding;
mod history;
mod influx;
pub(crate) mod kernel;
mod sampler;

use backstop_types::DatastoreName;
use serde::Serialize;

use disk::Disk;

pub use forwarding::Forwarding;
pub use history::History;
pub(crate) use influx::MetricServer;
pub use sampler::Sampler;

/// How a value is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The state at that time.
    Gauge,
    /// Grows from some start on; what matters is by how much in which time.
    Derive,
}

/// One measured value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Its name, such as `cpu_current`.
    pub metric: &'static str,
    /// How to read it.
    pub kind: Kind,
    /// Bytes, a load, or a share from 0 to 1.
    pub value: f64,
}

impl Reading {
    fn gauge(metric: &'static str, value: f64) -> Self {
        Self {
            metric,
            kind: Kind::Gauge,
            value,
        }
    }

    fn bytes(metric: &'static str, bytes: u64) -> Self {
        Self::gauge(metric, float(bytes))
    }

    /// Bytes since some start.
    fn traffic(metric: &'static str, bytes: u64) -> Self {
        Self {
            metric,
            kind: Kind::Derive,
            value: float(bytes),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 8 PiB, and close enough for a chart above that"
)]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// What was measured at one time. What could not be measured is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// Seconds since 1970.
    pub time: i64,
    /// Values of the host.
    pub host: Vec<Reading>,
    /// Values of each datastore, in the order of the configuration.
    pub datastores: Vec<(DatastoreName, Vec<Reading>)>,
    /// The file systems of the datastores, and the host's own (without a name), with all that is known of them.
    pub(crate) disks: Vec<(Option<DatastoreName>, Disk)>,
}
