//! Moving groups and namespaces within a datastore, each as a task.

use backstop_datastore::NamespaceMove;
use backstop_types::schema::Property;
use backstop_types::{Namespace, Operation, Privileges};

use super::content;
use super::namespaces::check_parent_of;
use super::parameters::{
    DELETE_SOURCE, GROUP_ID, MAX_DEPTH, MERGE_GROUP, MERGE_GROUPS, NS, NS_NEEDED, STORE, TARGET_NS,
    TARGET_NS_NEEDED, TYPE, group, max_depth, namespace, store,
};
use super::reach::Reach;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Method, Params, RequestContext};
use crate::task::TaskSpec;

const GROUP: &[Property] = &[STORE, NS, GROUP_ID, TYPE, TARGET_NS, MERGE_GROUP];
const NAMESPACE: &[Property] = &[
    STORE,
    NS_NEEDED,
    TARGET_NS_NEEDED,
    MAX_DEPTH,
    DELETE_SOURCE,
    MERGE_GROUPS,
];

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        content(
            Method::Post,
            "/admin/datastore/{store}/move-group",
            "Moves a group to another namespace.",
            GROUP,
            move_group,
        ),
        content(
            Method::Post,
            "/admin/datastore/{store}/move-namespace",
            "Moves a namespace and those below it.",
            NAMESPACE,
            move_namespace,
        ),
    ]
}

fn target(params: &Params) -> Result<Namespace, ApiError> {
    Ok(params.parse("target-ns")?.unwrap_or_else(Namespace::root))
}

fn move_group(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, from, to) = (store(params)?, namespace(params)?, target(params)?);
    let group = group(params)?;
    let (modify, prune, backup) = (
        Privileges::DATASTORE_MODIFY,
        Privileges::DATASTORE_PRUNE,
        Privileges::DATASTORE_BACKUP,
    );
    let reaches = [
        Reach::of(context, &store, &from, modify, prune)?,
        Reach::of(context, &store, &to, modify, backup)?,
    ];
    let datastore = context
        .server()
        .datastores()
        .lookup(&store, Operation::Write)?;
    // Who owns it at the source owns it at the target: groups of different owners are not merged.
    for reach in &reaches {
        reach.check_group(&datastore, &from, &group)?;
    }
    let merge = params.bool("merge-group", true);
    datastore.check_group_move(&from, &group, &to, merge)?;
    let id = format!("{store}:{from}/{group}:{to}");
    let spec = TaskSpec::new("move-group", id, context.auth_id()?).on(&datastore);
    let upid = context.server().tasks().spawn_thread(spec, move |task| {
        Ok(datastore.move_group(&from, &group, &to, merge, task)?)
    })?;
    Reply::data(&upid.to_string())
}

fn move_namespace(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, from, to) = (store(params)?, namespace(params)?, target(params)?);
    check_parent_of(context, &store, &from)?;
    check_parent_of(context, &store, &to)?;
    let datastore = context
        .server()
        .datastores()
        .lookup(&store, Operation::Write)?;
    datastore.check_namespace_move(&from, &to)?;
    let options = NamespaceMove {
        max_depth: max_depth(params),
        delete_source: params.bool("delete-source", true),
        merge_groups: params.bool("merge-groups", true),
    };
    let id = format!("{store}:{from}:{to}");
    let spec = TaskSpec::new("move-namespace", id, context.auth_id()?).on(&datastore);
    let upid = context.server().tasks().spawn_thread(spec, move |task| {
        Ok(datastore.move_namespace(&from, &to, options, task)?)
    })?;
    Reply::data(&upid.to_string())
}
