use super::super::failures::{LIMIT, LOCK_TIME, TOTP_LIMIT};
use super::*;

fn fail(host: &Host, answer: &str, times: u64) {
    let (ticket, _) = host.first_step();
    for _ in 0..times {
        host.second_step(&ticket, answer).unwrap_err();
    }
}

#[test]
fn eight_wrong_codes_lock_one_time_passwords_until_a_recovery_code_is_used() {
    let mut host = Host::start();
    host.add_totp();
    let codes = host.add_recovery();
    fail(&host, "totp:000000", TOTP_LIMIT - 1);
    // Neither a restart nor a success of another kind gives fresh tries.
    host.restart();
    let reason = host.log_in("totp:000000").unwrap_err();
    assert!(reason.contains("locked now"), "{reason}");
    let right = format!("totp:{}", host.code(0));
    assert!(host.log_in(&right).unwrap_err().contains("locked"));
    assert_eq!(host.file()["users"][USER]["totp-locked"], true);
    let listed = super::super::list(host.access().config(), None, host.now()).unwrap();
    assert!(listed[0].totp_locked);
    host.log_in(&format!("recovery:{}", codes[3])).unwrap();
    host.log_in(&right).unwrap();
    let (_, challenge) = host.first_step();
    assert_eq!(challenge["recovery"], json!([0, 1, 2, 4, 5, 6, 7, 8, 9]));
}

#[test]
fn a_right_code_starts_the_count_anew() {
    let host = Host::start();
    host.add_totp();
    fail(&host, "totp:000000", TOTP_LIMIT - 1);
    host.log_in(&format!("totp:{}", host.code(0))).unwrap();
    fail(&host, "totp:000000", TOTP_LIMIT - 1);
    host.log_in(&format!("totp:{}", host.code(1))).unwrap();
}

#[test]
fn an_administrator_unlocks() {
    let host = Host::start();
    let config = host.access().config();
    let unlock = || super::super::unlock(config, &Host::user(), host.now());
    assert!(unlock().is_err());
    host.add_totp();
    assert!(!unlock().unwrap());
    fail(&host, "totp:000000", TOTP_LIMIT);
    assert!(unlock().unwrap());
    assert!(!unlock().unwrap());
    fail(&host, "totp:000000", TOTP_LIMIT - 1);
    host.log_in(&format!("totp:{}", host.code(0))).unwrap();
}

#[test]
fn a_hundred_failures_lock_everything_for_an_hour() {
    let host = Host::start();
    host.add_totp();
    let codes = host.add_recovery();
    fail(&host, "recovery:0000-0000-0000-0000", LIMIT);
    let recovery = format!("recovery:{}", codes[0]);
    assert!(host.log_in(&recovery).unwrap_err().contains("locked"));
    host.wait(LOCK_TIME - 1);
    assert!(host.log_in(&format!("totp:{}", host.code(0))).is_err());
    host.wait(1);
    host.log_in(&recovery).unwrap();
    assert_eq!(host.file()["users"][USER].get("tfa-locked-until"), None);
}

#[test]
fn a_recovery_code_is_good_once_also_across_a_restart() {
    let mut host = Host::start();
    let codes = host.add_recovery();
    assert_eq!(codes.len(), 10);
    assert!(
        host.add(FactorKind::Recovery, &NewFactor::default())
            .is_err()
    );
    let answer = format!("recovery:{}", codes[0]);
    host.log_in(&answer).unwrap();
    assert!(host.log_in(&answer).is_err());
    host.restart();
    assert!(host.log_in(&answer).is_err());
    for code in &codes[1..] {
        host.log_in(&format!("recovery:{code}")).unwrap();
    }
    // Without any code left the password alone is still not enough.
    let (_, challenge) = host.first_step();
    assert_eq!(challenge, json!({ "recovery": [] }));
}

#[test]
fn who_cannot_be_counted_is_not_checked() {
    let host = Host::start();
    host.add_totp();
    let run = host.access().config().run().to_owned();
    std::fs::write(&run, "a file where the directory should be").unwrap();
    let right = format!("totp:{}", host.code(0));
    let reason = host.log_in(&right).unwrap_err();
    assert!(reason.contains("unable to"), "{reason}");
    std::fs::remove_file(&run).unwrap();
    host.log_in(&right).unwrap();
}
