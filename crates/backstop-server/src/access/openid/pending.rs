//! Logins that were sent to a provider and have not come back yet. They live in memory only, and not for long.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use backstop_format::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::OpenIdError;

/// How long a login may take, in seconds.
const LIFETIME: i64 = 600;
/// Most logins that wait.
const MAX_PENDING: usize = 4096;
/// Most logins that wait of one address; the oldest makes room.
const MAX_OF_PEER: usize = 100;
/// Longest state that is looked at.
const MAX_STATE: usize = 1024;

/// A login that waits for its answer. `Debug` hides what is secret.
#[derive(Clone)]
pub struct PendingLogin {
    realm: String,
    redirect_url: String,
    /// What tells this login from others, and from forged answers.
    token: String,
    nonce: String,
    /// Proves to the provider that whoever has the code began the login.
    verifier: Zeroizing<String>,
    created: i64,
}

impl fmt::Debug for PendingLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingLogin")
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

/// What a provider sends back as it was given.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    csrf_token: String,
    realm: String,
}

fn random() -> Result<Zeroizing<String>, OpenIdError> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| OpenIdError::NoRandomness)?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_ref())))
}

impl PendingLogin {
    /// A new login.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub(super) fn new(realm: &str, redirect_url: &str, now: i64) -> Result<Self, OpenIdError> {
        Ok(Self {
            realm: realm.to_owned(),
            redirect_url: redirect_url.to_owned(),
            token: random()?.to_string(),
            nonce: random()?.to_string(),
            verifier: random()?,
            created: now,
        })
    }

    /// The realm.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Where the provider sends the client back to.
    #[must_use]
    pub fn redirect_url(&self) -> &str {
        &self.redirect_url
    }

    pub(super) fn nonce(&self) -> &str {
        &self.nonce
    }

    pub(super) fn verifier(&self) -> &str {
        &self.verifier
    }

    /// The state that the client brings back.
    pub(super) fn state(&self) -> String {
        let state = State {
            csrf_token: self.token.clone(),
            realm: self.realm.clone(),
        };
        serde_json::to_string(&state).unwrap_or_default()
    }

    fn is_old(&self, now: i64) -> bool {
        now < self.created || now - self.created > LIFETIME
    }
}

/// All logins that wait, by the hash of their token: how long a look-up takes tells nothing about the tokens themselves.
#[derive(Debug, Default)]
pub(super) struct PendingLogins {
    by_token: Mutex<HashMap<Digest, (PendingLogin, IpAddr)>>,
}

impl PendingLogins {
    pub(super) fn insert(
        &self,
        login: PendingLogin,
        peer: IpAddr,
        now: i64,
    ) -> Result<(), OpenIdError> {
        let mut logins = self.by_token.lock();
        logins.retain(|_, (login, _)| !login.is_old(now));
        let own = || logins.values().filter(|(_, own)| *own == peer);
        if own().count() >= MAX_OF_PEER {
            let oldest = own().min_by_key(|(login, _)| login.created);
            let oldest = oldest.map(|(login, _)| Digest::of(login.token.as_bytes()));
            oldest.map(|token| logins.remove(&token));
        }
        if logins.len() >= MAX_PENDING {
            return Err(OpenIdError::TooMany);
        }
        logins.insert(Digest::of(login.token.as_bytes()), (login, peer));
        Ok(())
    }

    pub(super) fn take(&self, state: &str, now: i64) -> Result<PendingLogin, OpenIdError> {
        if state.len() > MAX_STATE {
            return Err(OpenIdError::UnknownState);
        }
        let state: State = serde_json::from_str(state).map_err(|_| OpenIdError::UnknownState)?;
        let token = Digest::of(state.csrf_token.as_bytes());
        let found = self.by_token.lock().remove(&token);
        match found {
            Some((login, _)) if login.realm == state.realm && !login.is_old(now) => Ok(login),
            _ => Err(OpenIdError::UnknownState),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn begin(logins: &PendingLogins, realm: &str, now: i64) -> String {
        let login = PendingLogin::new(realm, "https://b", now).unwrap();
        let state = login.state();
        logins.insert(login, PEER, now).unwrap();
        state
    }

    #[test]
    fn a_state_is_good_once_in_its_time_and_for_its_realm() {
        let logins = PendingLogins::default();
        let state = begin(&logins, "oidc1", 1000);
        assert!(logins.take(&state.replace("oidc1", "oidc2"), 1000).is_err());
        assert!(
            logins.take(&state, 1000).is_err(),
            "tried with another realm before"
        );
        let state = begin(&logins, "oidc1", 1000);
        assert_eq!(logins.take(&state, 1600).unwrap().realm(), "oidc1");
        assert!(logins.take(&state, 1600).is_err(), "used already");
        let state = begin(&logins, "oidc1", 1000);
        assert!(logins.take(&state, 1601).is_err(), "too late");
    }

    #[test]
    fn logins_that_wait_are_bounded_and_each_is_unlike_the_others() {
        let logins = PendingLogins::default();
        let first = begin(&logins, "oidc1", 1000);
        let mut last = String::new();
        for _ in 0..MAX_OF_PEER {
            let state = begin(&logins, "oidc1", 1001);
            assert_ne!(state, last);
            last = state;
        }
        assert_eq!(logins.by_token.lock().len(), MAX_OF_PEER);
        assert!(logins.take(&first, 1001).is_err());
        assert!(logins.take(&last, 1001).is_ok());
        for number in 0..u32::try_from(MAX_PENDING).unwrap() {
            let peer = IpAddr::from((number + 1).to_be_bytes());
            let login = PendingLogin::new("oidc1", "https://b", 1002).unwrap();
            let _ = logins.insert(login, peer, 1002);
        }
        assert_eq!(logins.by_token.lock().len(), MAX_PENDING);
        let login = PendingLogin::new("oidc1", "https://b", 1002).unwrap();
        let other = IpAddr::from([9, 9, 9, 9]);
        assert!(matches!(
            logins.insert(login.clone(), other, 1002),
            Err(OpenIdError::TooMany)
        ));
        logins.insert(login, other, 2000).unwrap();
        assert_eq!(logins.by_token.lock().len(), 1);
    }

    proptest! {
        #[test]
        fn no_state_panics_or_is_taken_for_one(state in "\\PC{0,60}") {
            let logins = PendingLogins::default();
            begin(&logins, "oidc1", 1000);
            prop_assert!(logins.take(&state, 1000).is_err());
            prop_assert_eq!(logins.by_token.lock().len(), 1);
        }
    }
}
