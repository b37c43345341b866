//! Notes of groups and snapshots, and protection.

use backstop_types::schema::Property;
use backstop_types::{Operation, Privileges};
use serde_json::json;

use super::parameters::{
    GROUP_ID, NOTES, NS, PROTECTED, SNAPSHOT_TIME, STORE, TYPE, group, namespace, snapshot, store,
};
use super::reach::Reach;
use super::{content, not_found};
use crate::datastores::DatastoreHandle;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Method, Params, RequestContext};

const GROUP: &[Property] = &[STORE, NS, GROUP_ID, TYPE];
const GROUP_WITH_NOTES: &[Property] = &[STORE, NS, GROUP_ID, TYPE, NOTES];
const SNAPSHOT: &[Property] = &[STORE, NS, SNAPSHOT_TIME, GROUP_ID, TYPE];
const SNAPSHOT_WITH_NOTES: &[Property] = &[STORE, NS, SNAPSHOT_TIME, GROUP_ID, TYPE, NOTES];
const SNAPSHOT_WITH_PROTECTION: &[Property] =
    &[STORE, NS, SNAPSHOT_TIME, GROUP_ID, TYPE, PROTECTED];

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    const NOTES_PATH: &str = "/admin/datastore/{store}/notes";
    const GROUP_NOTES_PATH: &str = "/admin/datastore/{store}/group-notes";
    const PROTECTED_PATH: &str = "/admin/datastore/{store}/protected";
    vec![
        content(
            Method::Get,
            NOTES_PATH,
            "Notes of a snapshot.",
            SNAPSHOT,
            get_notes,
        ),
        content(
            Method::Put,
            NOTES_PATH,
            "Sets the notes of a snapshot.",
            SNAPSHOT_WITH_NOTES,
            set_notes,
        ),
        content(
            Method::Get,
            GROUP_NOTES_PATH,
            "Notes of a group.",
            GROUP,
            get_group_notes,
        ),
        content(
            Method::Put,
            GROUP_NOTES_PATH,
            "Sets the notes of a group.",
            GROUP_WITH_NOTES,
            set_group_notes,
        ),
        content(
            Method::Get,
            PROTECTED_PATH,
            "Whether a snapshot is protected.",
            SNAPSHOT,
            get_protected,
        ),
        content(
            Method::Put,
            PROTECTED_PATH,
            "Protects a snapshot from removal, or ends that.",
            SNAPSHOT_WITH_PROTECTION,
            set_protected,
        ),
    ]
}

/// Opens the datastore and checks the caller's reach to a group: to read what describes it, or to change that.
fn open(
    context: &RequestContext,
    params: &Params,
    operation: Operation,
) -> Result<DatastoreHandle, ApiError> {
    let (store, ns, group) = (store(params)?, namespace(params)?, group(params)?);
    let full = match operation {
        Operation::Write => Privileges::DATASTORE_MODIFY,
        Operation::Read | Operation::Lookup => Privileges::DATASTORE_AUDIT,
    };
    let reach = Reach::of(context, &store, &ns, full, Privileges::DATASTORE_BACKUP)?;
    let datastore = context.server().datastores().lookup(&store, operation)?;
    reach.check_group(&datastore, &ns, &group)?;
    Ok(datastore)
}

fn get_notes(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let datastore = open(context, params, Operation::Read)?;
    let (manifest, _) = datastore
        .load_manifest(&namespace(params)?, &snapshot(params)?)
        .map_err(not_found)?;
    Reply::data(manifest.notes())
}

fn set_notes(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let datastore = open(context, params, Operation::Write)?;
    let notes = params.required_text("notes")?;
    datastore
        .set_notes(&namespace(params)?, &snapshot(params)?, notes)
        .map_err(not_found)?;
    Ok(Reply::null())
}

fn get_group_notes(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let datastore = open(context, params, Operation::Read)?;
    let notes = datastore
        .group_notes(&namespace(params)?, &group(params)?)
        .map_err(not_found)?;
    Reply::data(&notes.unwrap_or_default())
}

fn set_group_notes(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let datastore = open(context, params, Operation::Write)?;
    let notes = params.required_text("notes")?;
    datastore.set_group_notes(&namespace(params)?, &group(params)?, notes)?;
    Ok(Reply::null())
}

fn get_protected(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let datastore = open(context, params, Operation::Read)?;
    let (ns, snapshot) = (namespace(params)?, snapshot(params)?);
    if !datastore.snapshot_exists(&ns, &snapshot) {
        return Err(ApiError::bad_request(super::ENOENT));
    }
    Reply::data(&json!(datastore.is_protected(&ns, &snapshot)))
}

fn set_protected(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let datastore = open(context, params, Operation::Write)?;
    let protected = params.bool("protected", false);
    datastore
        .set_protected(&namespace(params)?, &snapshot(params)?, protected)
        .map_err(not_found)?;
    Ok(Reply::null())
}
