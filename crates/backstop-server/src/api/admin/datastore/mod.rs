//! `/admin/datastore`: the content of datastores.

mod catalog;
mod download;
mod file_download;
mod garbage;
mod listing;
mod mounting;
mod moves;
pub mod namespaces;
mod notes;
mod owner;
pub mod parameters;
mod prune;
pub mod reach;
mod removal;
mod rrd;
mod snapshot_files;
mod status;
mod verify;

use backstop_datastore::DatastoreError;
use backstop_types::schema::Property;

use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

pub use download::on_thread;
pub use garbage::{collect_garbage, gc_endpoints};
pub use listing::snapshot_summary;
pub use prune::{DatastorePrune, keep_options};
pub use verify::{verify_groups, verify_new};

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    [
        listing::endpoints(),
        status::endpoints(),
        mounting::endpoints(),
        rrd::endpoints(),
        removal::endpoints(),
        notes::endpoints(),
        owner::endpoints(),
        prune::endpoints(),
        garbage::endpoints(),
        verify::endpoints(),
        namespaces::endpoints(),
        moves::endpoints(),
        download::endpoints(),
        catalog::endpoints(),
        file_download::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// An endpoint on the content of a datastore. Who may do what depends on the namespace and on owners, so its handler
/// checks that, before anything is looked up.
fn content(
    method: Method,
    path: &'static str,
    about: &'static str,
    params: &'static [Property],
    handler: fn(&RequestContext, &Params) -> Result<Reply, ApiError>,
) -> Endpoint {
    Endpoint {
        method,
        path,
        about,
        params,
        permission: Permission::Anybody,
        handler: Handler::blocking(handler),
    }
}

/// The text by which scripts know that something does not exist.
const ENOENT: &str = "ENOENT: No such file or directory";

/// An error of the datastore; what does not exist is reported as stock servers do.
fn not_found(err: DatastoreError) -> ApiError {
    if err.is_not_found() {
        ApiError::bad_request(ENOENT)
    } else {
        err.into()
    }
}
