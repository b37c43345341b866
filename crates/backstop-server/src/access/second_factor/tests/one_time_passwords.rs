use super::*;

#[test]
fn a_code_is_good_once_also_across_a_restart() {
    let mut host = Host::start();
    host.add_totp();
    let code = format!("totp:{}", host.code(0));
    host.log_in(&code).unwrap();
    let reason = host.log_in(&code).unwrap_err();
    assert!(reason.contains("used already"), "{reason}");
    host.restart();
    assert!(host.log_in(&code).unwrap_err().contains("used already"));
    // An older one is not good any more either, the next one is.
    let earlier = format!("totp:{}", host.code(-1));
    assert!(host.log_in(&earlier).unwrap_err().contains("used already"));
    host.log_in(&format!("totp:{}", host.code(1))).unwrap();
    let entry = &host.file()["users"][USER]["totp"][0]["entry"];
    assert_eq!(entry["totp"], format!("{URI}&issuer=backup"));
    assert_eq!(entry["last-count"].as_i64().unwrap(), host.now() / 30 + 1);
}

#[test]
fn a_code_of_one_step_earlier_or_later_is_good_and_none_further_away() {
    for (step, good) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
        let host = Host::start();
        host.add_totp();
        let answer = format!("totp:{}", host.code(step));
        assert_eq!(host.log_in(&answer).is_ok(), good, "{step}");
    }
}

#[test]
fn one_code_of_several_generators_is_enough() {
    let host = Host::start();
    host.add_totp();
    let mut file = host.file();
    let mut second = file["users"][USER]["totp"][0].clone();
    second["id"] = json!("2");
    second["entry"] = json!("otpauth://totp/x?secret=AAAAAAAAAAAAAAAA");
    let list = file["users"][USER]["totp"].as_array_mut().unwrap();
    list.insert(0, second);
    // A generator that nobody understands does not stand in the way.
    list.insert(
        0,
        json!({ "id": "3", "created": 1, "entry": "otpauth://x" }),
    );
    host.write_file(&file);
    host.log_in(&format!("totp:{}", host.code(0))).unwrap();
}

#[test]
fn adding_one_needs_its_present_code_and_a_sound_generator() {
    let host = Host::start();
    let code = host.code(0);
    let new = NewFactor {
        description: Some("x"),
        totp: Some(URI),
        value: Some(&code),
        challenge: None,
    };
    let short = "otpauth://totp/x?secret=AAAAAAAA";
    for (broken, expected) in [
        (
            NewFactor {
                description: None,
                ..new
            },
            "'description' is required",
        ),
        (NewFactor { totp: None, ..new }, "requires both"),
        (NewFactor { value: None, ..new }, "requires both"),
        (
            NewFactor {
                challenge: Some("x"),
                ..new
            },
            "'challenge' parameter is invalid",
        ),
        (
            NewFactor {
                value: Some("12345"),
                ..new
            },
            "failed to verify",
        ),
        (
            NewFactor {
                totp: Some("x"),
                ..new
            },
            "otpauth",
        ),
        (
            NewFactor {
                totp: Some(short),
                ..new
            },
            "10 bytes or more",
        ),
    ] {
        let reason = host.add(FactorKind::Totp, &broken).unwrap_err();
        assert!(reason.contains(expected), "{broken:?}: {reason}");
    }
    assert!(host.add(FactorKind::U2f, &new).is_err());
    assert!(host.add(FactorKind::Yubico, &new).is_err());
    assert!(host.logs_in_without());
    host.add(FactorKind::Totp, &new).unwrap();
    assert!(!host.logs_in_without());
}

#[test]
fn what_is_no_answer_is_refused_and_not_counted() {
    let host = Host::start();
    host.add_totp();
    let (ticket, _) = host.first_step();
    for answer in [
        "",
        "123456",
        "totp",
        "yubico:x",
        "u2f:{}",
        "webauthn:",
        "webauthn:{}",
        PASSWORD,
    ] {
        assert!(host.second_step(&ticket, answer).is_err(), "{answer}");
    }
    assert!(!host.access().config().run().exists());
    let code = format!("totp:{}", host.code(0));
    host.wait(601);
    assert_eq!(
        host.second_step(&ticket, &code).unwrap_err(),
        "invalid ticket - expired"
    );
}
