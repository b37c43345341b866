//! Namespaces: listing, creating, removing.

use backstop_datastore::Datastore;
use backstop_types::record::{DeleteStats, NamespaceItem};
use backstop_types::schema::Property;
use backstop_types::{DatastoreName, Namespace, Operation, Privileges};

use super::content;
use super::parameters::{
    DELETE_GROUPS, ERROR_ON_PROTECTED, MAX_DEPTH, NAME, NS_NEEDED, PARENT, STORE, max_depth,
    namespace, store,
};
use super::reach::VISIBLE;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Method, Params, RequestContext};

const LIST: &[Property] = &[STORE, PARENT, MAX_DEPTH];
const CREATE: &[Property] = &[STORE, NAME, PARENT];
const REMOVE: &[Property] = &[STORE, NS_NEEDED, DELETE_GROUPS, ERROR_ON_PROTECTED];

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    const PATH: &str = "/admin/datastore/{store}/namespace";
    vec![
        content(
            Method::Get,
            PATH,
            "The namespaces that the caller may see.",
            LIST,
            list,
        ),
        content(Method::Post, PATH, "Creates a namespace.", CREATE, create),
        content(
            Method::Delete,
            PATH,
            "Removes a namespace and those below it.",
            REMOVE,
            remove,
        ),
    ]
}

fn parent(params: &Params) -> Result<Namespace, ApiError> {
    Ok(params.parse("parent")?.unwrap_or_else(Namespace::root))
}

fn list(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, parent) = (store(params)?, parent(params)?);
    let caller = context.auth_id()?;
    let server = context.server();
    let on_parent = server
        .privileges(caller, &parent.acl_path(&store))
        .intersects(VISIBLE);
    let forbidden = || ApiError::forbidden("permission check failed");
    if !on_parent && !server.privileges_below(caller, &parent.acl_path(&store), VISIBLE) {
        return Err(forbidden());
    }
    let datastore = server.datastores().lookup(&store, Operation::Read)?;
    let depth = max_depth(params).unwrap_or(Namespace::MAX_DEPTH);
    let found = datastore
        .namespaces(&parent, Some(depth))
        .map_err(super::not_found)?;
    let seen = found
        .into_iter()
        .filter(|ns| {
            server
                .privileges(caller, &ns.acl_path(&store))
                .intersects(VISIBLE)
        })
        .map(|ns| NamespaceItem { ns, comment: None })
        .collect::<Vec<_>>();
    if seen.is_empty() && !on_parent {
        return Err(forbidden());
    }
    Reply::data(&seen)
}

/// Namespaces are created and removed by those who may change their parent.
fn check_parent(
    context: &RequestContext,
    store: &DatastoreName,
    parent: &Namespace,
) -> Result<(), ApiError> {
    let path = parent.acl_path(store);
    let granted = context.server().privileges(context.auth_id()?, &path);
    if granted.contains(Privileges::DATASTORE_MODIFY) {
        return Ok(());
    }
    Err(ApiError::missing_privilege("Datastore.Modify", &path))
}

/// As [`check_parent`], for a namespace that is itself created, removed or moved.
pub(super) fn check_parent_of(
    context: &RequestContext,
    store: &DatastoreName,
    ns: &Namespace,
) -> Result<(), ApiError> {
    let parent = ns
        .parent()
        .ok_or_else(|| ApiError::bad_request("Cannot create/delete root namespace!"))?;
    check_parent(context, store, &parent)
}

fn create(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, parent) = (store(params)?, parent(params)?);
    check_parent(context, &store, &parent)?;
    let datastore = context
        .server()
        .datastores()
        .lookup(&store, Operation::Write)?;
    Reply::data(&create_in(
        &datastore,
        &parent,
        params.required_text("name")?,
    )?)
}

/// Creates a namespace in an existing one. One that exists already is as good as a new one.
///
/// # Errors
/// The parent does not exist, the name is none or lies too deep, or the disk fails.
pub fn create_in(
    datastore: &Datastore,
    parent: &Namespace,
    name: &str,
) -> Result<Namespace, ApiError> {
    let ns = parent
        .child(name)
        .map_err(|err| ApiError::parameter("name", err.reason))?;
    if !datastore.namespace_exists(parent) {
        let text = format!("cannot create new namespace, parent {parent} doesn't already exists");
        return Err(ApiError::bad_request(text));
    }
    if !datastore.namespace_exists(&ns) {
        datastore.create_namespace(&ns)?;
    }
    Ok(ns)
}

fn remove(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, ns) = (store(params)?, namespace(params)?);
    check_parent_of(context, &store, &ns)?;
    let datastore = context
        .server()
        .datastores()
        .lookup(&store, Operation::Write)?;
    let stats = remove_from(
        &datastore,
        &ns,
        params.bool("delete-groups", false),
        params.bool("error-on-protected", true),
    )?;
    Reply::data(&stats)
}

/// Removes a namespace and those below it. One that does not exist is removed already.
///
/// # Errors
/// Something is in use; with `must_be_complete` also when groups or protected snapshots keep some of it.
pub fn remove_from(
    datastore: &Datastore,
    ns: &Namespace,
    with_groups: bool,
    must_be_complete: bool,
) -> Result<DeleteStats, ApiError> {
    if !datastore.namespace_exists(ns) {
        return Ok(DeleteStats::default());
    }
    let removal = datastore.remove_namespace(ns, with_groups)?;
    if !removal.complete && must_be_complete {
        return Err(ApiError::bad_request(if with_groups {
            "group only partially deleted due to protected snapshots"
        } else {
            "only partially deleted due to existing groups but `delete-groups` not true"
        }));
    }
    Ok(removal.stats)
}
