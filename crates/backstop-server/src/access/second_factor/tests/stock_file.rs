//! A file that the stock library wrote: it works here, and stays one that the library reads.

use testbed::authenticator::Authenticator;

use super::*;

const ORIGIN: &str = "https://pbs.example.com:8007";

fn fixture(name: &str) -> Value {
    let path = format!(
        "{}/../../tests/fixtures/proxmox-tfa-6.0.5/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A host with the file, some minutes after it was written.
fn host() -> Host {
    let host = Host::start();
    let file = fixture("tfa.json");
    let created = &file["users"][USER]["recovery"]["created"];
    host.setup
        .now
        .store(created.as_i64().unwrap() + 300, Ordering::Relaxed);
    host.write_file(&file);
    host
}

#[test]
fn every_factor_of_a_stock_file_logs_in_and_used_codes_stay_used() {
    let host = host();
    let secrets = fixture("secrets.json");
    for kept in secrets["webauthn"].as_array().unwrap() {
        let mut key = Authenticator::restore(kept, ORIGIN).unwrap();
        let (ticket, challenge) = host.first_step();
        assert_eq!(challenge["webauthn"]["publicKey"]["rpId"], "example.com");
        let answer = key.authenticate(&challenge["webauthn"]).unwrap();
        host.second_step(&ticket, &format!("webauthn:{answer}"))
            .unwrap();
    }
    host.log_in(&format!("totp:{}", host.code(0))).unwrap();
    let used = secrets["used-recovery"].as_u64().unwrap() as usize;
    for (place, code) in secrets["recovery"].as_array().unwrap().iter().enumerate() {
        let answer = format!("recovery:{}", code.as_str().unwrap());
        assert_eq!(host.log_in(&answer).is_ok(), place != used, "{place}");
    }
}

#[test]
fn what_is_not_used_up_is_written_back_as_it_was() {
    let host = host();
    let mut expected = host.file();
    // Keys of a newer release, at each level.
    expected["new"] = json!({ "a": [1] });
    expected["users"]["new@pbs"] = json!("whatever");
    expected["users"][USER]["new"] = json!(1.5);
    expected["users"][USER]["recovery"]["new"] = json!(null);
    expected["users"][USER]["totp"][0]["new"] = json!("x");
    expected["users"][USER]["webauthn"][0]["entry"]["new"] = json!([]);
    host.write_file(&expected);
    host.log_in(&format!("totp:{}", host.code(0))).unwrap();
    let step = host.now() / 30;
    expected["users"][USER]["totp"][0]["entry"]["last-count"] = step.into();
    assert_eq!(host.file(), expected);
    let secrets = fixture("secrets.json");
    let mut key = Authenticator::restore(&secrets["webauthn"][0], ORIGIN).unwrap();
    key.backup = (true, true);
    let (ticket, challenge) = host.first_step();
    let answer = key.authenticate(&challenge["webauthn"]).unwrap();
    host.second_step(&ticket, &format!("webauthn:{answer}"))
        .unwrap();
    let entry = &mut expected["users"][USER]["webauthn"][0]["entry"];
    entry["counter"] = 1.into();
    entry["backup_eligible"] = true.into();
    entry["backup_state"] = true.into();
    assert_eq!(host.file(), expected);
    let answer = format!("recovery:{}", secrets["recovery"][0].as_str().unwrap());
    host.log_in(&answer).unwrap();
    expected["users"][USER]["recovery"]["entries"][0] = Value::Null;
    assert_eq!(host.file(), expected);
}

#[test]
fn a_new_factor_is_stored_as_the_stock_library_stores_it() {
    let host = host();
    let stock = host.file();
    host.add_totp();
    let file = host.file();
    let list = file["users"][USER]["totp"].as_array().unwrap();
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(list.len(), 2);
    assert_eq!(keys(&list[1]), keys(&stock["users"][USER]["totp"][0]));
    // Before its first use the entry is the URI alone.
    assert_eq!(
        list[1]["entry"],
        stock["users"]["other@pbs"]["totp"][0]["entry"]
    );
    for (place, kept) in fixture("secrets.json")["webauthn"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        let before = &stock["users"][USER]["webauthn"][place];
        let mut file = host.file();
        file["users"][USER]
            .as_object_mut()
            .unwrap()
            .remove("webauthn");
        host.write_file(&file);
        // The same key, registered here.
        let mut key = Authenticator::restore(kept, ORIGIN).unwrap();
        super::security_keys::register(&host, &mut key).unwrap();
        let after = &host.file()["users"][USER]["webauthn"][0];
        assert_eq!(after["entry"], before["entry"]);
        assert_eq!(keys(after), keys(before));
    }
}
