//! How long requests take, from their arrival to the begin of their answer.
//!
//! Upgraded connections (backup and reader sessions) count with their upgrade alone. Delays that the server puts in on
//! purpose, after a failed log-in or a refusal, are not counted: they say nothing of its speed.

use std::time::Duration;

use hyper::{Method, StatusCode};
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec};

use super::families::ExpositionError;

/// Upper bounds in seconds. A busy server answers within milliseconds; a file system that hangs is given up after five seconds.
const BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// The latency of requests since the server started.
#[derive(Debug)]
pub(crate) struct Latency(HistogramVec);

impl Latency {
    /// # Errors
    /// When the family makes no sense: a fault of the program.
    pub fn new() -> Result<Self, ExpositionError> {
        let options = HistogramOpts::new(
            "backstop_http_request_duration_seconds",
            "Time to the begin of the answer, by method and class of the status.",
        );
        let options = options.buckets(BUCKETS.to_vec());
        Ok(Self(HistogramVec::new(options, &["method", "status"])?))
    }

    /// Counts an answer.
    pub fn note(&self, method: &str, status: StatusCode, taken: Duration) {
        let class = match status.as_u16() / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        // Anybody can send any method, and each would be a series of its own.
        let known = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
        let method = known.iter().find(|known| known.as_str() == method);
        let method = method.map_or("other", Method::as_str);
        if let Ok(histogram) = self.0.get_metric_with_label_values(&[method, class]) {
            histogram.observe(taken.as_secs_f64());
        }
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.0.collect()
    }
}
