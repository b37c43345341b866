//! `/config`: the configuration files.

mod datastore;
mod datastore_tasks;

use crate::router::Endpoint;

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    datastore::endpoints()
}
