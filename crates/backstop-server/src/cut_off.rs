//! After a crash: what tasks that were cut off left in the datastores is removed before the server listens, so that
//! nothing half-written is ever listed. Only groups in which such a task worked are looked at.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use backstop_datastore::Datastore;
use backstop_types::{BackupGroup, DatastoreName, Namespace, Operation, Upid};

use crate::server::Server;

/// How long the start of the server may wait for this; a disk that is slower than that is cleared while it serves.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a task worked.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    store: DatastoreName,
    /// The group, or all groups, in this namespace and those below.
    ns: Namespace,
    /// `None` for all groups.
    group: Option<BackupGroup>,
}

/// Clears up after these tasks, which ended with their process. Blocks for a bounded time.
pub(crate) fn clear(server: &Arc<Server>, tasks: Vec<Upid>) {
    let tasks: Vec<(Upid, Place)> = tasks
        .into_iter()
        .filter_map(|upid| place_of(&upid).map(|place| (upid, place)))
        .collect();
    if tasks.is_empty() {
        return;
    }
    let (done, wait) = mpsc::sync_channel::<()>(1);
    let server = Arc::clone(server);
    let started = std::thread::Builder::new()
        .name("cut-off".into())
        .spawn(move || {
            for (upid, place) in &tasks {
                if let Err(err) = clear_place(&server, upid, place) {
                    tracing::error!(%upid, %err, "unable to clear up after a task that was cut off");
                }
            }
            drop(done);
        });
    match started {
        // Ends with an error when the thread is through.
        Ok(_) => drop(wait.recv_timeout(PATIENCE)),
        Err(err) => tracing::error!(%err, "unable to clear up after tasks that were cut off"),
    }
}

fn clear_place(
    server: &Server,
    upid: &Upid,
    place: &Place,
) -> Result<(), Box<dyn std::error::Error>> {
    let datastore = server.datastores().lookup(&place.store, Operation::Write)?;
    for ns in datastore.namespaces(&place.ns, None)? {
        match &place.group {
            Some(group) if datastore.group_exists(&ns, group) => {
                clear_group(&datastore, upid, &ns, group)?;
            }
            Some(_) => {}
            None => {
                for group in datastore.groups(&ns)? {
                    clear_group(&datastore, upid, &ns, &group)?;
                }
            }
        }
    }
    Ok(())
}

fn clear_group(
    datastore: &Datastore,
    upid: &Upid,
    ns: &Namespace,
    group: &BackupGroup,
) -> Result<(), Box<dyn std::error::Error>> {
    let found = datastore.clear_leftovers(ns, group, upid.starttime)?;
    if !found.is_empty() {
        let unfinished = found.unfinished.len();
        tracing::info!(store = %datastore.name(), %ns, %group, %upid, unfinished, remains = found.remains,
            "removed what a task left that was cut off");
    }
    Ok(())
}

/// Where a task worked, as its id tells; `None` for one that leaves nothing.
fn place_of(upid: &Upid) -> Option<Place> {
    let mut fields = upid.worker_id.as_deref()?.split(':');
    let store = fields.next()?.parse().ok()?;
    let rest: Vec<&str> = fields.collect();
    let (ns, group) = match (upid.worker_type.as_str(), rest.as_slice()) {
        ("backup" | "prune", [ns, group]) => (*ns, Some(*group)),
        // names no namespace, as on stock servers
        ("backup", [group]) => ("", Some(*group)),
        ("prune" | "prunejob", [ns]) => (*ns, None),
        ("prune" | "prunejob", []) => ("", None),
        _ => return None,
    };
    Some(Place {
        store,
        ns: ns.parse().ok()?,
        group: match group {
            Some(group) => Some(group.parse().ok()?),
            None => None,
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_place_is_read_from_the_id_of_the_task() {
        let place = |kind: &str, id: &str| {
            let text = format!("UPID:vm:00000001:00000001:00000001:00000001:{kind}:x:root@pam:");
            let mut upid: Upid = text.parse().unwrap();
            upid.worker_id = Some(id.to_owned());
            place_of(&upid).map(|place| {
                let group = place.group.map(|group| group.to_string());
                (place.store.to_string(), place.ns.to_string(), group)
            })
        };
        let wanted = |store: &str, ns: &str, group: Option<&str>| {
            Some((store.to_owned(), ns.to_owned(), group.map(str::to_owned)))
        };
        for (kind, id, expected) in [
            (
                "backup",
                "store1:vm/100",
                wanted("store1", "", Some("vm/100")),
            ),
            (
                "backup",
                "store1:a/b:host/x",
                wanted("store1", "a/b", Some("host/x")),
            ),
            (
                "prune",
                "store1::vm/100",
                wanted("store1", "", Some("vm/100")),
            ),
            ("prune", "store1:a", wanted("store1", "a", None)),
            ("prunejob", "store1", wanted("store1", "", None)),
            ("reader", "store1:vm/100/0", None),
            ("garbage_collection", "store1", None),
            ("backup", "store1:../x", None),
        ] {
            assert_eq!(place(kind, id), expected, "{kind} {id}");
        }
    }
}
