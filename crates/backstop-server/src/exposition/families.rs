//! Families of metrics that are made for one scrape.

use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, Opts, Registry};

/// Why a scrape has no answer.
#[derive(Debug, thiserror::Error)]
#[error("unable to show the metrics - {0}")]
pub struct ExpositionError(#[from] prometheus::Error);

type Result<T> = std::result::Result<T, ExpositionError>;

/// The families of one scrape.
#[derive(Default)]
pub(super) struct Families {
    registry: Registry,
}

impl Families {
    /// A family of values that rise and fall.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<Gauges> {
        let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(gauges.clone()))?;
        Ok(Gauges(gauges))
    }

    /// A family of values that only grow, until the server starts anew.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<Counters> {
        let counters = CounterVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(counters.clone()))?;
        Ok(Counters(counters))
    }

    /// All of them, sorted by name.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

/// See [`Families::gauges`].
pub(super) struct Gauges(GaugeVec);

impl Gauges {
    /// Shows a value under these labels; without a value, nothing.
    pub fn show(&self, labels: &[&str], value: Option<f64>) -> Result<()> {
        if let Some(value) = value {
            self.0.get_metric_with_label_values(labels)?.set(value);
        }
        Ok(())
    }
}

/// See [`Families::counters`].
pub(super) struct Counters(CounterVec);

impl Counters {
    /// Shows a count under these labels.
    pub fn show(&self, labels: &[&str], value: f64) -> Result<()> {
        self.0.get_metric_with_label_values(labels)?.inc_by(value);
        Ok(())
    }
}

/// A number as the text format has it.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 8 PiB, which is as exact as Prometheus is"
)]
pub(super) fn number(number: u64) -> f64 {
    number as f64
}

/// A time in seconds since 1970, or a span of seconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "times of this era are far below 2^53 seconds"
)]
pub(super) fn seconds(seconds: i64) -> f64 {
    seconds as f64
}

/// 1 for yes.
pub(super) fn truth(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}
