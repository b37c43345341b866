//! Tickets: texts that prove a login, signed with the server's key.

use std::ops::RangeInclusive;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::key::TicketKey;

/// Accepted age of a login ticket in seconds; a little of the future, as clocks differ.
pub(super) const LOGIN_AGE: RangeInclusive<i64> = -300..=7200;

/// Prefix of login tickets.
pub(super) const LOGIN_PREFIX: &str = "PBS";
/// Prefix of tickets for a terminal.
pub(super) const TERMINAL_PREFIX: &str = "PBSTERM";

/// What is escaped inside a ticket. `%` is among it: a name that holds `%41` must not come
/// back as another name. `;`, `,`, `"` and `\` would end or garble a cookie.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b':')
    .add(b'%')
    .add(b';')
    .add(b',')
    .add(b'"')
    .add(b'\\');

/// Why a ticket is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TicketError {
    /// It has not the form of a ticket.
    #[error("invalid ticket - malformed")]
    Malformed,
    /// Its signature is not this server's.
    #[error("invalid ticket - invalid signature")]
    Signature,
    /// It is too old.
    #[error("invalid ticket - expired")]
    Expired,
    /// It is from the future.
    #[error("invalid ticket - not yet valid")]
    NotYetValid,
}

/// Accepted age of a ticket that waits for a second factor, in seconds.
const PENDING_AGE: RangeInclusive<i64> = -60..=600;

/// What the data of a ticket that waits for a second factor begins with; no user id does.
const PENDING_MARK: &str = "!tfa!";

/// Issues a ticket at the time `now` (seconds since the epoch).
pub(super) fn issue(key: &TicketKey, prefix: &str, data: &str, now: i64) -> Option<String> {
    let text = unsigned(prefix, data, now);
    let signature = key.sign(text.as_bytes())?;
    Some(format!("{text}::{}", STANDARD_NO_PAD.encode(signature)))
}

/// Issues a ticket in place of an older one of the same login, which was at the time `login` (seconds since the epoch).
///
/// That time stands behind the signature, which covers it: whoever does not check tickets sees a signature that is a little longer.
pub(super) fn issue_renewed(
    key: &TicketKey,
    prefix: &str,
    data: &str,
    now: i64,
    login: i64,
) -> Option<String> {
    let text = unsigned(prefix, data, now);
    let mut signature = key.sign(format!("{text}{}", since(login)).as_bytes())?;
    signature.extend_from_slice(&login.to_be_bytes());
    Some(format!("{text}::{}", STANDARD_NO_PAD.encode(signature)))
}

/// What the signature of a renewed ticket also covers. It is neither empty, nor the name of a user as in a ticket that waits for
/// a second factor.
fn since(login: i64) -> String {
    format!(":since {login}")
}

/// Issues a ticket that proves a password and holds the challenge for the second factor of `user`.
pub(super) fn issue_pending(
    key: &TicketKey,
    user: &str,
    challenge: &str,
    now: i64,
) -> Option<String> {
    let text = unsigned(LOGIN_PREFIX, &format!("{PENDING_MARK}{challenge}"), now);
    let signature = key.sign(format!("{text}:{user}").as_bytes())?;
    Some(format!("{text}::{}", STANDARD_NO_PAD.encode(signature)))
}

/// Checks a ticket that waits for the second factor of `user`, and gives its challenge.
pub(super) fn verify_pending(
    key: &TicketKey,
    user: &str,
    ticket: &str,
    now: i64,
) -> Result<String, TicketError> {
    let data = verify_with(key, LOGIN_PREFIX, ticket, Some(user), now, &PENDING_AGE)?;
    data.strip_prefix(PENDING_MARK)
        .map(str::to_owned)
        .ok_or(TicketError::Malformed)
}

/// The text of a ticket that is no credential: it only tells user and time.
pub(super) fn info(prefix: &str, data: &str, now: i64) -> String {
    format!("{}::ticketinfo", unsigned(prefix, data, now))
}

fn unsigned(prefix: &str, data: &str, now: i64) -> String {
    format!("{prefix}:{}:{now:08X}", utf8_percent_encode(data, ESCAPED))
}

/// What is in front of the signature, and the signature. Data can be empty, so that two colons alone do not tell.
fn divided(ticket: &str) -> Option<(&str, &str)> {
    let (third, _) = ticket.match_indices(':').nth(2)?;
    let (text, rest) = ticket.split_at_checked(third)?;
    Some((text, rest.strip_prefix("::")?))
}

/// When a ticket says that it was issued (seconds since the epoch). It proves nothing: the ticket has to be checked, too.
pub(super) fn issued_at(ticket: &str) -> Option<i64> {
    let (text, _) = divided(ticket)?;
    i64::from_str_radix(text.split(':').nth(2)?, 16).ok()
}

/// Checks a ticket and gives its data.
pub(super) fn verify(
    key: &TicketKey,
    prefix: &str,
    ticket: &str,
    now: i64,
    age: &RangeInclusive<i64>,
) -> Result<String, TicketError> {
    verify_with(key, prefix, ticket, None, now, age)
}

/// Checks a login ticket, also one that was renewed; gives its data, and the time of the login.
pub(super) fn verify_login(
    key: &TicketKey,
    ticket: &str,
    now: i64,
) -> Result<(String, i64), TicketError> {
    let (text, sealed) = divided(ticket).ok_or(TicketError::Malformed)?;
    let sealed = STANDARD_NO_PAD
        .decode(sealed)
        .map_err(|_| TicketError::Malformed)?;
    let login = match sealed.split_at_checked(key.signature_length()) {
        Some((signature, rest)) if !rest.is_empty() => {
            let login = rest.try_into().map_err(|_| TicketError::Malformed)?;
            Some((signature, i64::from_be_bytes(login)))
        }
        _ => None,
    };
    let Some((signature, login)) = login else {
        let data = verify(key, LOGIN_PREFIX, ticket, now, &LOGIN_AGE)?;
        let issued = issued_at(ticket).ok_or(TicketError::Malformed)?;
        return Ok((data, issued));
    };
    let covered = since(login);
    let data = verify_parts(
        key,
        LOGIN_PREFIX,
        (text, &covered, signature),
        now,
        &LOGIN_AGE,
    )?;
    Ok((data, login))
}

/// Checks a ticket for a terminal, which covers whom, where and at which port it is for.
pub(super) fn verify_terminal(
    key: &TicketKey,
    auth_id: &str,
    path: &str,
    port: u16,
    ticket: &str,
    now: i64,
) -> Result<(), TicketError> {
    let covered = format!("{auth_id}{path}{port}");
    let data = verify_with(
        key,
        TERMINAL_PREFIX,
        ticket,
        Some(&covered),
        now,
        &LOGIN_AGE,
    )?;
    if data.is_empty() {
        Ok(())
    } else {
        Err(TicketError::Malformed)
    }
}

/// The same for a ticket whose signature also covers something that is not in it.
fn verify_with(
    key: &TicketKey,
    prefix: &str,
    ticket: &str,
    covered: Option<&str>,
    now: i64,
    age: &RangeInclusive<i64>,
) -> Result<String, TicketError> {
    let (text, signature) = divided(ticket).ok_or(TicketError::Malformed)?;
    let signature = STANDARD_NO_PAD
        .decode(signature)
        .map_err(|_| TicketError::Malformed)?;
    let covered = covered.map_or_else(String::new, |covered| format!(":{covered}"));
    verify_parts(key, prefix, (text, &covered, &signature), now, age)
}

/// The same for what is in front of the signature, what it covers beside that, and the signature.
fn verify_parts(
    key: &TicketKey,
    prefix: &str,
    (text, covered, signature): (&str, &str, &[u8]),
    now: i64,
    age: &RangeInclusive<i64>,
) -> Result<String, TicketError> {
    let mut parts = text.split(':');
    let (Some(own_prefix), Some(data), Some(time), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TicketError::Malformed);
    };
    if own_prefix != prefix || time.len() < 8 || !time.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(TicketError::Malformed);
    }
    let time = i64::from_str_radix(time, 16).map_err(|_| TicketError::Malformed)?;
    if !key.verify(format!("{text}{covered}").as_bytes(), signature) {
        return Err(TicketError::Signature);
    }
    match now.saturating_sub(time) {
        own if own > *age.end() => return Err(TicketError::Expired),
        own if own < *age.start() => return Err(TicketError::NotYetValid),
        _ => {}
    }
    let decoded = percent_decode_str(data)
        .decode_utf8()
        .map_err(|_| TicketError::Malformed)?;
    // One name, one text: a ticket whose escapes are not needed was made for another name.
    if utf8_percent_encode(&decoded, ESCAPED).to_string() != data {
        return Err(TicketError::Malformed);
    }
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::access::key::tests::{fixture_keys, fixture_tickets};

    #[test]
    fn tickets_of_stock_servers_are_accepted_in_their_time() {
        for version in ["pbs-3.2.4", "pbs-4.2.3"] {
            let keys = fixture_keys(version);
            let tickets = fixture_tickets(version);
            assert!(tickets.len() >= 2, "{version}");
            for (ticket, _, user) in tickets {
                let time = i64::from_str_radix(ticket.split(':').nth(2).unwrap(), 16).unwrap();
                for (now, expected) in [
                    (time, Ok(user.clone())),
                    (time + 7200, Ok(user.clone())),
                    (time + 7201, Err(TicketError::Expired)),
                    (time - 300, Ok(user.clone())),
                    (time - 301, Err(TicketError::NotYetValid)),
                ] {
                    assert_eq!(
                        verify(&keys.ticket, LOGIN_PREFIX, &ticket, now, &LOGIN_AGE),
                        expected
                    );
                }
                // Ed25519 leaves no choice: the same text has the same signature.
                assert_eq!(
                    issue(&keys.ticket, LOGIN_PREFIX, &user, time).unwrap(),
                    ticket
                );
            }
        }
    }

    #[test]
    fn a_renewed_ticket_knows_when_its_login_was_and_nobody_can_change_that() {
        for version in ["pbs-3.2.4", "pbs-4.2.3"] {
            let keys = fixture_keys(version);
            let (login, now) = (1_000_000_000, 1_000_500_000);
            let first = issue(&keys.ticket, LOGIN_PREFIX, "a@pbs", now).unwrap();
            let renewed = issue_renewed(&keys.ticket, LOGIN_PREFIX, "a@pbs", now, login).unwrap();
            let check = |ticket: &str, now| verify_login(&keys.ticket, ticket, now);
            assert_eq!(check(&first, now), Ok(("a@pbs".to_owned(), now)));
            assert_eq!(check(&renewed, now), Ok(("a@pbs".to_owned(), login)));
            assert_eq!(check(&renewed, now + 7201), Err(TicketError::Expired));
            // What comes before the signature is what a stock server writes.
            let (text, sealed) = renewed.split_once("::").unwrap();
            assert_eq!(text, first.split_once("::").unwrap().0);
            let sealed = STANDARD_NO_PAD.decode(sealed).unwrap();
            for place in 0..sealed.len() {
                let mut other = sealed.clone();
                other[place] ^= 1;
                let other = format!("{text}::{}", STANDARD_NO_PAD.encode(&other));
                assert_eq!(check(&other, now), Err(TicketError::Signature), "{place}");
            }
            for length in 0..sealed.len() {
                let cut = format!("{text}::{}", STANDARD_NO_PAD.encode(&sealed[..length]));
                assert!(check(&cut, now).is_err(), "{length}");
            }
            let long = [sealed, vec![0]].concat();
            let long = format!("{text}::{}", STANDARD_NO_PAD.encode(long));
            assert_eq!(check(&long, now), Err(TicketError::Malformed));
            // A ticket that waits for a second factor is none, whatever is behind its signature.
            let pending = issue_pending(&keys.ticket, "since 7", "{}", now).unwrap();
            let (text, signature) = pending.split_once("::").unwrap();
            let mut signature = STANDARD_NO_PAD.decode(signature).unwrap();
            signature.extend_from_slice(&7_i64.to_be_bytes());
            let forged = format!("{text}::{}", STANDARD_NO_PAD.encode(signature));
            let (data, _) = check(&forged, now).unwrap();
            assert!(data.parse::<backstop_types::UserId>().is_err(), "{data}");
        }
    }

    #[test]
    fn a_ticket_for_a_terminal_is_good_for_what_it_was_made_for() {
        let keys = fixture_keys("pbs-4.2.3");
        // As a stock server signs it.
        let text = "PBSTERM::3B9ACA00";
        let signed = format!("{text}:root@pam!x/system5900");
        let signature = keys.ticket.sign(signed.as_bytes()).unwrap();
        let ticket = format!("{text}::{}", STANDARD_NO_PAD.encode(signature));
        let check = |auth_id, path, port, now| {
            verify_terminal(&keys.ticket, auth_id, path, port, &ticket, now)
        };
        assert_eq!(check("root@pam!x", "/system", 5900, 1_000_000_000), Ok(()));
        for (auth_id, path, port, now) in [
            ("root@pam", "/system", 5900, 1_000_000_000),
            ("root@pam!x", "/system/x", 5900, 1_000_000_000),
            ("root@pam!x", "/system", 5901, 1_000_000_000),
            ("root@pam!x", "/system", 5900, 1_000_007_201),
        ] {
            assert!(
                check(auth_id, path, port, now).is_err(),
                "{auth_id} {path} {port}"
            );
        }
        assert!(verify_login(&keys.ticket, &ticket, 1_000_000_000).is_err());
    }

    #[test]
    fn a_changed_ticket_is_refused() {
        let keys = fixture_keys("pbs-4.2.3");
        let ticket = issue(&keys.ticket, LOGIN_PREFIX, "a@pbs", 1_000_000_000).unwrap();
        let check = |ticket: &str| {
            verify(
                &keys.ticket,
                LOGIN_PREFIX,
                ticket,
                1_000_000_000,
                &LOGIN_AGE,
            )
        };
        assert_eq!(check(&ticket), Ok("a@pbs".to_string()));
        assert_eq!(
            check(&ticket.replace("a@pbs", "b@pbs")),
            Err(TicketError::Signature)
        );
        assert_eq!(
            check(&ticket.replace("PBS:", "PBSTERM:")),
            Err(TicketError::Malformed)
        );
        assert!(check(&info(LOGIN_PREFIX, "a@pbs", 1_000_000_000)).is_err());
        assert_eq!(check(&format!("{ticket}=")), Err(TicketError::Malformed));
        let other = fixture_keys("pbs-3.2.4");
        assert_eq!(
            verify(
                &other.ticket,
                LOGIN_PREFIX,
                &ticket,
                1_000_000_000,
                &LOGIN_AGE
            ),
            Err(TicketError::Signature)
        );
        for text in [
            "",
            ":",
            "PBS",
            "PBS:a",
            "PBS:a:1::",
            "PBS:a:00000001:x",
            "PBS:a:00000001:x::y",
            "PBS:a:zzzzzzzz::x",
        ] {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pending_ticket_is_good_for_its_user_only_for_ten_minutes_and_is_no_login() {
        let keys = fixture_keys("pbs-4.2.3");
        let challenge = r#"{"totp":true,"recovery":[0,1]}"#;
        let ticket = issue_pending(&keys.ticket, "a@pbs", challenge, 1_000_000_000).unwrap();
        assert!(ticket.starts_with("PBS:!tfa!"), "{ticket}");
        let check = |user, now| verify_pending(&keys.ticket, user, &ticket, now);
        assert_eq!(check("a@pbs", 1_000_000_600).as_deref(), Ok(challenge));
        assert_eq!(check("b@pbs", 1_000_000_000), Err(TicketError::Signature));
        assert_eq!(check("a@pbs", 1_000_000_601), Err(TicketError::Expired));
        assert_eq!(check("a@pbs", 999_999_939), Err(TicketError::NotYetValid));
        let as_login = |ticket: &str| {
            verify(
                &keys.ticket,
                LOGIN_PREFIX,
                ticket,
                1_000_000_000,
                &LOGIN_AGE,
            )
        };
        assert_eq!(as_login(&ticket), Err(TicketError::Signature));
        let login = issue(&keys.ticket, LOGIN_PREFIX, "a@pbs", 1_000_000_000).unwrap();
        assert!(verify_pending(&keys.ticket, "a@pbs", &login, 1_000_000_000).is_err());
    }

    #[test]
    fn no_name_can_break_a_cookie() {
        let keys = fixture_keys("pbs-4.2.3");
        let name = "a;b,\"c\\é@pbs";
        let ticket = issue(&keys.ticket, LOGIN_PREFIX, name, 1_000_000_000).unwrap();
        assert!(
            ticket
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b";,\"\\".contains(&b))
        );
        let data = verify(
            &keys.ticket,
            LOGIN_PREFIX,
            &ticket,
            1_000_000_000,
            &LOGIN_AGE,
        );
        assert_eq!(data.as_deref(), Ok(name));
    }

    #[test]
    fn a_name_with_an_escape_in_it_stays_that_name() {
        let keys = fixture_keys("pbs-4.2.3");
        let ticket = issue(&keys.ticket, LOGIN_PREFIX, "a%41@pbs", 1_000_000_000).unwrap();
        let data = verify(
            &keys.ticket,
            LOGIN_PREFIX,
            &ticket,
            1_000_000_000,
            &LOGIN_AGE,
        );
        assert_eq!(data.as_deref(), Ok("a%41@pbs"));
        // As a stock server would have signed it.
        let text = "PBS:a%41@pbs:3B9ACA00";
        let stock = format!(
            "{text}::{}",
            STANDARD_NO_PAD.encode(keys.ticket.sign(text.as_bytes()).unwrap())
        );
        assert!(
            verify(
                &keys.ticket,
                LOGIN_PREFIX,
                &stock,
                1_000_000_000,
                &LOGIN_AGE
            )
            .is_err()
        );
    }
}
