//! What somebody may do: checks for handlers, and the overview that the API shows.

use std::collections::BTreeMap;

use backstop_types::acl::{AclTree, Permissions};
use backstop_types::{AuthId, Privileges};

/// A privilege that is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("permission check failed - missing {privileges} on {path}")]
pub struct PermissionDenied {
    /// What would have been needed.
    pub privileges: Privileges,
    /// Where.
    pub path: String,
}

/// By path: each privilege held there, with whether it holds below, too.
pub type PermissionMap = BTreeMap<String, BTreeMap<&'static str, bool>>;

/// Paths that the overview always has.
const ALWAYS_SHOWN: [&str; 5] = ["/", "/access", "/datastore", "/remote", "/system"];

/// The overview for `auth_id`, who can hold no more than `most`: at `path`, or at all paths that rules name.
pub(super) fn overview(
    tree: &AclTree,
    auth_id: &AuthId,
    most: Privileges,
    path: Option<&str>,
) -> PermissionMap {
    let paths = match path {
        Some(path) => vec![path.to_string()],
        None => tree
            .paths()
            .into_iter()
            .chain(ALWAYS_SHOWN.map(str::to_string))
            .collect(),
    };
    let mut map = PermissionMap::new();
    for path in paths {
        let Permissions {
            privileges,
            propagated,
        } = tree.permissions(auth_id, &path);
        let held: BTreeMap<&str, bool> = Privileges::NAMES
            .iter()
            .filter(|(privilege, _)| (privileges & most).contains(*privilege))
            .map(|(privilege, name)| (*name, propagated.contains(*privilege)))
            .collect();
        if !held.is_empty() {
            map.insert(path, held);
        }
    }
    map
}

/// Checks the privileges that somebody holds at a path; with `any`, one of those needed is enough.
pub(super) fn check(
    held: Privileges,
    path: &str,
    privileges: Privileges,
    any: bool,
) -> Result<(), PermissionDenied> {
    let allowed = if any {
        held.intersects(privileges)
    } else {
        held.contains(privileges)
    };
    if allowed {
        Ok(())
    } else {
        Err(PermissionDenied {
            privileges,
            path: path.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn fixture(name: &str) -> String {
        std::fs::read_to_string(format!(
            "{}/../../tests/fixtures/pbs-3.2.4/{name}",
            env!("CARGO_MANIFEST_DIR")
        ))
        .unwrap()
    }

    #[test]
    fn the_overview_equals_the_captures() {
        let tree = AclTree::parse("acl.cfg", &fixture("etc-proxmox-backup/acl.cfg")).unwrap();
        for (capture, auth_id, path) in [
            (
                "058-permissions-user",
                "fixture@pbs",
                Some("/datastore/store1"),
            ),
            ("059-permissions-token", "fixture@pbs!tok1", None),
            ("301-permissions-self-ticket", "fixture@pbs", None),
        ] {
            let capture: serde_json::Value =
                serde_json::from_str(&fixture(&format!("rest/{capture}.json"))).unwrap();
            let body: serde_json::Value =
                serde_json::from_str(capture["body"].as_str().unwrap()).unwrap();
            let own = overview(&tree, &auth_id.parse().unwrap(), Privileges::ALL, path);
            assert_eq!(
                serde_json::to_value(own).unwrap(),
                body["data"],
                "{auth_id}"
            );
        }
    }

    #[test]
    fn a_missing_privilege_is_named_with_its_path() {
        let privileges = Privileges::DATASTORE_AUDIT | Privileges::DATASTORE_BACKUP;
        let error = check(Privileges::SYS_AUDIT, "/datastore/s", privileges, true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "permission check failed - missing Datastore.Audit|Datastore.Backup on /datastore/s"
        );
        assert_eq!(
            check(Privileges::ALL, "/datastore/s", privileges, false),
            Ok(())
        );
    }
}
