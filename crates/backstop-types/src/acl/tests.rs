#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use proptest::prelude::*;

fn id(text: &str) -> AuthId {
    text.parse().unwrap()
}

#[test]
fn the_reference_files_are_written_back_unchanged() {
    for version in ["pbs-3.2.4", "pbs-4.2.3"] {
        let path = format!(
            "{}/../../tests/fixtures/{version}/etc-proxmox-backup/acl.cfg",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(AclTree::parse(&path, &text).unwrap().to_text(), text);
    }
}

#[test]
fn a_bad_line_is_named_with_its_reason() {
    for (text, reason) in [
        ("acl:1:/:a@pbs", "wrong number of items."),
        ("acl:1:/:a@pbs:Admin:x", "wrong number of items."),
        (
            "acl:2:/:a@pbs:Admin",
            "expected '0' or '1' for propagate flag.",
        ),
        ("acl:1:/:a@pbs:Nope", "unknown role 'Nope'"),
    ] {
        let error =
            AclTree::parse("acl.cfg", &format!("\nacl:1:/:a@pbs:Admin\n{text}\n")).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("unable to parse acl config \"acl.cfg\", line 3 - {reason}")
        );
    }
    assert!(AclTree::parse("x", "# comment").is_err());
    assert!(AclTree::parse("x", "acl:1:/:nobody:Admin").is_err());
}

#[test]
fn lines_are_merged_by_equal_subjects() {
    let text = "acl:1:/:b@pbs:Audit\nacl:1:/:a@pbs:Audit\nacl:1:/:a@pbs,b@pbs:RemoteAudit\nacl:0:/:c@pbs:Audit\nacl:1:/a/b:root@pam:Admin\nacl:1:/a:root@pam!t,@grp:Admin\n";
    assert_eq!(
        AclTree::parse("x", text).unwrap().to_text(),
        "acl:0:/:c@pbs:Audit\nacl:1:/:a@pbs,b@pbs:Audit,RemoteAudit\nacl:1:/a:@grp,root@pam!t:Admin\n"
    );
}

#[test]
fn a_deeper_rule_replaces_what_was_inherited() {
    let mut tree = AclTree::default();
    let user = id("u@pbs");
    tree.insert("/", &user, Role::Audit, true);
    tree.insert("/datastore/a", &user, Role::DatastoreBackup, true);
    tree.insert("/datastore/b", &user, Role::DatastoreBackup, false);
    tree.insert("/datastore/c", &user, Role::NoAccess, true);
    let at = |path: &str| tree.permissions(&user, path).privileges;
    assert_eq!(at("/system"), Role::Audit.privileges());
    assert_eq!(at("/datastore/a"), Privileges::DATASTORE_BACKUP);
    assert_eq!(at("/datastore/a/ns"), Privileges::DATASTORE_BACKUP);
    assert_eq!(at("/datastore/b"), Privileges::DATASTORE_BACKUP);
    assert_eq!(at("/datastore/b/ns"), Role::Audit.privileges());
    assert_eq!(at("/datastore/c/ns"), Privileges::NONE);
    assert!(
        tree.permissions(&user, "/datastore/b")
            .propagated
            .is_empty()
    );
}

#[test]
fn no_access_excludes_other_roles_at_its_node() {
    let mut tree = AclTree::default();
    let user = id("u@pbs");
    tree.insert("/a", &user, Role::Admin, true);
    tree.insert("/a", &user, Role::NoAccess, true);
    assert_eq!(tree.to_text(), "acl:1:/a:u@pbs:NoAccess\n");
    assert!(tree.permissions(&user, "/a").privileges.is_empty());
    tree.insert("/a", &user, Role::Audit, true);
    assert_eq!(tree.to_text(), "acl:1:/a:u@pbs:Audit\n");
}

#[test]
fn a_token_never_has_more_than_its_user() {
    let mut tree = AclTree::default();
    let (user, token) = (id("u@pbs"), id("u@pbs!t"));
    tree.insert("/", &token, Role::Admin, true);
    assert!(tree.permissions(&token, "/datastore").privileges.is_empty());
    tree.insert("/datastore", &user, Role::DatastoreAudit, true);
    assert_eq!(
        tree.permissions(&token, "/datastore/x").privileges,
        Privileges::DATASTORE_AUDIT
    );
    let root_token = id("root@pam!t");
    assert!(tree.permissions(&root_token, "/").privileges.is_empty());
    tree.insert("/", &root_token, Role::Audit, true);
    assert_eq!(
        tree.permissions(&root_token, "/").privileges,
        Role::Audit.privileges()
    );
    assert_eq!(
        tree.permissions(&AuthId::root(), "/x").privileges,
        Privileges::ALL
    );
}

#[test]
fn removed_ids_and_paths_leave_no_rule() {
    let mut tree = AclTree::parse("x", "acl:1:/:a@pbs:Admin\nacl:1:/datastore/s:a@pbs,b@pbs:Admin\nacl:1:/datastore/s/ns:b@pbs:Admin\n").unwrap();
    tree.remove_auth_id(&id("a@pbs"));
    assert_eq!(
        tree.to_text(),
        "acl:1:/datastore/s:b@pbs:Admin\nacl:1:/datastore/s/ns:b@pbs:Admin\n"
    );
    assert!(tree.any_below(&id("b@pbs"), "/datastore", Privileges::DATASTORE_READ));
    tree.remove_path("/datastore/s");
    assert_eq!(tree.to_text(), "");
    tree.remove("/nowhere", &id("a@pbs"), Role::Admin);
}

#[test]
fn only_paths_that_checks_use_are_allowed() {
    for path in [
        "/",
        "/access",
        "/access/acl",
        "/access/openid/x",
        "/datastore",
        "/datastore/s/1/2/3/4/5/6/7",
        "/remote/r/s/1/2/3/4/5/6/7",
        "/system/network/interfaces/eth0",
        "/system/services/x",
        "/system/s3-endpoint/x",
        "/system/encryption-keys",
        "/tape/job/x",
        "/system/tasks",
    ] {
        assert_eq!(check_acl_path(path), Ok(()), "{path}");
    }
    for path in [
        "/nonsense",
        "/access/x",
        "/access/acl/x",
        "/datastore/s/1/2/3/4/5/6/7/8",
        "/system/x",
        "/system/network/x",
        "/tape/x",
        "/system/tasks/x",
        "datastore",
        "",
    ] {
        assert!(check_acl_path(path).is_err(), "{path}");
    }
    assert_eq!(
        check_acl_path("/nonsense").unwrap_err().to_string(),
        "invalid acl path '/nonsense'."
    );
    assert!(
        is_acl_path("/")
            && is_acl_path("/a/b")
            && !is_acl_path("/a/")
            && !is_acl_path("a")
            && !is_acl_path("/a/../b")
    );
}

/// Rules as a flat list, and the evaluation rules applied to it word by word.
fn naive(
    rules: &[(Vec<&'static str>, AuthId, Role, bool)],
    auth_id: &AuthId,
    path: &[&str],
) -> Privileges {
    if auth_id.is_root() {
        return Privileges::ALL;
    }
    let mut result = Privileges::NONE;
    for depth in 0..=path.len() {
        let here: Vec<&(Vec<&str>, AuthId, Role, bool)> = rules
            .iter()
            .filter(|(at, who, _, propagate)| {
                at == &path[..depth] && who == auth_id && (*propagate || depth == path.len())
            })
            .collect();
        if here.is_empty() {
            continue;
        }
        result = if here.iter().any(|rule| rule.2 == Role::NoAccess) {
            Privileges::NONE
        } else {
            here.iter()
                .fold(Privileges::NONE, |sum, rule| sum | rule.2.privileges())
        };
    }
    if auth_id.is_token() {
        result &= naive(rules, &auth_id.user().clone().into(), path);
    }
    result
}

fn path() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(prop_oneof![Just("a"), Just("b")], 0..4)
}

fn who() -> impl Strategy<Value = AuthId> {
    prop_oneof![
        Just("u@pbs"),
        Just("u@pbs!t"),
        Just("v@pbs"),
        Just("root@pam"),
        Just("root@pam!t")
    ]
    .prop_map(id)
}

proptest! {
    #[test]
    fn evaluation_equals_the_written_rules(
        rules in proptest::collection::vec((path(), who(), 0..Role::ALL.len(), any::<bool>()), 0..12),
        auth_id in who(),
        target in path(),
    ) {
        let mut tree = AclTree::default();
        let mut model: Vec<(Vec<&'static str>, AuthId, Role, bool)> = Vec::new();
        for (at, who, role, propagate) in rules {
            let role = Role::ALL[role];
            tree.insert(&format!("/{}", at.join("/")), &who, role, propagate);
            model.retain(|rule| {
                let same = rule.0 == at && rule.1 == who;
                let replaced = rule.2 == role || role == Role::NoAccess || rule.2 == Role::NoAccess;
                !(same && replaced)
            });
            model.push((at, who, role, propagate));
        }
        let path = format!("/{}", target.join("/"));
        prop_assert_eq!(tree.permissions(&auth_id, &path).privileges, naive(&model, &auth_id, &target));
        let permissions = tree.permissions(&auth_id, &path);
        prop_assert!(permissions.privileges.contains(permissions.propagated));

        let text = tree.to_text();
        let read = AclTree::parse("x", &text).unwrap();
        prop_assert_eq!(read.to_text(), text);
        if !auth_id.is_root() {
            prop_assert_eq!(read.permissions(&auth_id, &path), permissions);
        }
    }

    #[test]
    fn no_text_panics(text in "(acl:[01]:[/a-z]{0,9}:[\\PC]{0,9}:[A-Za-z,]{0,9}\n|\\PC{0,20}\n){0,4}") {
        let _ = AclTree::parse("x", &text);
    }
}
