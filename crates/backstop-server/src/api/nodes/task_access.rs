//! Who may see a task.

use backstop_types::{AuthId, Privileges, Upid};

use crate::server::Server;

/// Whether somebody may see status and log of a task: whoever started it (or owns the token that did), whoever may
/// see all tasks, and whoever would be allowed to run the job that it belongs to.
pub fn may_see(server: &Server, caller: &AuthId, upid: &Upid) -> bool {
    caller.owns(&upid.auth_id)
        || server
            .privileges(caller, "/system/tasks")
            .contains(Privileges::SYS_AUDIT)
        || may_run(server, caller, upid)
}

fn may_run(server: &Server, caller: &AuthId, upid: &Upid) -> bool {
    let Some(id) = upid.worker_id.as_deref() else {
        return false;
    };
    let fields: Vec<&str> = id.split(':').collect();
    let holds = |path: &str, privileges| server.privileges(caller, path).contains(privileges);
    match (upid.worker_type.as_str(), fields.as_slice()) {
        ("verificationjob", [store, _]) => {
            holds(&format!("/datastore/{store}"), Privileges::DATASTORE_VERIFY)
        }
        ("garbage_collection", [store]) => {
            holds(&format!("/datastore/{store}"), Privileges::DATASTORE_MODIFY)
        }
        ("prune" | "prunejob", [store, rest @ ..]) => {
            let path = match rest {
                [ns, ..] if !ns.is_empty() => format!("/datastore/{store}/{ns}"),
                _ => format!("/datastore/{store}"),
            };
            holds(&path, Privileges::DATASTORE_MODIFY)
        }
        ("syncjob", [remote, remote_store, store, ns, _]) => {
            let target = if ns.is_empty() {
                format!("/datastore/{store}")
            } else {
                format!("/datastore/{store}/{ns}")
            };
            let source = match *remote {
                "-" => holds(
                    &format!("/datastore/{remote_store}"),
                    Privileges::DATASTORE_BACKUP,
                ),
                remote => holds(
                    &format!("/remote/{remote}/{remote_store}"),
                    Privileges::REMOTE_READ,
                ),
            };
            source && holds(&target, Privileges::DATASTORE_BACKUP)
        }
        _ => false,
    }
}

/// Whether a task works on a datastore, as far as its id tells.
pub fn concerns_store(upid: &Upid, store: &str) -> bool {
    let Some(id) = upid.worker_id.as_deref() else {
        return false;
    };
    let field = |number: usize| id.split(':').nth(number);
    match upid.worker_type.as_str() {
        "garbage_collection" => id == store,
        "syncjob" => field(2) == Some(store),
        "prune" | "prunejob" | "backup" => field(0) == Some(store),
        kind if kind.starts_with("verif") => field(0) == Some(store),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_store_is_where_the_kind_of_task_has_it() {
        let upid = |kind: &str, id: &str| Upid {
            node: "n".into(),
            pid: 1,
            pstart: 1,
            task_id: 1,
            starttime: 1,
            worker_type: kind.into(),
            worker_id: Some(id.into()),
            auth_id: AuthId::root(),
        };
        for (kind, id, wanted) in [
            ("garbage_collection", "s1", true),
            ("garbage_collection", "s2", false),
            ("syncjob", "rem:x:s1:ns:job", true),
            ("syncjob", "s1:x:s2:ns:job", false),
            ("verify_snapshot", "s1:/vm/100/0", true),
            ("verificationjob", "s1:job", true),
            ("backup", "s1:vm/100", true),
            ("prunejob", "s1:ns", true),
            ("reader", "s1:vm/100/0", false),
        ] {
            assert_eq!(concerns_store(&upid(kind, id), "s1"), wanted, "{kind} {id}");
        }
    }
}
