//! What `tfa.json` holds for a user, with every key that is not known here kept as it is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Origin, Otpauth, SecondFactorError, decode_bytes};

/// The kinds of second factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FactorKind {
    /// Time-based one-time passwords.
    Totp,
    /// The predecessor of WebAuthn, which no browser supports any more.
    U2f,
    /// Security keys, passkeys.
    Webauthn,
    /// Single-use codes on paper.
    Recovery,
    /// Yubico's own service; no server of this family can check it.
    Yubico,
}

impl FactorKind {
    /// Their names.
    pub const NAMES: &'static [&'static str] = &["totp", "u2f", "webauthn", "recovery", "yubico"];
}

/// A second factor of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Factor<T> {
    /// Random, unique for the user.
    pub id: String,
    /// What the user calls it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// When it was made, seconds since the epoch.
    pub created: i64,
    /// Whether it can be used.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub enable: bool,
    /// The factor itself.
    pub entry: T,
    /// Keys of other programs.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

const fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_yes(value: &bool) -> bool {
    *value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_no(value: &bool) -> bool {
    !*value
}

/// A one-time password generator: an otpauth URI, alone until it was first used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TotpEntry {
    /// Never used.
    Unused(String),
    /// With the step of the last accepted code.
    Used {
        /// The URI.
        totp: String,
        /// The step; codes up to it are refused.
        #[serde(rename = "last-count")]
        last_count: i64,
        /// Keys of other programs.
        #[serde(flatten)]
        other: Map<String, Value>,
    },
}

impl TotpEntry {
    /// The URI. It holds the secret.
    #[must_use]
    pub fn uri(&self) -> &str {
        match self {
            Self::Unused(uri) | Self::Used { totp: uri, .. } => uri,
        }
    }

    /// The generator.
    ///
    /// # Errors
    /// When the URI cannot be understood.
    pub fn generator(&self) -> Result<Otpauth, SecondFactorError> {
        self.uri().parse()
    }

    /// The step of the last accepted code.
    #[must_use]
    pub const fn last_count(&self) -> i64 {
        match self {
            Self::Unused(_) => i64::MIN,
            Self::Used { last_count, .. } => *last_count,
        }
    }

    /// Remembers the step of an accepted code.
    pub fn use_up(&mut self, step: i64) {
        match self {
            Self::Used { last_count, .. } => *last_count = step,
            Self::Unused(uri) => {
                *self = Self::Used {
                    totp: std::mem::take(uri),
                    last_count: step,
                    other: Map::new(),
                };
            }
        }
    }
}

/// A security key or passkey.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebauthnCredential {
    /// The credential id: base64, or a list of numbers.
    pub cred_id: Value,
    /// The public key, see [`super::CoseKey::from_json`].
    pub cred: Value,
    /// The highest signature counter that was seen.
    pub counter: u32,
    /// Whether it may be copied to other devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_eligible: Option<bool>,
    /// Whether it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_state: Option<bool>,
    /// Keys of other programs.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl WebauthnCredential {
    /// The bytes of its id; `None` when the file holds something else there.
    #[must_use]
    pub fn id(&self) -> Option<Vec<u8>> {
        decode_bytes(&self.cred_id)
    }
}

/// Single-use codes, stored as keyed hashes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecoveryCodes {
    /// The key of the hashes: its text is the key.
    pub secret: String,
    /// Hashes as hex text; used ones are gone, their places stay.
    pub entries: Vec<Option<String>>,
    /// When they were made, seconds since the epoch.
    pub created: i64,
    /// Keys of other programs.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl RecoveryCodes {
    /// The places of the codes that were not used yet.
    #[must_use]
    pub fn available(&self) -> Vec<usize> {
        let places = self.entries.iter().enumerate();
        places
            .filter_map(|(place, entry)| entry.as_ref().map(|_| place))
            .collect()
    }
}

/// The second factors of one user.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UserFactors {
    /// One-time password generators.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub totp: Vec<Factor<TotpEntry>>,
    /// U2F keys, kept as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub u2f: Vec<Factor<Value>>,
    /// Security keys and passkeys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webauthn: Vec<Factor<WebauthnCredential>>,
    /// Recovery codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryCodes>,
    /// Yubico keys, kept as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub yubico: Vec<Factor<Value>>,
    /// Whether one-time passwords are locked.
    #[serde(default, skip_serializing_if = "is_no")]
    pub totp_locked: bool,
    /// Until when all factors are locked, seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tfa_locked_until: Option<i64>,
    /// Keys of other programs.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl UserFactors {
    /// Reads what the file holds for a user.
    ///
    /// # Errors
    /// When it is not of the expected form. Then the user must not get in with less than all of it.
    pub fn from_json(value: &Value) -> Result<Self, SecondFactorError> {
        serde_json::from_value(value.clone()).map_err(|_| {
            SecondFactorError::new("entry of a user in tfa.json", "it has an unknown form")
        })
    }

    /// What to write into the file.
    ///
    /// # Errors
    /// Never for what can be built; serde cannot promise it.
    pub fn to_json(&self) -> Result<Value, SecondFactorError> {
        serde_json::to_value(self).map_err(|_| {
            SecondFactorError::new("entry of a user in tfa.json", "it cannot be written")
        })
    }

    /// Whether there is no factor at all, not even a disabled one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.totp.is_empty()
            && self.u2f.is_empty()
            && self.webauthn.is_empty()
            && self.yubico.is_empty()
            && self.recovery.is_none()
    }

    /// Whether all factors are locked now (seconds since the epoch).
    #[must_use]
    pub fn is_locked(&self, now: i64) -> bool {
        self.tfa_locked_until.is_some_and(|until| now < until)
    }
}

/// How browsers are to see this server (`webauthn` in the file).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WebauthnConfig {
    /// The name that is shown.
    pub rp: String,
    /// The address of the web interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The domain that credentials belong to.
    pub id: String,
    /// Whether hosts below that of `origin` are accepted, too; yes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_subdomains: Option<bool>,
    /// Keys of other programs.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl WebauthnConfig {
    /// The origin, where there is one and browsers would let it use `id`.
    ///
    /// # Errors
    /// When there is none, or the two do not go together.
    pub fn usable_origin(&self) -> Result<Origin, SecondFactorError> {
        let wrong = |reason| SecondFactorError::new("WebAuthn configuration", reason);
        let origin: Origin = self
            .origin
            .as_deref()
            .ok_or(wrong("it has no origin"))?
            .parse()?;
        if !origin.may_use(&self.id) {
            return Err(wrong(
                "the host of the origin is neither the relying party id nor below it",
            ));
        }
        Ok(origin)
    }
}
