//! `/pull`: pulling once, without a job. What is new belongs to the caller.

use std::sync::LazyLock;

use backstop_types::Privileges;
use backstop_types::config_schema::job::SYNC;
use backstop_types::config_schema::value;
use backstop_types::record::SyncJobConfig;
use backstop_types::schema::Property;
use serde_json::{Map, Value};

use crate::config::sync::adapt;
use crate::http::{ApiError, Reply};
use crate::router::schema::BOOLEAN;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::sync::Sync;
use crate::task::TaskSpec;

/// Settings of sync jobs that a single pull has, too.
const NAMES: &[&str] = &[
    "store",
    "ns",
    "remote",
    "remote-store",
    "remote-ns",
    "remove-vanished",
    "max-depth",
    "group-filter",
    "rate-in",
    "burst-in",
    "rate-out",
    "burst-out",
    "transfer-last",
    "resync-corrupt",
    "encrypted-only",
    "verified-only",
    "worker-threads",
];

/// The settings of a single sync.
pub(super) fn settings() -> Vec<Property> {
    let settings = SYNC.list.iter();
    let settings = settings.filter(|property| NAMES.contains(&property.name));
    settings.copied().collect()
}

static PARAMS: LazyLock<Vec<Property>> = LazyLock::new(|| {
    let keys = Property::optional("decryption-keys", &value::CONFIG_IDS);
    let dry_run = Property::optional("dry-run", &BOOLEAN);
    let mut all: Vec<Property> = settings().into_iter().chain([keys, dry_run]).collect();
    // Complaints come in this order.
    all.sort_by_key(|property| property.name);
    all
});

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Post,
        path: "/pull",
        about: "Pulls snapshots from a remote, or from another datastore of this server.",
        params: PARAMS.as_slice(),
        // Depends on source and target: the handler checks.
        permission: Permission::Anybody,
        handler: Handler::blocking(pull),
    }]
}

fn pull(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    start(context, params.as_map().clone(), |config| {
        let target = config.ns.acl_path(&config.store);
        check(context, &target, Privileges::DATASTORE_BACKUP)?;
        if config.remove_vanished {
            check(context, &target, Privileges::DATASTORE_PRUNE)?;
        }
        let source = &config.remote_store;
        match &config.remote {
            Some(remote) => {
                let path = format!("/remote/{remote}/{source}");
                check(context, &path, Privileges::REMOTE_READ)
            }
            None => {
                let path = format!("/datastore/{source}");
                check(context, &path, Privileges::DATASTORE_BACKUP)
            }
        }
    })
}

/// Refuses callers who lack a privilege.
///
/// # Errors
/// For them.
pub(super) fn check(
    context: &RequestContext,
    path: &str,
    privilege: Privileges,
) -> Result<(), ApiError> {
    let granted = context.server().privileges(context.auth_id()?, path);
    match granted.contains(privilege) {
        true => Ok(()),
        false => Err(ApiError::missing_privilege(
            &privilege.names().join("|"),
            path,
        )),
    }
}

/// Starts a sync for the caller, if `allow` lets it.
///
/// # Errors
/// What `allow` says, the caller may not use a key, or the sync cannot begin.
pub(super) fn start(
    context: &RequestContext,
    mut settings: Map<String, Value>,
    allow: impl FnOnce(&SyncJobConfig) -> Result<(), ApiError>,
) -> Result<Reply, ApiError> {
    let server = context.server();
    let caller = context.auth_id()?;
    let is_dry = settings.remove("dry-run").is_some_and(|dry| dry == true);
    let config = SyncJobConfig::from_api(settings.clone())
        .map_err(|err| ApiError::bad_request(err.to_string()))?;
    allow(&config)?;
    let keys = config.active_encryption_key.iter();
    for key in keys.chain(&config.associated_key) {
        let path = format!("/system/encryption-keys/{key}");
        check(context, &path, Privileges::SYS_MODIFY)?;
    }
    adapt(server.config(), None, &mut settings).map_err(super::edit_error)?;
    let sync = Sync::prepare(server, config, caller.clone())?;
    let spec = TaskSpec::new("sync", sync.config().store.as_str(), caller).on(sync.datastore());
    let work = move |task| async move {
        match is_dry {
            true => sync.run_dry(task).await,
            false => sync.run_once(task).await,
        }
    };
    let upid = server.tasks().spawn_from_thread(spec, work)?;
    Reply::data(&upid.to_string())
}
