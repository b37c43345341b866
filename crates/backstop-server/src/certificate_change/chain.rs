//! The continuity chain of this server: what its keys signed, and where that is kept.

use backstop_format::continuity::{Chain, Link, MAX_VALIDITY};
use backstop_format::{Fingerprint, FormatError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls::SignatureScheme;
use serde_json::{Map, Value};

use crate::config::{ConfigError, ConfigStore, JsonFile};
use crate::tls::Certificate;

const CHAIN: &str = "chain";

/// What this server signs with, first what is shorter.
const SCHEMES: [SignatureScheme; 7] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// Why the old key did not sign for the new certificate.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key is of a kind that no signature is defined for.
    #[error("the key of the certificate in use cannot sign for the next certificate")]
    Scheme,
    /// The crypto library refuses.
    #[error("the key of the certificate in use did not sign for the next certificate - {0}")]
    Key(#[from] rustls::Error),
    /// It does not fit into a chain.
    #[error(transparent)]
    Chain(#[from] FormatError),
}

/// The chain that leads to the certificate in use; without a link when nothing does.
///
/// # Errors
/// When it cannot be read.
pub fn published(config: &ConfigStore, in_use: &Fingerprint) -> Result<Chain, ConfigError> {
    Ok(stored(&config.json(JsonFile::Certificate)?).leading_to(in_use))
}

/// Lets the key of `old` sign for the certificate `next`, unless it did so before.
///
/// # Errors
/// When it cannot sign, or files cannot be written.
pub(crate) fn extend(
    config: &ConfigStore,
    old: &Certificate,
    next: &Fingerprint,
) -> Result<(), super::ChangeError> {
    let now = Timestamp::now().as_second();
    config.edit_json(JsonFile::Certificate, |settings| {
        let whole = stored(settings);
        let is_signed = whole
            .links()
            .last()
            .is_some_and(|link| link.from() == *old.fingerprint() && link.next == *next);
        if is_signed || old.fingerprint() == next {
            return Ok(());
        }
        // What was signed but never put to use is forgotten, but for its number.
        let mut chain = whole.leading_to(old.fingerprint());
        chain.forget_expired(now);
        // The time keeps numbers growing should the file be lost.
        let number = u64::try_from(now).unwrap_or(0).max(whole.number() + 1);
        chain.push(sign(old, next, number, now)?)?;
        settings.insert(CHAIN.to_owned(), STANDARD.encode(chain.to_bytes()).into());
        Ok::<_, SignError>(())
    })??;
    Ok(())
}

fn sign(old: &Certificate, next: &Fingerprint, number: u64, now: i64) -> Result<Link, SignError> {
    let signer = old.signing_key().choose_scheme(&SCHEMES);
    let signer = signer.ok_or(SignError::Scheme)?;
    let mut link = Link {
        number,
        issued: now,
        expires: now.saturating_add(MAX_VALIDITY),
        certificate: old.leaf_der().to_vec(),
        next: *next,
        scheme: signer.scheme().into(),
        signature: Vec::new(),
    };
    link.signature = signer.sign(&link.statement())?;
    Ok(link)
}

/// The chain in the settings. One that cannot be read is of no use to anybody, and begins anew.
fn stored(settings: &Map<String, Value>) -> Chain {
    let Some(text) = settings.get(CHAIN).and_then(Value::as_str) else {
        return Chain::new();
    };
    let bytes = STANDARD.decode(text).map_err(|err| err.to_string());
    let chain = bytes.and_then(|bytes| Chain::from_bytes(&bytes).map_err(|err| err.to_string()));
    chain.unwrap_or_else(|err| {
        tracing::error!(%err, "the continuity chain of the certificates cannot be read");
        Chain::new()
    })
}
