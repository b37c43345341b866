//! `/config`: the configuration files.

mod datastore;
mod datastore_tasks;
pub mod jobs;

use crate::router::Endpoint;

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    [datastore::endpoints(), jobs::endpoints()]
        .into_iter()
        .flatten()
        .collect()
}
