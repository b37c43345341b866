//! Second factors of users: one-time passwords, recovery codes, security keys (WebAuthn).
//! Formats: `docs/formats/second-factors.md`.
//!
//! What uses something up (a code, a step of the clock, a signature counter) is on disk before anybody is let in, and an
//! attempt is counted on disk before it is checked: neither a crash nor a full disk gives a second try. What cannot be read or
//! written lets nobody in. Secrets and codes never reach a log, an error or a list.
//!
//! WebAuthn is verified here, with the parsers of [`backstop_types::second_factor`] and AWS-LC, not by `webauthn-rs`: that crate
//! needs OpenSSL, a second crypto stack that a host with Rust and a C compiler alone cannot build, for attestation of makers
//! that nobody asks for here. The rest is the few checks of the standard in [`webauthn`], against the same stored form.

mod codes;
mod entries;
mod failures;
mod login;
mod pending;
mod recovery;
mod settings;
mod signature;
mod state;
mod webauthn;

pub use entries::{NewFactor, delete, get, list, list_user, unlock, update};
pub use settings::{WebauthnChange, change_webauthn, webauthn_config};
pub(super) use state::{of_user, remove};

use std::sync::Arc;

use crate::config::ConfigStore;

use pending::PendingChallenges;

/// The second factors of all users, and the challenges that wait for an answer.
#[derive(Debug)]
pub struct SecondFactors {
    config: Arc<ConfigStore>,
    pending: PendingChallenges,
}

impl SecondFactors {
    pub(super) fn new(config: Arc<ConfigStore>) -> Self {
        Self {
            config,
            pending: PendingChallenges::default(),
        }
    }
}

#[cfg(test)]
mod tests;
