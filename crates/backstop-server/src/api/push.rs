//! `/push`: pushing once, without a job. What is new there belongs to the account of the remote.

use std::sync::LazyLock;

use backstop_types::Privileges;
use backstop_types::config_schema::value;
use backstop_types::schema::Property;

use super::pull::{check, settings, start};
use crate::http::{ApiError, Reply};
use crate::router::schema::BOOLEAN;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

static PARAMS: LazyLock<Vec<Property>> = LazyLock::new(|| {
    let settings = settings().into_iter();
    let settings = settings.filter(|property| property.name != "resync-corrupt");
    let settings = settings.map(|property| match property.name {
        "remote" => Property::required("remote", property.schema),
        _ => property,
    });
    let key = Property::optional("encryption-key", &value::CONFIG_ID);
    let dry_run = Property::optional("dry-run", &BOOLEAN);
    let mut all: Vec<Property> = settings.chain([key, dry_run]).collect();
    // Complaints come in this order.
    all.sort_by_key(|property| property.name);
    all
});

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Post,
        path: "/push",
        about: "Pushes snapshots of a datastore of this server to a remote, or tells what it would push.",
        params: PARAMS.as_slice(),
        // Depends on source and target: the handler checks.
        permission: Permission::Anybody,
        handler: Handler::blocking(push),
    }]
}

fn push(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let mut settings = params.as_map().clone();
    settings.insert("sync-direction".to_owned(), "push".into());
    start(context, settings, |config| {
        let remote = config.remote.as_ref().map_or("", |remote| remote.as_str());
        let (store, ns) = (&config.remote_store, &config.remote_ns);
        let target = match ns.is_root() {
            true => format!("/remote/{remote}/{store}"),
            false => format!("/remote/{remote}/{store}/{ns}"),
        };
        check(context, &target, Privileges::REMOTE_DATASTORE_BACKUP)?;
        if config.remove_vanished {
            check(context, &target, Privileges::REMOTE_DATASTORE_PRUNE)?;
        }
        let source = config.ns.acl_path(&config.store);
        let granted = context.server().privileges(context.auth_id()?, &source);
        let reads = [Privileges::DATASTORE_READ, Privileges::DATASTORE_BACKUP];
        match reads.iter().any(|one| granted.contains(*one)) {
            true => Ok(()),
            false => Err(ApiError::missing_privilege(
                "Datastore.Read|Datastore.Backup",
                &source,
            )),
        }
    })
}
