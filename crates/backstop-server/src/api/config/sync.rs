//! `/config/sync`: sync jobs. Lists show those that pull unless others are asked for, as old consumers know no others.

use std::sync::LazyLock;

use backstop_types::config_schema::job::SYNC_DELETABLE;
use backstop_types::schema::{Property, Schema};
use backstop_types::section_config::SectionConfig;
use backstop_types::{AuthId, Privileges};
use serde_json::{Map, Value};

use super::jobs::{ID, create_params, update_params};
use crate::api::edit_error;
use crate::config::jobs::{SYNC_JOBS, acl_path};
use crate::config::sync::{is_push, keys};
use crate::config::{EditError, SectionFile};
use crate::http::{ApiError, Reply};
use crate::router::schema::DIGEST;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::server::Server;

static DIRECTIONS: Schema = Schema::words(&["all", "push", "pull"]);
/// Which jobs a list shows.
pub const DIRECTION: Property = Property::optional("sync-direction", &DIRECTIONS);
const LIST: &[Property] = &[DIRECTION];
const ITEM: &[Property] = &[ID];
const REMOVE: &[Property] = &[ID, DIGEST];

static DELETE: Schema = Schema::array(&DELETE_WORD);
static DELETE_WORD: Schema = Schema::words(SYNC_DELETABLE);
static CREATE: LazyLock<Vec<Property>> = LazyLock::new(|| create_params(&SYNC_JOBS));
static UPDATE: LazyLock<Vec<Property>> = LazyLock::new(|| update_params(&SYNC_JOBS, &DELETE));

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    const ALL: &str = "/config/sync";
    const ONE: &str = "/config/sync/{id}";
    let endpoint = |method, path, about, params, handler| Endpoint {
        method,
        path,
        about,
        params,
        // Depends on the job: the handlers check.
        permission: Permission::Anybody,
        handler,
    };
    vec![
        endpoint(
            Method::Get,
            ALL,
            "Lists the sync jobs that the caller may see.",
            LIST,
            Handler::blocking(list),
        ),
        endpoint(
            Method::Post,
            ALL,
            "Adds a sync job.",
            CREATE.as_slice(),
            Handler::blocking(create),
        ),
        endpoint(
            Method::Get,
            ONE,
            "Tells the settings of a sync job.",
            ITEM,
            Handler::blocking(read),
        ),
        endpoint(
            Method::Put,
            ONE,
            "Changes the settings of a sync job.",
            UPDATE.as_slice(),
            Handler::blocking(update),
        ),
        endpoint(
            Method::Delete,
            ONE,
            "Removes a sync job.",
            REMOVE,
            Handler::blocking(remove),
        ),
    ]
}

/// What refused callers are told, with the status of stock servers.
fn refused() -> ApiError {
    ApiError::bad_request("permission check failed")
}

fn text<'a>(job: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    job.get(key).and_then(Value::as_str)
}

/// The path of the datastore at the other side, with the namespace if `with_namespace`.
fn remote_path(job: &Map<String, Value>, remote: &str, with_namespace: bool) -> String {
    let store = text(job, "remote-store").unwrap_or_default();
    match text(job, "remote-ns").filter(|ns| with_namespace && !ns.is_empty()) {
        Some(ns) => format!("/remote/{remote}/{store}/{ns}"),
        None => format!("/remote/{remote}/{store}"),
    }
}

/// Whether somebody may see a sync job.
///
/// # Errors
/// The properties of the job make no sense.
pub fn may_see(
    server: &Server,
    auth_id: &AuthId,
    job: &Map<String, Value>,
) -> Result<bool, ApiError> {
    let has = |path: &str, privilege| server.privileges(auth_id, path).contains(privilege);
    if !has(
        &acl_path(job).map_err(edit_error)?,
        Privileges::DATASTORE_AUDIT,
    ) {
        return Ok(false);
    }
    Ok(match text(job, "remote") {
        Some(remote) if is_push(job) => {
            has(&remote_path(job, remote, true), Privileges::REMOTE_AUDIT)
        }
        Some(remote) => has(&format!("/remote/{remote}"), Privileges::REMOTE_AUDIT),
        None => {
            let source = text(job, "remote-store").unwrap_or_default();
            has(&format!("/datastore/{source}"), Privileges::DATASTORE_AUDIT)
        }
    })
}

/// Whether somebody may add, change, run or remove a sync job.
///
/// # Errors
/// The properties of the job make no sense.
pub fn may_run(
    server: &Server,
    auth_id: &AuthId,
    job: &Map<String, Value>,
) -> Result<bool, ApiError> {
    let here = server.privileges(auth_id, &acl_path(job).map_err(edit_error)?);
    let removes = job.get("remove-vanished").and_then(Value::as_bool) == Some(true);
    let owner = text(job, "owner").map(str::parse::<AuthId>).transpose();
    let owner = owner.map_err(|err| ApiError::parameter("owner", err.reason))?;
    let is_owner = auth_id.owns(&owner.clone().unwrap_or_else(AuthId::root));
    if !keys_are_granted(server, &owner.unwrap_or_else(AuthId::root), job) {
        return Ok(false);
    }
    if !here.contains(Privileges::DATASTORE_AUDIT) {
        return Ok(false);
    }
    if is_push(job) {
        let Some(remote) = text(job, "remote") else {
            return Ok(false);
        };
        let there = server.privileges(auth_id, &remote_path(job, remote, true));
        let may_read = here.contains(Privileges::DATASTORE_READ)
            || (here.contains(Privileges::DATASTORE_BACKUP)
                && (is_owner || here.contains(Privileges::DATASTORE_MODIFY)));
        return Ok(may_read
            && there.contains(Privileges::REMOTE_DATASTORE_BACKUP)
            && (!removes || there.contains(Privileges::REMOTE_DATASTORE_PRUNE)));
    }
    let may_read = match text(job, "remote") {
        Some(remote) => {
            let there = server.privileges(auth_id, &remote_path(job, remote, false));
            there.contains(Privileges::REMOTE_READ)
        }
        // What can be read of a datastore here is decided when the job runs, by the rights of its owner.
        None => true,
    };
    Ok(may_read
        && here.contains(Privileges::DATASTORE_BACKUP)
        && (!removes || here.contains(Privileges::DATASTORE_PRUNE))
        && (is_owner || here.contains(Privileges::DATASTORE_MODIFY)))
}

/// Whether the owner of a job may use its keys.
fn keys_are_granted(server: &Server, owner: &AuthId, job: &Map<String, Value>) -> bool {
    keys(job).iter().all(|key| {
        let path = format!("/system/encryption-keys/{key}");
        let granted = server.privileges(owner, &path);
        granted.contains(Privileges::SYS_MODIFY)
    })
}

/// Refuses callers who may not run a sync job.
///
/// # Errors
/// For them, in stock words.
pub fn check_run(context: &RequestContext, job: &Map<String, Value>) -> Result<(), ApiError> {
    match may_run(context.server(), context.auth_id()?, job)? {
        true => Ok(()),
        false => Err(refused()),
    }
}

/// The sync jobs that the caller may see, of the wanted direction.
///
/// # Errors
/// When nobody logged in, or a job makes no sense.
pub fn visible<'a>(
    context: &RequestContext,
    params: &Params,
    config: &'a SectionConfig,
) -> Result<Vec<&'a str>, ApiError> {
    let wanted = params.text("sync-direction").unwrap_or("pull");
    let auth_id = context.auth_id()?;
    let mut ids = Vec::new();
    for (id, section) in config.iter() {
        let direction = match is_push(&section.properties) {
            true => "push",
            false => "pull",
        };
        if (wanted == "all" || wanted == direction)
            && may_see(context.server(), auth_id, &section.properties)?
        {
            ids.push(id);
        }
    }
    Ok(ids)
}

fn list(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let loaded = context.server().config().sections(SectionFile::Sync)?;
    let ids = visible(context, params, &loaded.data)?;
    let jobs: Vec<_> = ids
        .into_iter()
        .filter_map(|id| loaded.data.to_api(id))
        .collect();
    Ok(Reply::data(&jobs)?.with_digest(loaded.digest))
}

/// The properties of a job.
///
/// # Errors
/// When there is no such job.
pub fn properties(context: &RequestContext, id: &str) -> Result<Map<String, Value>, ApiError> {
    let config = context.server().config();
    SYNC_JOBS.get(config, id).map_err(edit_error)
}

fn read(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let id = params.required_text("id")?;
    let job = properties(context, id)?;
    if !may_see(context.server(), context.auth_id()?, &job)? {
        return Err(refused());
    }
    let loaded = context.server().config().sections(SectionFile::Sync)?;
    Ok(Reply::data(&loaded.data.to_api(id))?.with_digest(loaded.digest))
}

fn create(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let job = params.without(&["id"]);
    // A key that is not there is said to be missing, not forbidden.
    let mut granted = job.clone();
    granted.remove("active-encryption-key");
    granted.remove("associated-key");
    check_run(context, &granted)?;
    let created = SYNC_JOBS.create(
        server.config(),
        server.job_states(),
        params.required_text("id")?,
        job.clone(),
    );
    created.map_err(edit_error)?;
    Ok(Reply::null())
}

fn update(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let id = params.required_text("id")?;
    check_run(context, &properties(context, id)?)?;
    let change = (
        params.without(&["id", "delete", "digest"]),
        &*params.owned_texts("delete"),
    );
    let server = context.server();
    let digest = params.text("digest");
    let check = |after: &Map<String, Value>| {
        check_run(context, after).map_err(|err| EditError::Conflict(err.to_string()))
    };
    SYNC_JOBS
        .update(
            server.config(),
            server.job_states(),
            id,
            change,
            digest,
            check,
        )
        .map_err(edit_error)?;
    Ok(Reply::null())
}

fn remove(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let id = params.required_text("id")?;
    let server = context.server();
    let loaded = server.config().sections(SectionFile::Sync)?;
    // What is not there is said by the removal, in its own words.
    if loaded.data.get(id).is_some() {
        check_run(context, &properties(context, id)?)?;
    }
    let digest = params.text("digest");
    SYNC_JOBS
        .remove(server.config(), server.job_states(), id, digest)
        .map_err(edit_error)?;
    Ok(Reply::null())
}
