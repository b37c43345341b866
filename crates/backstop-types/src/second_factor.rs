//! Second factors: the file `tfa.json`, one-time password URIs, and what browsers and authenticators send (WebAuthn).
//! Formats: `docs/formats/second-factors.md`.
//!
//! Everything here parses and writes; nothing verifies a signature or a code. What is parsed was not believed yet.

mod attestation;
mod authenticator_data;
mod client_data;
mod cose;
mod credential;
mod file;
mod otpauth;

pub use attestation::{AttestationFormat, AttestationObject};
pub use authenticator_data::{AttestedCredential, AuthenticatorData};
pub use client_data::{ClientData, Origin};
pub use cose::{CoseKey, EllipticCurve};
pub use credential::{AssertionResponse, RegistrationResponse};
pub use file::{
    Factor, FactorKind, RecoveryCodes, TotpEntry, UserFactors, WebauthnConfig, WebauthnCredential,
};
pub use otpauth::{OtpAlgorithm, Otpauth};

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use serde_json::Value;

/// What is wrong with text or bytes from outside. Never repeats them: they can be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} - {reason}")]
pub struct SecondFactorError {
    /// Which thing.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl SecondFactorError {
    const fn new(what: &'static str, reason: &'static str) -> Self {
        Self { what, reason }
    }
}

/// Bytes as JSON holds them: base64 for URLs, without padding.
#[must_use]
pub fn encode_bytes(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Bytes from base64 of either alphabet, with or without padding.
#[must_use]
pub fn decode_text(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
    URL_SAFE
        .decode(text)
        .or_else(|_| STANDARD.decode(text))
        .ok()
}

/// Bytes from JSON: base64 as in [`decode_text`], or a list of numbers as older servers wrote.
#[must_use]
pub fn decode_bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => decode_text(text),
        Value::Array(numbers) => numbers
            .iter()
            .map(|number| number.as_u64().and_then(|number| u8::try_from(number).ok()))
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
