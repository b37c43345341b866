#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::access::control::tests::setup;
use proptest::prelude::*;
use serde_json::json;

#[test]
fn realms_equal_the_captures() {
    for (version, capture) in [("pbs-3.2.4", "053-domains"), ("pbs-4.2.3", "486-domains")] {
        let path = format!(
            "{}/../../tests/fixtures/{version}/rest/{capture}.json",
            env!("CARGO_MANIFEST_DIR")
        );
        let capture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let body: Value = serde_json::from_str(capture["body"].as_str().unwrap()).unwrap();
        let sorted = |mut items: Vec<Value>| {
            items.sort_by_key(ToString::to_string);
            items
        };
        let setup = setup(version);
        let own = list(setup.access.config()).unwrap();
        let own = own
            .iter()
            .map(|item| serde_json::to_value(item).unwrap())
            .collect();
        assert_eq!(
            sorted(own),
            sorted(body["data"].as_array().unwrap().clone())
        );
    }
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn store() -> (tempfile::TempDir, ConfigStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ConfigStore::new(dir.path());
    (dir, store)
}

fn text(dir: &tempfile::TempDir, name: &str) -> String {
    std::fs::read_to_string(dir.path().join(name)).unwrap()
}

#[test]
fn a_realm_is_written_as_stock_writes_it() {
    let (dir, store) = store();
    let parameters = json!({
        "issuer-url": "https://id.example.com/realms/x", "client-id": "pbs", "client-key": "not-a-secret",
        "autocreate": true, "username-claim": "email", "comment": " oidc realm ", "default": false
    });
    Draft::new(&store, &OPENID, "oidc1", map(parameters))
        .unwrap()
        .store(&store)
        .unwrap();
    let reference = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/pbs-3.2.4/etc-proxmox-backup/domains.cfg"
    );
    assert_eq!(
        text(&dir, "domains.cfg"),
        std::fs::read_to_string(reference).unwrap()
    );
}

#[test]
fn a_password_goes_into_a_file_of_its_own_and_leaves_with_its_realm() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, store) = store();
    let parameters = json!({
        "server1": "ldap.example.com", "base-dn": "dc=example,dc=com", "user-attr": "uid",
        "bind-dn": "cn=svc,dc=example,dc=com", "password": "Ldap-Pw-1", "mode": "ldaps"
    });
    let draft = Draft::new(&store, &LDAP, "ldap1", map(parameters)).unwrap();
    assert!(!format!("{draft:?}").contains("Pw-1"));
    draft.store(&store).unwrap();
    assert_eq!(
        text(&dir, "domains.cfg"),
        "ldap: ldap1\n\tbase-dn dc=example,dc=com\n\tbind-dn cn=svc,dc=example,dc=com\n\tmode ldaps\n\tserver1 ldap.example.com\n\tuser-attr uid\n"
    );
    assert_eq!(
        text(&dir, "ldap_passwords.json"),
        "{\n  \"ldap1\": \"Ldap-Pw-1\"\n}"
    );
    let mode = std::fs::metadata(dir.path().join("ldap_passwords.json")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);

    let change = |parameters: Value, delete: &[&str]| {
        let delete: Vec<String> = delete.iter().map(|key| (*key).to_owned()).collect();
        Draft::changed(&store, &LDAP, "ldap1", (map(parameters), &delete), None)
            .and_then(|draft| draft.store(&store))
            .map_err(|err| err.to_string())
    };
    change(json!({"comment": "x", "port": 1636}), &["bind-dn"]).unwrap();
    assert!(text(&dir, "ldap_passwords.json").contains("Ldap-Pw-1"));
    assert!(text(&dir, "domains.cfg").contains("\tcomment x\n\tmode ldaps\n\tport 1636\n"));
    change(json!({"password": "Other-Pw"}), &["password", "comment"]).unwrap();
    assert!(text(&dir, "ldap_passwords.json").contains("Other-Pw"));
    assert!(
        change(json!({"filter": "(("}), &[])
            .unwrap_err()
            .contains("filter")
    );
    change(json!({}), &["password"]).unwrap();
    assert_eq!(text(&dir, "ldap_passwords.json"), "{}");

    change(json!({"password": "Third-Pw"}), &[]).unwrap();
    let states = JobStates::new(dir.path().to_owned());
    let sync = JobId::new(JobKind::RealmSync, "ldap1");
    states.create(&sync, 1).unwrap();
    std::fs::write(
        dir.path().join("user.cfg"),
        "user: ann@ldap1\n\nuser: eve@pbs\n",
    )
    .unwrap();
    let missing = OPENID.remove(&store, &states, "ldap1", None).unwrap_err();
    assert_eq!(
        (missing.status(), missing.to_string().as_str()),
        (404, "realm 'ldap1' does not exist.")
    );
    assert!(states.exists(&sync));
    LDAP.remove(&store, &states, "ldap1", None).unwrap();
    assert_eq!(text(&dir, "domains.cfg"), "");
    assert_eq!(text(&dir, "ldap_passwords.json"), "{}");
    // Nothing of it is left, and nobody stays logged in.
    assert!(!states.exists(&sync));
    let revoked = store.json(JsonFile::Revocations).unwrap();
    assert_eq!(revoked.keys().collect::<Vec<_>>(), ["ann@ldap1"]);
}

#[test]
fn one_realm_at_most_is_proposed() {
    let (dir, store) = store();
    let openid = json!({"issuer-url": "https://id.example.com", "client-id": "x", "default": true});
    for realm in ["one", "two"] {
        let draft = Draft::new(&store, &OPENID, realm, map(openid.clone())).unwrap();
        draft.store(&store).unwrap();
    }
    let proposed = || {
        let all = list(&store).unwrap().into_iter();
        let proposed = all.filter(|item| item.default == Some(true));
        proposed
            .map(|item| item.realm.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(proposed(), ["two"]);
    let change = |kind: &'static RealmKind, realm: &str, parameters: Value| {
        Draft::changed(&store, kind, realm, (map(parameters), &[]), None)
            .unwrap()
            .store(&store)
            .unwrap();
    };
    change(&OPENID, "two", json!({"comment": "still proposed"}));
    assert_eq!(proposed(), ["two"]);
    change(&PBS, "pbs", json!({"default": true}));
    assert_eq!(proposed(), ["pbs"]);
    assert!(text(&dir, "domains.cfg").contains(
        "pbs: pbs\n\tcomment Proxmox Backup authentication server\n\tdefault true\n\ttype pbs\n"
    ));
    change(&PBS, "pbs", json!({"default": false}));
    assert_eq!(proposed(), ["pam"]);
    assert_eq!(
        Value::Object(PAM.get(&store, "pam").unwrap().data),
        json!({"realm": "pam", "type": "pam", "comment": "Linux PAM standard authentication", "default": true})
    );
}

#[test]
fn what_is_taken_missing_or_changed_meanwhile_is_refused() {
    let (_dir, store) = store();
    let openid = map(json!({"issuer-url": "https://id.example.com", "client-id": "x"}));
    let create = |realm: &str| Draft::new(&store, &OPENID, realm, openid.clone());
    for realm in ["pam", "pbs"] {
        assert_eq!(
            create(realm).unwrap_err().to_string(),
            format!("parameter verification failed - 'realm': realm '{realm}' already exists.")
        );
    }
    let late = create("late").unwrap();
    create("first").unwrap().store(&store).unwrap();
    assert!(create("first").is_err());
    let modified = "detected modified configuration - file changed by other user? Try again.";
    assert_eq!(late.store(&store).unwrap_err().to_string(), modified);
    let old = "0".repeat(64);
    let change = Draft::changed(&store, &OPENID, "first", (Map::new(), &[]), Some(&old));
    assert_eq!(change.unwrap_err().to_string(), modified);
    let change = Draft::changed(&store, &LDAP, "first", (Map::new(), &[]), None);
    assert_eq!(change.unwrap_err().to_string(), "no such ldap 'first'");
    let fixed = map(json!({"username-claim": "email", "client-id": "y"}));
    Draft::changed(&store, &OPENID, "first", (fixed, &[]), None)
        .unwrap()
        .store(&store)
        .unwrap();
    let now = OPENID.get(&store, "first").unwrap().data;
    assert_eq!(
        (now.get("username-claim"), &now["client-id"]),
        (None, &json!("y"))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_stored_realm_reads_back_as_it_was_given(
        server in "[a-z]{1,10}(\\.[a-z]{1,5}){0,2}", base in "[ -~]{1,30}", attribute in "[A-Za-z][A-Za-z0-9-]{0,10}",
        port in proptest::option::of(1u16..), verify in proptest::option::of(any::<bool>()),
        comment in "[!-~]{1,20}", password in "[ -~é]{1,30}"
    ) {
        prop_assume!(base.trim() == base);
        let (dir, store) = store();
        let mut parameters = map(json!({
            "server1": server, "base-dn": base, "user-attr": attribute, "comment": comment, "default": true
        }));
        if let Some(port) = port { parameters.insert("port".to_owned(), port.into()); }
        if let Some(verify) = verify { parameters.insert("verify".to_owned(), verify.into()); }
        let mut expected = parameters.clone();
        expected.insert("realm".to_owned(), "r1".into());
        parameters.insert("password".to_owned(), password.clone().into());
        Draft::new(&store, &LDAP, "r1", parameters).unwrap().store(&store).unwrap();
        let fresh = ConfigStore::new(dir.path());
        prop_assert_eq!(LDAP.get(&fresh, "r1").unwrap().data, expected);
        let stored = crate::access::directory::stored_password(&fresh, "r1").unwrap().unwrap();
        prop_assert_eq!(stored.as_str(), password.as_str());
    }
}
