//! `/admin/sync`: sync jobs with their last and next runs, and running them now.

use backstop_types::schema::Property;
use serde_json::Value;

use super::datastore::parameters::STORE_FILTER;
use super::jobs::with_status;
use crate::api::config::jobs::ID;
use crate::api::config::sync::{DIRECTION, check_run, properties, visible};
use crate::config::SectionFile;
use crate::config::jobs::SYNC_JOBS;
use crate::http::{ApiError, Reply};
use crate::jobs::{self, JobId, JobKind};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const FILTER: &[Property] = &[STORE_FILTER, DIRECTION];
const ITEM: &[Property] = &[ID];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::Get,
            path: "/admin/sync",
            about: "Lists the sync jobs with their last and next runs.",
            params: FILTER,
            // Shows each caller what it may see.
            permission: Permission::Anybody,
            handler: Handler::blocking(list),
        },
        Endpoint {
            method: Method::Post,
            path: "/admin/sync/{id}/run",
            about: "Runs a sync job now.",
            params: ITEM,
            // Depends on the job: the handler checks.
            permission: Permission::Anybody,
            handler: Handler::blocking(start),
        },
    ]
}

fn list(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let loaded = server.config().sections(SectionFile::Sync)?;
    let store = params.text("store");
    let mut list = Vec::new();
    for id in visible(context, params, &loaded.data)? {
        let item = with_status(server, &SYNC_JOBS, id, &loaded.data);
        if store.is_none_or(|store| item.get("store").and_then(Value::as_str) == Some(store)) {
            list.push(item);
        }
    }
    Ok(Reply::data(&list)?.with_digest(loaded.digest))
}

fn start(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let id = params.required_text("id")?;
    check_run(context, &properties(context, id)?)?;
    let job = JobId::new(JobKind::Sync, id);
    let upid = jobs::start(context.server(), &job, context.auth_id()?, None)?;
    Reply::data(&upid.to_string())
}
