//! `/config`: the configuration files.

mod access;
mod datastore;
mod datastore_tasks;
mod encryption_keys;
pub mod jobs;
mod metrics;
mod notifications;
mod remote;
mod remote_scan;
pub mod sync;
mod webauthn;

use crate::router::Endpoint;

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    [
        access::endpoints(),
        datastore::endpoints(),
        encryption_keys::endpoints(),
        jobs::endpoints(),
        metrics::endpoints(),
        notifications::endpoints(),
        webauthn::endpoints(),
        remote::endpoints(),
        remote_scan::endpoints(),
        sync::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
