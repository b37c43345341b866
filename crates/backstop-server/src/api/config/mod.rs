//! `/config`: the configuration files.

mod datastore;
mod datastore_tasks;
pub mod jobs;
mod webauthn;

use crate::router::Endpoint;

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    [
        datastore::endpoints(),
        jobs::endpoints(),
        webauthn::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
