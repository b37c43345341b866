//! `/pull`: pulling once, without a job. What is new belongs to the caller.

use std::sync::LazyLock;

use backstop_types::Privileges;
use backstop_types::config_schema::job::SYNC;
use backstop_types::config_schema::value;
use backstop_types::record::SyncJobConfig;
use backstop_types::schema::Property;

use crate::config::sync::adapt;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::sync::Pull;
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

static PARAMS: LazyLock<Vec<Property>> = LazyLock::new(|| {
    let settings = SYNC.list.iter();
    let settings = settings.filter(|property| NAMES.contains(&property.name));
    let keys = Property::optional("decryption-keys", &value::CONFIG_IDS);
    let mut all: Vec<Property> = settings.copied().chain([keys]).collect();
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
    let server = context.server();
    let caller = context.auth_id()?;
    let mut settings = params.as_map().clone();
    let config = SyncJobConfig::from_api(settings.clone())
        .map_err(|err| ApiError::bad_request(err.to_string()))?;
    let check = |path: String, privilege: Privileges| match server
        .privileges(caller, &path)
        .contains(privilege)
    {
        true => Ok(()),
        false => Err(ApiError::missing_privilege(
            &privilege.names().join("|"),
            &path,
        )),
    };
    let target = config.ns.acl_path(&config.store);
    check(target.clone(), Privileges::DATASTORE_BACKUP)?;
    if config.remove_vanished {
        check(target, Privileges::DATASTORE_PRUNE)?;
    }
    let source = &config.remote_store;
    match &config.remote {
        Some(remote) => check(
            format!("/remote/{remote}/{source}"),
            Privileges::REMOTE_READ,
        )?,
        None => check(format!("/datastore/{source}"), Privileges::DATASTORE_BACKUP)?,
    }
    for key in &config.associated_key {
        check(
            format!("/system/encryption-keys/{key}"),
            Privileges::SYS_MODIFY,
        )?;
    }
    adapt(server.config(), None, &mut settings).map_err(super::edit_error)?;
    let pull = Pull::prepare(server, config, caller.clone())?;
    let spec = TaskSpec::new("sync", pull.config().store.as_str(), caller).on(pull.target());
    let work = |task| pull.run_once(task);
    let upid = server.tasks().spawn_from_thread(spec, work)?;
    Reply::data(&upid.to_string())
}
