//! The next certificate: announced first, used from a stated time on, and signed for by the key of the one before.
//!
//! Everything is in files, so that the server and the command line can do each step, in whichever of them it is asked for. A
//! certificate that cannot be used is never announced. The formats are in `docs/formats/certificate-chain.md`.

mod chain;

use backstop_format::Fingerprint;
use backstop_types::record::{AnnouncedCertificate, CertificateStatus};
use jiff::{Span, SpanRelativeTo, Timestamp};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::config::{ConfigError, ConfigStore, FileClass, JsonFile};
use crate::tls::{self, Certificate, TlsError};
use crate::tls_ciphers::CipherChoice;

pub use chain::published as published_chain;
pub(crate) use chain::{SignError, extend as extend_chain};

/// How long a certificate is announced unless somebody says otherwise: a day, in seconds. Peers mostly come at least daily;
/// those that do not have the continuity chain.
pub const DEFAULT_GRACE: i64 = 24 * 60 * 60;
/// Longest time of announcement, in seconds.
pub const MAX_GRACE: i64 = 90 * 24 * 60 * 60;
/// How long before the old certificate expires the new one is used at the latest, in seconds.
const BEFORE_EXPIRY: i64 = 60 * 60;

const CERTIFICATES: &str = "certificates";
const KEY: &str = "key";
const SWITCH_AT: &str = "switch-at";
const GRACE: &str = "grace";

/// Why the certificate cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The files in use cannot be used, or no certificate can be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Certificates or key that somebody wants to use are none, or do not fit each other.
    #[error("the certificate cannot be used - {0}")]
    Unusable(String),
    /// Files cannot be read or written.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The old key cannot sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The certificate is no longer valid.
    #[error("the certificate {fingerprint} has expired on {end}")]
    Expired {
        /// Which.
        fingerprint: Fingerprint,
        /// When.
        end: String,
    },
    /// Nothing is announced.
    #[error("no certificate is announced")]
    NothingAnnounced,
}

/// A certificate chain with its key, both in PEM.
#[derive(Clone)]
pub struct CertificatePair {
    /// The certificates, the server's own first.
    pub certificates: String,
    /// The private key.
    pub key: Zeroizing<String>,
}

impl std::fmt::Debug for CertificatePair {
    /// Leaves out the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificatePair").finish_non_exhaustive()
    }
}

impl CertificatePair {
    /// A new certificate that signs itself, for the host `node`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn self_signed(node: &str) -> Result<Self, TlsError> {
        tls::self_signed(node)
    }

    /// Certificates with their key, or with the key that is in use.
    ///
    /// # Errors
    /// When they cannot be used together.
    pub fn of(
        config: &ConfigStore,
        certificates: &str,
        key: Option<&str>,
    ) -> Result<Self, ChangeError> {
        let key = match key {
            Some(key) => Zeroizing::new(key.to_owned()),
            None => config.read_key(tls::KEY_FILE)?.unwrap_or_default(),
        };
        let pair = Self {
            certificates: certificates.to_owned(),
            key,
        };
        let certificate = pair.load()?;
        // Without whatever stands between them.
        Ok(Self {
            certificates: certificate.to_pem(),
            ..pair
        })
    }

    fn load(&self) -> Result<Certificate, ChangeError> {
        Certificate::from_pem(
            (self.certificates.as_bytes(), "certificates".as_ref()),
            (self.key.as_bytes(), "key".as_ref()),
            &CipherChoice::default(),
        )
        .map_err(|err| {
            ChangeError::Unusable(match err {
                TlsError::Pem { what, reason, .. } => {
                    format!("there is no usable {what} in PEM form: {reason}")
                }
                TlsError::Config { source, .. } => {
                    format!("certificate and key do not fit each other, or are of a kind that is not supported: {source}")
                }
                other => other.to_string(),
            })
        })
    }
}

/// A certificate that is announced.
#[derive(Debug)]
pub struct Next {
    /// The certificate.
    pub certificate: Certificate,
    /// From when on it is used, in seconds since 1970.
    pub switch_at: i64,
    pair: CertificatePair,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The certificate is in use already.
    InUse(Fingerprint),
    /// It is announced, and used from this time on, in seconds since 1970.
    Announced(Fingerprint, i64),
    /// It has taken the place of the one before. A server that runs uses it within seconds.
    Switched(Fingerprint),
}

/// Reads a time of announcement, such as `36h` or `7d`; seconds.
///
/// # Errors
/// When it is no time span, or not within 0 and 90 days.
pub fn parse_grace(text: &str) -> Result<i64, String> {
    let span: Span = text
        .parse()
        .map_err(|_| "expected a time span such as '36h' or '7d'".to_owned())?;
    let seconds = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| "expected days or smaller units, such as '36h' or '7d'".to_owned())?
        .as_secs();
    if (0..=MAX_GRACE).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("a certificate is announced for at most 90 days".to_owned())
    }
}

/// How long certificates are announced here unless somebody says otherwise, in seconds.
///
/// # Errors
/// When the settings cannot be read.
pub fn grace(config: &ConfigStore) -> Result<i64, ConfigError> {
    let settings = config.json(JsonFile::Certificate)?;
    let grace = settings.get(GRACE).and_then(Value::as_i64);
    Ok(grace.unwrap_or(DEFAULT_GRACE).clamp(0, MAX_GRACE))
}

/// Sets it; `None` is the default again.
///
/// # Errors
/// When the settings cannot be written.
pub fn set_grace(config: &ConfigStore, seconds: Option<i64>) -> Result<(), ConfigError> {
    config.edit_json(JsonFile::Certificate, |settings| {
        match seconds {
            Some(seconds) => settings.insert(GRACE.to_owned(), seconds.into()),
            None => settings.remove(GRACE),
        };
    })
}

/// The certificate that is announced, if one is.
///
/// # Errors
/// When it cannot be read or used.
pub fn next(config: &ConfigStore) -> Result<Option<Next>, ChangeError> {
    stored(&config.json(JsonFile::NextCertificate)?)
}

/// What peers are told of the certificate in use, `current`, and of the one that comes next.
///
/// # Errors
/// When that cannot be read.
pub fn status(
    config: &ConfigStore,
    current: &Fingerprint,
) -> Result<CertificateStatus, ChangeError> {
    let next = next(config)?.map(|next| AnnouncedCertificate {
        fingerprint: *next.certificate.fingerprint(),
        switch_at: next.switch_at,
    });
    Ok(CertificateStatus {
        fingerprint: *current,
        number: published_chain(config, current)?.number(),
        next: next.filter(|next| next.fingerprint != *current),
        grace: None,
    })
}

/// Announces a certificate for `grace` seconds, or for as long as the settings say, and switches to it at once if that is no time at
/// all. It takes the place of one that was announced before.
///
/// # Errors
/// When it cannot be used, has expired, or files cannot be written.
pub fn announce(
    config: &ConfigStore,
    pair: &CertificatePair,
    grace: Option<i64>,
) -> Result<Outcome, ChangeError> {
    let now = Timestamp::now().as_second();
    let new = pair.load()?;
    let fingerprint = *new.fingerprint();
    if new.not_after() < now {
        let end = Timestamp::from_second(new.not_after()).unwrap_or_default();
        return Err(ChangeError::Expired {
            fingerprint,
            end: end.to_string(),
        });
    }
    let old = in_use(config);
    if old
        .as_ref()
        .is_ok_and(|old| old.fingerprint() == new.fingerprint())
    {
        return Ok(Outcome::InUse(fingerprint));
    }
    let grace = match (grace, &old) {
        // Nobody can have pinned a certificate that there is not, or that cannot be shown.
        (_, Err(_)) => 0,
        (Some(grace), Ok(_)) => grace,
        (None, Ok(_)) => self::grace(config)?,
    };
    let due = old.map_or(now, |old| due(now, grace, &old, &new));
    let switch_at = config.edit_json(JsonFile::NextCertificate, |stored_next| {
        let earlier = match stored(stored_next) {
            // Whoever announces the same once more does not put it off.
            Ok(Some(next)) if *next.certificate.fingerprint() == fingerprint => next.switch_at,
            _ => i64::MAX,
        };
        let switch_at = due.min(earlier);
        *stored_next = Map::from_iter([
            (CERTIFICATES.to_owned(), pair.certificates.clone().into()),
            (KEY.to_owned(), pair.key.as_str().into()),
            (SWITCH_AT.to_owned(), switch_at.into()),
        ]);
        switch_at
    })?;
    Ok(match switch_if_due(config)? {
        Some(fingerprint) => Outcome::Switched(fingerprint),
        None => Outcome::Announced(fingerprint, switch_at),
    })
}

/// When a certificate is used that is announced at `now`: not so late that the old one expires, not so early that the new one is
/// not valid.
fn due(now: i64, grace: i64, old: &Certificate, new: &Certificate) -> i64 {
    if grace == 0 {
        return now;
    }
    let latest = old.not_after().saturating_sub(BEFORE_EXPIRY).max(now);
    (now + grace).min(latest).max(new.not_before())
}

/// Withdraws the certificate that is announced; says which it was.
///
/// # Errors
/// When none is announced, or files cannot be written.
pub fn withdraw(config: &ConfigStore) -> Result<Fingerprint, ChangeError> {
    config.edit_json(JsonFile::NextCertificate, |stored_next| {
        let next = stored(stored_next);
        // Also one that cannot be used.
        stored_next.clear();
        let next = next?.ok_or(ChangeError::NothingAnnounced)?;
        Ok(*next.certificate.fingerprint())
    })?
}

/// Switches to the certificate that is announced, whatever its time.
///
/// # Errors
/// When none is announced, or files cannot be written.
pub fn switch_now(config: &ConfigStore) -> Result<Fingerprint, ChangeError> {
    switch(config, i64::MAX)?.ok_or(ChangeError::NothingAnnounced)
}

/// Switches to the certificate that is announced if its time has come; says which it is. Also completes a switch that was cut off.
///
/// # Errors
/// When files cannot be read or written; it can be tried again.
pub fn switch_if_due(config: &ConfigStore) -> Result<Option<Fingerprint>, ChangeError> {
    if config.json_stamp(JsonFile::NextCertificate)?.is_none() {
        return Ok(None);
    }
    switch(config, Timestamp::now().as_second())
}

fn switch(config: &ConfigStore, now: i64) -> Result<Option<Fingerprint>, ChangeError> {
    if config.json(JsonFile::NextCertificate)?.is_empty() {
        return Ok(None);
    }
    config.edit_json(JsonFile::NextCertificate, |stored_next| {
        let Some(next) = stored(stored_next)?.filter(|next| next.switch_at <= now) else {
            return Ok(None);
        };
        install(config, &next)?;
        stored_next.clear();
        Ok(Some(*next.certificate.fingerprint()))
    })?
}

/// Puts a certificate in place of the one in use, whose key signs for it first. As long as it is announced, this can be done again.
fn install(config: &ConfigStore, next: &Next) -> Result<(), ChangeError> {
    match in_use(config) {
        Ok(old) => extend_chain(config, &old, next.certificate.fingerprint())?,
        Err(err) => tracing::warn!(
            %err,
            "the certificate in use cannot be read, so that its key cannot sign for the next one"
        ),
    }
    config.write_key(tls::KEY_FILE, &next.pair.key, FileClass::Config)?;
    config.write_key(
        tls::CERTIFICATE_FILE,
        &next.pair.certificates,
        FileClass::Config,
    )?;
    Ok(())
}

/// The certificate in the files.
fn in_use(config: &ConfigStore) -> Result<Certificate, TlsError> {
    Certificate::load(
        &config.path(tls::CERTIFICATE_FILE),
        &config.path(tls::KEY_FILE),
        &CipherChoice::default(),
    )
}

fn stored(map: &Map<String, Value>) -> Result<Option<Next>, ChangeError> {
    let text = |key| map.get(key).and_then(Value::as_str);
    let (Some(certificates), Some(key)) = (text(CERTIFICATES), text(KEY)) else {
        return Ok(None);
    };
    let pair = CertificatePair {
        certificates: certificates.to_owned(),
        key: Zeroizing::new(key.to_owned()),
    };
    let switch_at = map.get(SWITCH_AT).and_then(Value::as_i64);
    Ok(Some(Next {
        certificate: pair.load()?,
        switch_at: switch_at.unwrap_or_default(),
        pair,
    }))
}

#[cfg(test)]
mod tests;
