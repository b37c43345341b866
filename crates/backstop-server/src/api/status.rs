//! `/status`: how full the datastores are, and what is measured.

mod metrics;

use backstop_health::forecast;
use backstop_types::record::{BackendType, DatastoreConfig, DatastoreUsage, MountStatus};
use backstop_types::{Namespace, Operation, Privileges};

use jiff::Timestamp;

use super::admin::datastore::reach;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::Get,
            path: "/status/datastore-usage",
            about: "Lists the datastores that the caller can see, with their sizes.",
            params: &[],
            permission: Permission::Anybody,
            handler: Handler::blocking(usage),
        },
        metrics::endpoint(),
    ]
}

fn usage(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let mut list = Vec::new();
    for config in context.server().datastores().configs()? {
        if reach::sees(context, &config.name)? {
            list.push(usage_of(context, &config)?);
        }
    }
    Reply::data(&list)
}

fn usage_of(
    context: &RequestContext,
    config: &DatastoreConfig,
) -> Result<DatastoreUsage, ApiError> {
    let server = context.server();
    let mut entry = DatastoreUsage {
        store: config.name.clone(),
        total: None,
        used: None,
        avail: None,
        mount_status: Some(match config.backing_device {
            Some(_) => MountStatus::NotMounted,
            None => MountStatus::NonRemovable,
        }),
        history: None,
        history_start: None,
        history_delta: None,
        estimated_full_date: None,
        error: None,
        gc_status: None,
        backend_type: Some(BackendType::Filesystem),
    };
    let granted = server.privileges(
        context.auth_id()?,
        &Namespace::root().acl_path(&config.name),
    );
    if !granted.intersects(Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_BACKUP)) {
        return Ok(entry);
    }
    if config.backing_device.is_some() {
        return Ok(entry);
    }
    let read = || -> Result<_, ApiError> {
        let store = server.datastores().lookup(&config.name, Operation::Read)?;
        // The call is about all datastores, so it has no thread to lose to one of them.
        Ok((store.ask(|store| store.usage())??, store.gc_status()))
    };
    match read() {
        Ok((usage, gc_status)) => {
            entry.total = Some(usage.total);
            entry.used = Some(usage.used);
            entry.avail = Some(usage.available);
            entry.gc_status = Some(gc_status);
            add_history(context, config, &mut entry);
        }
        // One datastore out of order must not hide the others.
        Err(err) => entry.error = Some(err.to_string()),
    }
    Ok(entry)
}

/// How full it was in the last 30 days, and when it will be full if that goes on.
fn add_history(context: &RequestContext, config: &DatastoreConfig, entry: &mut DatastoreUsage) {
    let now = Timestamp::now().as_second();
    let rrd = context.server().rrd();
    let Some(fullness) = rrd.fullness(config.name.as_str(), now) else {
        return;
    };
    entry.estimated_full_date = forecast::full_at(&fullness.points());
    entry.history_start = u64::try_from(fullness.start).ok();
    entry.history_delta = u64::try_from(fullness.resolution).ok();
    entry.history = Some(fullness.shares);
}
