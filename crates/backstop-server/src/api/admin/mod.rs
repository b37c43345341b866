//! `/admin`: the content of datastores and the jobs that work on them.

pub mod datastore;
pub mod jobs;
mod sync;

use crate::router::Endpoint;

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    [
        datastore::endpoints(),
        datastore::gc_endpoints(),
        jobs::endpoints(),
        sync::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
