//! Tokens against cross-site requests: sent beside a ticket with every changing request.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{KeyInit, Mac, SimpleHmac};
use sha3::Sha3_256;

use super::key::CsrfKey;
use super::ticket::LOGIN_AGE;

/// Issues the token of a user at the time `now` (seconds since the epoch).
pub(super) fn issue(key: &CsrfKey, user: &str, now: i64) -> Option<String> {
    let time = format!("{now:08X}");
    let mac = mac(key, &time, user)?;
    Some(format!("{time}:{}", STANDARD_NO_PAD.encode(mac)))
}

fn mac(key: &CsrfKey, time: &str, user: &str) -> Option<[u8; 32]> {
    let mut mac = SimpleHmac::<Sha3_256>::new_from_slice(key.bytes()).ok()?;
    mac.update(format!("{time}:{user}:").as_bytes());
    Some(mac.finalize().into_bytes().into())
}

/// Checks the token of a user.
pub(super) fn verify(key: &CsrfKey, user: &str, token: &str, now: i64) -> Result<(), &'static str> {
    let (time, sum) = token
        .split_once(':')
        .ok_or("invalid csrf token - malformed")?;
    let sum = STANDARD_NO_PAD
        .decode(sum)
        .map_err(|_| "invalid csrf token - malformed")?;
    let current = mac(key, time, user);
    let is_current = current.is_some_and(|mac| verify_slices_are_equal(&mac, &sum).is_ok());
    if !is_current && !is_old_form(key, time, user, &sum) {
        return Err("invalid csrf token - invalid signature.");
    }
    let time = i64::from_str_radix(time, 16).map_err(|_| "invalid csrf token - malformed")?;
    if LOGIN_AGE.contains(&now.saturating_sub(time)) {
        Ok(())
    } else {
        Err("invalid csrf token - expired.")
    }
}

/// Older servers hash the text and the key instead.
fn is_old_form(key: &CsrfKey, time: &str, user: &str, sum: &[u8]) -> bool {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(format!("{time}:{user}:").as_bytes());
    context.update(key.bytes());
    verify_slices_are_equal(context.finish().as_ref(), sum).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::access::key::tests::{fixture_keys, fixture_tickets};

    #[test]
    fn tokens_of_stock_servers_are_accepted_and_made_alike() {
        for version in ["pbs-3.2.4", "pbs-4.2.3"] {
            let keys = fixture_keys(version);
            for (_, token, user) in fixture_tickets(version) {
                let time = i64::from_str_radix(token.split(':').next().unwrap(), 16).unwrap();
                assert_eq!(issue(&keys.csrf, &user, time).unwrap(), token);
                assert_eq!(verify(&keys.csrf, &user, &token, time + 7200), Ok(()));
                assert!(verify(&keys.csrf, &user, &token, time + 7201).is_err());
                assert!(verify(&keys.csrf, &user, &token, time - 301).is_err());
                assert_eq!(
                    verify(&keys.csrf, "x@pbs", &token, time),
                    Err("invalid csrf token - invalid signature.")
                );
            }
        }
    }

    #[test]
    fn the_older_form_is_accepted() {
        let keys = fixture_keys("pbs-3.2.4");
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"3B9ACA00:a@pbs:");
        context.update(keys.csrf.bytes());
        let token = format!("3B9ACA00:{}", STANDARD_NO_PAD.encode(context.finish()));
        assert_eq!(verify(&keys.csrf, "a@pbs", &token, 1_000_000_000), Ok(()));
    }

    #[test]
    fn broken_tokens_are_refused() {
        let keys = fixture_keys("pbs-3.2.4");
        for token in ["", ":", "3B9ACA00", "3B9ACA00:", "3B9ACA00:!!!", "x:eA"] {
            assert!(
                verify(&keys.csrf, "a@pbs", token, 1_000_000_000).is_err(),
                "{token}"
            );
        }
    }
}
