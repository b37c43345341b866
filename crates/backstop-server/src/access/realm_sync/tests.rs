#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use parking_lot::Mutex;
use proptest::prelude::*;

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Log for Lines {
    fn log(&self, text: String) {
        self.0.lock().push(text);
    }

    fn warn(&self, text: String) {
        self.0.lock().push(format!("warning: {text}"));
    }
}

const USERS: &str = "user: ann@dir\n\temail ann@old\n\tfirstname Ann\n\nuser: bob@dir\n\nuser: eve@pbs\n\n\
                     token: bob@dir!tok\n";
const REALMS: &str =
    "ldap: dir\n\tbase-dn dc=x\n\tcomment first\n\tserver1 ldap.x\n\tuser-attr uid\n";
const RULES: &str =
    "acl:1:/:ann@dir,bob@dir,eve@pbs:Audit\nacl:1:/datastore:bob@dir!tok:DatastoreAudit\n";

struct Setting {
    dir: tempfile::TempDir,
    config: ConfigStore,
}

/// The realm as it was when its sync was begun.
fn realm() -> Realm {
    let properties = json!({
        "base-dn": "dc=x", "comment": "first", "server1": "ldap.x", "user-attr": "uid",
    });
    Realm::new("dir", "ldap", properties.as_object().unwrap())
}

impl Setting {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("user.cfg"), USERS).unwrap();
        std::fs::write(dir.path().join("domains.cfg"), REALMS).unwrap();
        std::fs::write(dir.path().join("acl.cfg"), RULES).unwrap();
        std::fs::write(
            dir.path().join("token.shadow"),
            r#"{"bob@dir!tok":"x","eve@pbs!tok":"y"}"#,
        )
        .unwrap();
        let config = ConfigStore::new(dir.path());
        Self { dir, config }
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    fn sync(
        &self,
        found: &[(&str, &[(&'static str, &str)])],
        remove: &str,
        dry_run: bool,
    ) -> Result<Vec<String>, String> {
        let lines = Lines::default();
        let found: Vec<DirectoryUser> = found
            .iter()
            .map(|(name, properties)| DirectoryUser {
                dn: format!("uid={name},dc=x"),
                name: (*name).to_owned(),
                properties: properties
                    .iter()
                    .map(|(key, value)| (*key, (*value).to_owned()))
                    .collect(),
            })
            .collect();
        let options = SyncOptions {
            remove: RemoveVanished::parse(remove),
            enable_new: false,
            dry_run,
        };
        apply(&self.config, &realm(), &found, options, &lines).map_err(|err| err.to_string())?;
        Ok(lines.0.into_inner())
    }
}

#[test]
fn users_are_created_and_updated_and_all_else_stays() {
    let setting = Setting::new();
    let found: &[(&str, &[(&'static str, &str)])] = &[
        ("ann", &[("email", "ann@new")]),
        ("bob", &[]),
        ("cid", &[("lastname", "Cidson"), ("email", "c")]),
        ("not a name", &[]),
        ("ann", &[("email", "other")]),
    ];
    let before = setting.text("user.cfg");
    let dry = setting.sync(found, "", true).unwrap();
    assert_eq!(setting.text("user.cfg"), before);
    let lines = setting.sync(found, "", false).unwrap();
    assert_eq!(dry, lines);
    assert_eq!(
        lines,
        [
            "updating user ann@dir: email 'ann@old' -> 'ann@new'",
            "warning: cid@dir: ignoring attribute 'email': value must be at least 2 characters long",
            "creating user cid@dir",
            "warning: could not create/update user: 'uid=not a name,dc=x' - invalid user id 'not a name@dir' - value does not match the regex pattern",
            "warning: could not create/update user: 'uid=ann,dc=x' - another entry is user ann@dir already",
            "1 created, 1 updated, 0 removed, 1 unchanged",
        ]
    );
    assert_eq!(
        setting.text("user.cfg"),
        "user: ann@dir\n\temail ann@new\n\tfirstname Ann\n\nuser: bob@dir\n\nuser: eve@pbs\n\n\
         token: bob@dir!tok\n\nuser: cid@dir\n\tenable false\n\tlastname Cidson\n"
    );
    assert_eq!(setting.text("acl.cfg"), RULES);
}

#[test]
fn what_has_vanished_goes_as_far_as_asked() {
    let found: &[(&str, &[(&'static str, &str)])] = &[("ann", &[])];
    for (remove, users, has_bob_rule) in [
        (
            "properties",
            "user: ann@dir\n\nuser: bob@dir\n\nuser: eve@pbs\n\ntoken: bob@dir!tok\n",
            true,
        ),
        (
            "entry",
            "user: ann@dir\n\temail ann@old\n\tfirstname Ann\n\nuser: eve@pbs\n",
            true,
        ),
        (
            "acl;entry",
            "user: ann@dir\n\temail ann@old\n\tfirstname Ann\n\nuser: eve@pbs\n",
            false,
        ),
        ("acl", USERS, true),
    ] {
        let setting = Setting::new();
        setting.sync(found, remove, true).unwrap();
        assert_eq!(setting.text("user.cfg"), USERS, "{remove}");
        assert_eq!(setting.text("acl.cfg"), RULES, "{remove}");
        setting.sync(found, remove, false).unwrap();
        assert_eq!(setting.text("user.cfg"), users, "{remove}");
        let rules = setting.text("acl.cfg");
        assert_eq!(rules.contains("bob@dir"), has_bob_rule, "{remove}: {rules}");
        assert!(rules.contains("ann@dir") && rules.contains("eve@pbs"));
        let secrets = setting.text("token.shadow");
        assert_eq!(
            secrets.contains("bob@dir!tok"),
            !remove.contains("entry"),
            "{remove}"
        );
        assert!(secrets.contains("eve@pbs!tok"));
        // Whoever comes back under that name is somebody else.
        let revoked = setting
            .config
            .json(crate::config::JsonFile::Revocations)
            .unwrap();
        let expected: &[&str] = if remove.contains("entry") {
            &["bob@dir"]
        } else {
            &[]
        };
        assert_eq!(revoked.keys().collect::<Vec<_>>(), expected, "{remove}");
    }
}

#[test]
fn an_empty_directory_never_empties_the_realm() {
    let setting = Setting::new();
    let refused = setting
        .sync(&[], "acl;entry;properties", false)
        .unwrap_err();
    assert!(refused.contains("no user at all"), "{refused}");
    let bad: &[(&str, &[(&'static str, &str)])] = &[("no name", &[])];
    assert!(setting.sync(bad, "entry", false).is_err());
    assert_eq!(setting.text("user.cfg"), USERS);
    setting.sync(&[], "properties", false).unwrap();
}

#[test]
fn the_caller_overrides_what_the_realm_says() {
    let realm = json!({"sync-defaults-options": "remove-vanished=acl;entry,enable-new=false"});
    let realm = realm.as_object().unwrap();
    let own = SyncOptions::new(realm, None, None, false).unwrap();
    assert!(own.remove.acl && own.remove.entry && !own.remove.properties && !own.enable_new);
    let other = SyncOptions::new(realm, Some("properties"), Some(true), true).unwrap();
    assert!(!other.remove.acl && !other.remove.entry && other.remove.properties);
    assert!(other.enable_new && other.dry_run);
    let none = SyncOptions::new(&Map::new(), None, None, false).unwrap();
    assert_eq!(
        (none.remove, none.enable_new),
        (RemoveVanished::default(), true)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_second_sync_changes_nothing_and_users_of_other_realms_stay(
        names in proptest::collection::vec("\\PC{1,12}", 1..8), email in "\\PC{0,70}", remove in "(acl|entry|properties|;){0,4}"
    ) {
        let setting = Setting::new();
        let properties: &[(&'static str, &str)] = &[("email", &email)];
        let found: Vec<(&str, &[(&'static str, &str)])> =
            names.iter().map(|name| (name.as_str(), properties)).collect();
        if setting.sync(&found, &remove, false).is_err() {
            prop_assert_eq!(setting.text("user.cfg"), USERS);
            return Ok(());
        }
        let users = setting.text("user.cfg");
        prop_assert!(users.contains("user: eve@pbs"));
        let fresh = ConfigStore::new(setting.dir.path());
        prop_assert!(fresh.sections(SectionFile::User).is_ok());
        let lines = setting.sync(&found, &remove, false).unwrap();
        prop_assert!(lines.last().unwrap().starts_with("0 created, 0 updated, 0 removed"));
        prop_assert_eq!(setting.text("user.cfg"), users);
    }
}

#[test]
fn a_realm_that_was_removed_or_leads_elsewhere_meanwhile_gets_no_users() {
    let found: &[(&str, &[(&'static str, &str)])] = &[("cid", &[]), ("dan", &[])];
    for (realms, word) in [
        (String::new(), Some("was removed while")),
        (
            REALMS.replace("ldap: dir", "ldap: other"),
            Some("was removed while"),
        ),
        (
            REALMS
                .replace("ldap: dir", "ad: dir")
                .replace("\tuser-attr uid\n", ""),
            Some("was removed while"),
        ),
        (REALMS.replace("dc=x", "dc=y"), Some("was changed while")),
        (REALMS.replace("first", "second"), None),
    ] {
        for dry_run in [true, false] {
            let setting = Setting::new();
            std::fs::write(setting.dir.path().join("domains.cfg"), &realms).unwrap();
            let done = setting.sync(found, "acl;entry", dry_run);
            match word {
                Some(word) => {
                    let error = done.unwrap_err();
                    assert!(error.contains(word) && error.contains("'dir'"), "{error}");
                    assert_eq!(setting.text("user.cfg"), USERS);
                    assert_eq!(setting.text("acl.cfg"), RULES);
                }
                None => assert!(done.is_ok(), "{done:?}"),
            }
        }
    }
}
