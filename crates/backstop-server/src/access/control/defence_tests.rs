//! What keeps passwords from being tried, and old tickets from being used: with a clock that the test sets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::IpAddr;

use super::super::{LoginReply, LoginRequest, password, user};
use super::tests::{Setup, setup};
use super::*;

const PASSWORD: &str = "Fixture-Pw-42";
const USER: &str = "fixture@pbs";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn log_in(setup: &Setup, peer: &str, password: &str) -> Result<LoginReply, String> {
    let request = LoginRequest {
        username: USER,
        password: Some(password),
        peer: Some(ip(peer)),
        ..LoginRequest::default()
    };
    setup
        .access
        .login(&request)
        .map_err(|error| error.to_string())
}

fn ticket(setup: &Setup) -> String {
    log_in(setup, "192.0.2.9", PASSWORD)
        .unwrap()
        .record
        .ticket
        .unwrap()
}

fn is_good(setup: &Setup, ticket: &str) -> bool {
    setup.access.check_ticket(ticket, None, false).is_ok()
}

#[test]
fn after_some_failures_even_the_right_password_has_to_wait_but_not_from_elsewhere() {
    let setup = setup("pbs-4.2.3");
    let guest = "203.0.113.5";
    for _ in 0..6 {
        assert_eq!(
            log_in(&setup, guest, "wrong-password").unwrap_err(),
            "invalid credentials"
        );
    }
    let error = log_in(&setup, guest, PASSWORD).unwrap_err();
    assert!(error.contains("too many failed attempts"), "{error}");
    let session = ticket(&setup);
    // A session that is open already can be renewed there.
    assert!(log_in(&setup, guest, &session).is_ok());
    setup.pass(1);
    log_in(&setup, guest, PASSWORD).unwrap();
    // All is forgotten after that.
    for _ in 0..5 {
        assert_eq!(
            log_in(&setup, guest, "wrong-password").unwrap_err(),
            "invalid credentials"
        );
    }
    log_in(&setup, guest, PASSWORD).unwrap();
}

#[test]
fn guessing_the_secret_of_a_token_is_slowed_down_too() {
    let setup = setup("pbs-3.2.4");
    let check = |secret: &str| {
        setup
            .access
            .check_token_from(Some(ip("203.0.113.5")), "fixture@pbs!tok1", secret)
            .map_err(|refused| refused.reason)
    };
    for _ in 0..11 {
        assert_eq!(check("wrong").unwrap_err(), "invalid credentials");
    }
    let secret = "dfe758ce-e6d3-47e0-b220-4334f29009f5";
    assert!(
        check(secret)
            .unwrap_err()
            .contains("too many failed attempts")
    );
    setup.pass(1);
    check(secret).unwrap();
}

#[test]
fn the_confirmation_of_a_change_is_no_way_around_the_limit() {
    let setup = setup("pbs-4.2.3");
    let change = |confirmation: &str| {
        let (caller, user) = (USER.parse().unwrap(), USER.parse().unwrap());
        let peer = Some(ip("203.0.113.5"));
        password::change(
            &setup.access,
            &caller,
            &user,
            "another-password",
            Some(confirmation),
            peer,
        )
        .map_err(|error| error.to_string())
    };
    for _ in 0..6 {
        assert_eq!(change("wrong-password").unwrap_err(), "invalid credentials");
    }
    assert!(
        change(PASSWORD)
            .unwrap_err()
            .contains("too many failed attempts")
    );
}

#[test]
fn a_change_of_the_password_ends_all_sessions_of_that_user_and_no_others() {
    let setup = setup("pbs-4.2.3");
    let (old, other) = (ticket(&setup), setup.access.issue_root_ticket().unwrap());
    assert!(is_good(&setup, &old));
    let user: UserId = USER.parse().unwrap();
    let change = |new: &str| {
        password::change(&setup.access, &AuthId::root(), &user, new, None, None).unwrap();
    };
    change("another-password");
    // In the same second, too; and a new log-in is good at once.
    assert!(!is_good(&setup, &old));
    assert!(
        log_in(&setup, "192.0.2.9", &old).is_err(),
        "an old ticket is not renewed"
    );
    assert!(is_good(&setup, &other));
    let new = log_in(&setup, "192.0.2.9", "another-password")
        .unwrap()
        .record
        .ticket
        .unwrap();
    assert!(is_good(&setup, &new));
    setup.pass(7200);
    assert!(is_good(&setup, &new));
    assert!(!is_good(&setup, &old));
    // After a restart it is still known.
    let config = Arc::clone(setup.access.config());
    let now = setup.access.now();
    let again = AccessControl::with_clock(config, move || now - 7000).unwrap();
    assert!(again.check_ticket(&old, None, false).is_err());
    // Nothing of it is in a file of a stock server.
    let names = std::fs::read_dir(setup.dir.path()).unwrap();
    let ours =
        names.filter(|entry| entry.as_ref().unwrap().file_name() == "backstop-revocations.json");
    assert_eq!(ours.count(), 1);
}

#[test]
fn a_new_user_of_an_old_name_is_not_logged_in_with_the_tickets_of_the_old_one() {
    let setup = setup("pbs-4.2.3");
    // Deleting uses the clock of the system.
    let now = jiff::Timestamp::now().as_second();
    setup.pass(now - setup.access.now());
    let old = ticket(&setup);
    let config = setup.access.config();
    let user: UserId = USER.parse().unwrap();
    user::delete(config, &user, None).unwrap();
    user::create(config, &user, Default::default(), Some(PASSWORD)).unwrap();
    assert!(!is_good(&setup, &old));
}

#[test]
fn a_session_ends_some_time_after_its_log_in_however_often_it_is_renewed() {
    let setup = setup("pbs-4.2.3");
    session_limit::set(setup.access.config(), 2).unwrap();
    let mut held = ticket(&setup);
    let renewed = |old: &str, http_only: bool| {
        let request = LoginRequest {
            username: USER,
            password: Some(old).filter(|_| !http_only),
            cookie: Some(old).filter(|_| http_only),
            http_only,
            ..LoginRequest::default()
        };
        let reply = setup
            .access
            .login(&request)
            .map_err(|error| error.to_string())?;
        let cookie = reply.set_cookie.map(|cookie| {
            let value = cookie.split(';').next().unwrap();
            value.split_once('=').unwrap().1.to_owned()
        });
        Ok::<_, String>(reply.record.ticket.or(cookie).unwrap())
    };
    for hour in 1..=48 {
        setup.pass(3600);
        assert!(is_good(&setup, &held), "{hour}");
        held = renewed(&held, hour % 2 == 0).unwrap();
    }
    assert!(is_good(&setup, &held));
    setup.pass(1);
    assert!(!is_good(&setup, &held));
    for http_only in [false, true] {
        let refused = renewed(&held, http_only).unwrap_err();
        assert!(refused.contains("more than 2 days ago"), "{refused}");
    }
    // That was no failed attempt, a restart does not help, and a new log-in begins a new session.
    let (config, now) = (Arc::clone(setup.access.config()), setup.access.now());
    let again = AccessControl::with_clock(config, move || now).unwrap();
    assert!(again.check_ticket(&held, None, false).is_err());
    assert!(is_good(&setup, &ticket(&setup)));
    session_limit::set(setup.access.config(), 0).unwrap();
    assert!(is_good(&setup, &held));
}

#[test]
fn whoever_was_locked_out_for_a_while_logs_in_again() {
    let setup = setup("pbs-4.2.3");
    // Changes use the clock of the system.
    let now = jiff::Timestamp::now().as_second();
    setup.pass(now - setup.access.now());
    let config = setup.access.config();
    let user: UserId = USER.parse().unwrap();
    let update = |key: &str, value: Value| {
        let parameters = serde_json::Map::from_iter([(key.to_owned(), value)]);
        user::update(config, &user, parameters, &[], None).unwrap();
    };
    for (key, out, back) in [
        ("enable", Value::Bool(false), Value::Bool(true)),
        ("expire", Value::from(now - 1), Value::from(0)),
    ] {
        let held = ticket(&setup);
        assert!(is_good(&setup, &held));
        update("comment", Value::from(key));
        assert!(is_good(&setup, &held), "a comment changes nothing");
        update(key, out);
        assert!(!is_good(&setup, &held), "{key}");
        update(key, back);
        assert!(!is_good(&setup, &held), "{key}");
        assert!(is_good(&setup, &ticket(&setup)), "{key}");
    }
    let held = ticket(&setup);
    session_limit::end(config, &user).unwrap();
    assert!(!is_good(&setup, &held));
}
