//! What Prometheus scrapes: `GET /metrics`, in its text format.
//!
//! Each scrape is made from what the server knows anyway: nothing here keeps a measurement of its own but the latency of
//! requests, and nothing waits for a file system that hangs. Who may scrape is said in [`access`]. The names and labels are
//! a promise to dashboards and alert rules (`docs/metrics.md`): they are added to, never renamed.

pub mod access;
mod certificates;
mod datastores;
mod families;
mod groups;
mod health;
mod jobs;
mod latency;
mod process;
mod tasks;

use prometheus::{Encoder, TextEncoder};

pub use families::ExpositionError;
pub(crate) use latency::Latency;

use crate::server::Server;
use families::Families;

/// The type of the text, with the version of its format.
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The text of a scrape. Blocking, for some seconds at most.
///
/// # Errors
/// When two families contradict each other: a fault of the program.
pub(crate) fn text(server: &Server) -> Result<Vec<u8>, ExpositionError> {
    let families = Families::default();
    process::add(&families)?;
    datastores::add(server, &families)?;
    jobs::add(server, &families)?;
    tasks::add(server, &families)?;
    let checked = server.health().latest();
    certificates::add(server, &checked, &families)?;
    groups::add(&checked, &families)?;
    health::add(&checked, &families)?;
    let mut gathered = families.gather();
    gathered.extend(server.latency().gather());
    let mut text = Vec::new();
    TextEncoder::new().encode(&gathered, &mut text)?;
    Ok(text)
}
