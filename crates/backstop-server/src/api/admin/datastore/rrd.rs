//! What was measured of a datastore's file system over time.

use backstop_types::{Operation, Privileges};

use super::parameters::{STORE, store};
use crate::api::nodes::rrd::{CONSOLIDATION, TIMEFRAME, history};
use crate::datastores;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const NAMES: &[&str] = &[
    "total",
    "available",
    "used",
    "read_ios",
    "read_bytes",
    "write_ios",
    "write_bytes",
    "io_ticks",
];

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    let audit_or_backup = Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_BACKUP);
    vec![Endpoint {
        method: Method::Get,
        path: "/admin/datastore/{store}/rrd",
        about: "Sizes of a datastore and activity of its disk over time.",
        params: &[STORE, CONSOLIDATION, TIMEFRAME],
        permission: Permission::any("/datastore/{store}", audit_or_backup),
        handler: Handler::blocking(read),
    }]
}

/// Answers also while the datastore is away: what was measured lies elsewhere.
fn read(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let store = store(params)?;
    let config = context.server().datastores().config(&store)?;
    datastores::check(&config, Operation::Read)?;
    history(context, params, &format!("datastore/{store}"), NAMES)
}
