//! Removing groups and snapshots.

use backstop_types::schema::Property;
use backstop_types::{Operation, Privileges};

use super::content;
use super::parameters::{
    ERROR_ON_PROTECTED, GROUP_ID, NS, SNAPSHOT_TIME, STORE, TYPE, group, namespace, snapshot, store,
};
use super::reach::Reach;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Method, Params, RequestContext};

const GROUP: &[Property] = &[STORE, NS, GROUP_ID, TYPE, ERROR_ON_PROTECTED];
const SNAPSHOT: &[Property] = &[STORE, NS, SNAPSHOT_TIME, GROUP_ID, TYPE];

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        content(
            Method::Delete,
            "/admin/datastore/{store}/groups",
            "Removes a group but for its protected snapshots.",
            GROUP,
            remove_group,
        ),
        content(
            Method::Delete,
            "/admin/datastore/{store}/snapshots",
            "Removes a snapshot.",
            SNAPSHOT,
            remove_snapshot,
        ),
    ]
}

fn remove_group(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, ns, group) = (store(params)?, namespace(params)?, group(params)?);
    let (reach, datastore) = Reach::open(
        context,
        &store,
        &ns,
        Privileges::DATASTORE_MODIFY,
        Privileges::DATASTORE_PRUNE,
        Operation::Write,
    )?;
    let path = datastore.group_path(&ns, &group);
    // clients look for this text to tell a missing group from a failure
    let missing = || ApiError::bad_request(format!("read dir {path:?} - {}", super::ENOENT));
    if !datastore.group_exists(&ns, &group) {
        return Err(missing());
    }
    reach.check_group(&datastore, &ns, &group)?;
    let stats = match datastore.remove_group(&ns, &group) {
        Err(err) if err.is_not_found() => return Err(missing()),
        other => other?,
    };
    if stats.protected_snapshots > 0 && params.bool("error-on-protected", true) {
        return Err(ApiError::bad_request(
            "group only partially deleted due to protected snapshots",
        ));
    }
    Reply::data(&stats)
}

fn remove_snapshot(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, ns, snapshot) = (store(params)?, namespace(params)?, snapshot(params)?);
    let (reach, datastore) = Reach::open(
        context,
        &store,
        &ns,
        Privileges::DATASTORE_MODIFY,
        Privileges::DATASTORE_PRUNE,
        Operation::Write,
    )?;
    reach.check_group(&datastore, &ns, &snapshot.group)?;
    datastore.remove_snapshot(&ns, &snapshot, false).map_err(|err| {
        let text = if err.is_not_found() {
            let path = datastore.snapshot_path(&ns, &snapshot);
            format!("removing backup snapshot {path:?} failed - No such file or directory (os error 2)")
        } else {
            crate::http::error::chain(&err)
        };
        ApiError::bad_request(format!("failed to delete snapshot - {text}"))
    })?;
    Ok(Reply::null())
}
