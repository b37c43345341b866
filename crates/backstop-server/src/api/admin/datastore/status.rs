//! Sizes and counts of a datastore, and what is under way on it.

use std::collections::HashMap;

use backstop_types::record::{BackendType, DatastoreStatus, TypeCount, TypeCounts};
use backstop_types::schema::Property;
use backstop_types::{BackupType, Namespace, Operation, Privileges};

use super::content;
use super::parameters::{STORE, VERBOSE, store};
use super::reach::{Reach, sees};
use crate::datastores::DatastoreHandle;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const STATUS: &[Property] = &[STORE, VERBOSE];
const ALONE: &[Property] = &[STORE];

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        content(
            Method::Get,
            "/admin/datastore/{store}/status",
            "Sizes of a datastore, and counts.",
            STATUS,
            status,
        ),
        Endpoint {
            method: Method::Get,
            path: "/admin/datastore/{store}/active-operations",
            about: "Number of running operations.",
            params: ALONE,
            permission: Permission::all("/datastore/{store}", Privileges::DATASTORE_AUDIT),
            handler: Handler::blocking(active_operations),
        },
    ]
}

fn status(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let store = store(params)?;
    let path = Namespace::root().acl_path(&store);
    let granted = context.server().privileges(context.auth_id()?, &path);
    let sizes = granted.intersects(Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_BACKUP));
    if !sizes && !granted.contains(Privileges::DATASTORE_READ) && !sees(context, &store)? {
        return Err(ApiError::forbidden("permission check failed"));
    }
    let datastore = context
        .server()
        .datastores()
        .lookup(&store, Operation::Read)?;
    let mut status = DatastoreStatus {
        total: 0,
        used: 0,
        avail: 0,
        gc_status: None,
        counts: None,
        backend_type: None,
    };
    status.backend_type = Some(BackendType::Filesystem);
    if sizes {
        let usage = datastore.usage()?;
        (status.total, status.used, status.avail) = (usage.total, usage.used, usage.available);
    }
    if params.bool("verbose", false) {
        status.counts = Some(counts(context, &datastore)?);
        status.gc_status = Some(datastore.gc_status());
    }
    Reply::data(&status)
}

/// Groups and snapshots that the caller may list, over all namespaces.
fn counts(context: &RequestContext, datastore: &DatastoreHandle) -> Result<TypeCounts, ApiError> {
    let mut by_type: HashMap<BackupType, TypeCount> = HashMap::new();
    for ns in datastore.namespaces(&Namespace::root(), None)? {
        let (full, owned) = (Privileges::DATASTORE_AUDIT, Privileges::DATASTORE_BACKUP);
        let Ok(reach) = Reach::of(context, datastore.name(), &ns, full, owned) else {
            continue;
        };
        for group in datastore.groups(&ns)? {
            if !reach.is_full()
                && !datastore
                    .owner(&ns, &group)
                    .is_ok_and(|owner| reach.admits(&owner))
            {
                continue;
            }
            let snapshots = datastore.snapshot_times(&ns, &group)?.len() as u64;
            if snapshots > 0 {
                let count = by_type.entry(group.ty).or_default();
                count.groups += 1;
                count.snapshots += snapshots;
            }
        }
    }
    let count = |ty| by_type.get(&ty).copied();
    Ok(TypeCounts {
        ct: count(BackupType::Ct),
        host: count(BackupType::Host),
        vm: count(BackupType::Vm),
        other: None,
    })
}

fn active_operations(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let store = store(params)?;
    let datastores = context.server().datastores();
    datastores.config(&store)?;
    Reply::data(&datastores.active_operations(&store))
}
