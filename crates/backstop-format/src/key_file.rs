//! Key files: the client's encryption key as JSON, bare or protected by a passphrase. See `docs/formats/keys.md`.
//!
//! Key bytes and passphrases are wiped after use and never appear in errors.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use aws_lc_rs::pbkdf2;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::crypt::{self, CryptKey};
use crate::digest::Fingerprint;
use crate::error::{FormatError, Result};
use crate::gcm;
use crate::scrypt;

/// Shortest passphrase that is accepted, in bytes.
pub const MIN_PASSPHRASE_LENGTH: usize = 5;
/// Largest key file that is read, in bytes.
pub const MAX_KEY_FILE_SIZE: usize = 64 << 10;

const SALT_LENGTH: usize = 32;
const SCRYPT_N: u64 = 65536;
const SCRYPT_R: u64 = 8;
const SCRYPT_P: u64 = 1;
const PBKDF2_ITERATIONS: u32 = 65535;

/// How a key file is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KdfKind {
    /// By nothing.
    None,
    /// By a passphrase through scrypt.
    #[default]
    Scrypt,
    /// By a passphrase through PBKDF2 with HMAC-SHA256.
    Pbkdf2,
}

/// The key derivation of a key file, with its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kdf {
    /// scrypt.
    Scrypt {
        /// Cost; a power of two.
        n: u64,
        /// Block size.
        r: u64,
        /// Parallelism.
        p: u64,
        /// Random.
        #[serde(with = "base64_bytes")]
        salt: Vec<u8>,
    },
    /// PBKDF2 with HMAC-SHA256.
    #[serde(rename = "PBKDF2")]
    Pbkdf2 {
        /// Iterations.
        iter: u64,
        /// Random.
        #[serde(with = "base64_bytes")]
        salt: Vec<u8>,
    },
}

impl Kdf {
    fn new(kind: KdfKind) -> Result<Option<Self>> {
        let mut salt = vec![0; SALT_LENGTH];
        crypt::random(&mut salt)?;
        Ok(match kind {
            KdfKind::None => None,
            KdfKind::Scrypt => Some(Kdf::Scrypt {
                n: SCRYPT_N,
                r: SCRYPT_R,
                p: SCRYPT_P,
                salt,
            }),
            KdfKind::Pbkdf2 => Some(Kdf::Pbkdf2 {
                iter: PBKDF2_ITERATIONS.into(),
                salt,
            }),
        })
    }

    fn derive(&self, passphrase: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        match self {
            Kdf::Scrypt { n, r, p, salt } => scrypt::derive(passphrase, salt, *n, *r, *p),
            Kdf::Pbkdf2 { iter, salt } => {
                let iterations = u32::try_from(*iter)
                    .ok()
                    .and_then(NonZeroU32::new)
                    .ok_or_else(|| FormatError::Key {
                        reason: format!("{iter} PBKDF2 iterations are not possible"),
                    })?;
                let mut key = Zeroizing::new([0; 32]);
                pbkdf2::derive(
                    pbkdf2::PBKDF2_HMAC_SHA256,
                    iterations,
                    salt,
                    passphrase,
                    key.as_mut_slice(),
                );
                Ok(key)
            }
        }
    }
}

/// A moment as key files hold it: whole seconds with the offset of the place where it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTime {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Offset of local time from UTC, in seconds.
    pub offset: i32,
}

impl KeyTime {
    /// The present, in the local time zone.
    pub fn now() -> Self {
        let now = jiff::Zoned::now();
        KeyTime {
            seconds: now.timestamp().as_second(),
            offset: now.offset().seconds(),
        }
    }
}

impl fmt::Display for KeyTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = jiff::tz::Offset::from_seconds(self.offset).map_err(|_| fmt::Error)?;
        let time = jiff::Timestamp::from_second(self.seconds).map_err(|_| fmt::Error)?;
        let minutes = self.offset / 60;
        let sign = if minutes < 0 { '-' } else { '+' };
        let (hours, minutes) = (minutes.abs() / 60, minutes.abs() % 60);
        write!(
            f,
            "{}{sign}{hours:02}:{minutes:02}",
            offset.to_datetime(time).strftime("%Y-%m-%dT%H:%M:%S")
        )
    }
}

impl FromStr for KeyTime {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |reason: String| FormatError::InvalidJson {
            what: "key file",
            reason,
        };
        let time: jiff::Timestamp = text
            .parse()
            .map_err(|error: jiff::Error| refused(error.to_string()))?;
        let offset = jiff::fmt::temporal::Pieces::parse(text)
            .ok()
            .and_then(|pieces| pieces.to_numeric_offset())
            .map_or(0, |offset| offset.seconds());
        let time = KeyTime {
            seconds: time.as_second(),
            offset: offset - offset % 60,
        };
        // Local time may lie outside the years that can be written.
        let writable =
            jiff::Timestamp::from_second(time.seconds.saturating_add(time.offset.into())).is_ok();
        if writable {
            Ok(time)
        } else {
            Err(refused(format!("'{text}' is out of range")))
        }
    }
}

impl Serialize for KeyTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A key file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFile {
    /// How the key is protected; `None`: not at all.
    pub kdf: Option<Kdf>,
    /// When the key was made.
    pub created: KeyTime,
    /// When the passphrase was last changed.
    pub modified: KeyTime,
    #[serde(with = "base64_bytes")]
    data: Vec<u8>,
    /// What the key is known by; old files do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// A hint at the passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile")
            .field("kdf", &self.kdf)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.data);
    }
}

impl KeyFile {
    /// Writes `key` without protection.
    pub fn unprotected(key: &CryptKey, created: KeyTime, modified: KeyTime) -> Self {
        KeyFile {
            kdf: None,
            created,
            modified,
            data: key.key_bytes().to_vec(),
            fingerprint: Some(key.fingerprint()),
            hint: None,
        }
    }

    /// Writes `key` protected by a passphrase; with [`KdfKind::None`], the passphrase is not looked at.
    ///
    /// # Errors
    /// The passphrase is shorter than [`MIN_PASSPHRASE_LENGTH`], or the crypto library fails.
    pub fn protected(
        key: &CryptKey,
        kind: KdfKind,
        passphrase: &[u8],
        created: KeyTime,
        modified: KeyTime,
        hint: Option<String>,
    ) -> Result<Self> {
        let mut file = Self::unprotected(key, created, modified);
        file.hint = hint;
        if let Some(kdf) = Kdf::new(kind)? {
            let mut iv = [0; gcm::IV_LENGTH];
            crypt::random(&mut iv)?;
            file.data = wrap(key, &kdf, &iv, passphrase)?;
            file.kdf = Some(kdf);
        }
        Ok(file)
    }

    /// Opens the key, asking for the passphrase only when one is needed.
    ///
    /// # Errors
    /// What the closure returns; the passphrase is too short or wrong; the file's fingerprint is not that of the key; the data
    /// is too short.
    pub fn open<F>(&self, passphrase: F) -> Result<CryptKey>
    where
        F: FnOnce() -> Result<Zeroizing<Vec<u8>>>,
    {
        let bytes = match &self.kdf {
            None => Zeroizing::new(self.data.clone()),
            Some(kdf) => unwrap(&self.data, kdf, &passphrase()?)?,
        };
        let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| FormatError::Key {
            reason: format!("key file holds {} bytes of key, not 32", bytes.len()),
        })?;
        let key = CryptKey::new(key);
        match self.fingerprint {
            Some(stated) if stated != key.fingerprint() => Err(FormatError::Key {
                reason: format!(
                    "key file states fingerprint {stated}, but its key has {}",
                    key.fingerprint()
                ),
            }),
            _ => Ok(key),
        }
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// Not JSON, a member is missing, or more than [`MAX_KEY_FILE_SIZE`] bytes.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        if text.len() > MAX_KEY_FILE_SIZE {
            return Err(FormatError::TooLarge {
                what: "key file",
                limit: MAX_KEY_FILE_SIZE as u64,
            });
        }
        let file: KeyFile = serde_json::from_slice(text).map_err(|error| invalid(&error))?;
        if file.data.len() < 32 {
            return Err(FormatError::Key {
                reason: format!("key file holds only {} bytes of data", file.data.len()),
            });
        }
        Ok(file)
    }

    /// The file's compact text.
    ///
    /// # Errors
    /// None that can be foreseen: the members are all plain.
    pub fn to_json(&self) -> Result<Zeroizing<Vec<u8>>> {
        serde_json::to_vec(self)
            .map(Zeroizing::new)
            .map_err(|error| invalid(&error))
    }

    /// The indented text of paper copies.
    ///
    /// # Errors
    /// As [`to_json`](Self::to_json).
    pub fn to_json_pretty(&self) -> Result<Zeroizing<Vec<u8>>> {
        serde_json::to_vec_pretty(self)
            .map(Zeroizing::new)
            .map_err(|error| invalid(&error))
    }
}

fn check_passphrase(passphrase: &[u8]) -> Result<()> {
    if passphrase.len() < MIN_PASSPHRASE_LENGTH {
        return Err(FormatError::Key {
            reason: format!(
                "passphrase is too short, at least {MIN_PASSPHRASE_LENGTH} bytes are needed"
            ),
        });
    }
    Ok(())
}

/// IV, tag and the encrypted key.
fn wrap(key: &CryptKey, kdf: &Kdf, iv: &[u8; 16], passphrase: &[u8]) -> Result<Vec<u8>> {
    check_passphrase(passphrase)?;
    let mut cipher = [0; 32];
    let tag = gcm::seal(&*kdf.derive(passphrase)?, iv, key.key_bytes(), &mut cipher)?;
    Ok([&iv[..], &tag, &cipher].concat())
}

fn unwrap(data: &[u8], kdf: &Kdf, passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    check_passphrase(passphrase)?;
    let parts = data.split_first_chunk::<16>().and_then(|(iv, rest)| {
        let (tag, cipher) = rest.split_first_chunk::<16>()?;
        Some((iv, tag, cipher))
    });
    let Some((iv, tag, cipher)) = parts else {
        return Err(FormatError::Key {
            reason: "key file holds too little data".into(),
        });
    };
    let mut key = Zeroizing::new(vec![0; cipher.len()]);
    gcm::open(&*kdf.derive(passphrase)?, iv, tag, cipher, &mut key).map_err(
        |error| match error {
            FormatError::Decrypt => FormatError::Key {
                reason: "the passphrase is wrong, or the file was changed".into(),
            },
            other => other,
        },
    )?;
    Ok(key)
}

fn invalid(error: &serde_json::Error) -> FormatError {
    FormatError::InvalidJson {
        what: "key file",
        reason: error.to_string(),
    }
}

mod base64_bytes {
    use super::{BASE64, Deserialize, Deserializer, Engine, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        BASE64
            .decode(text.as_bytes())
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const TIME: KeyTime = KeyTime {
        seconds: 1_704_063_600,
        offset: 3600,
    };

    fn counting_key() -> CryptKey {
        CryptKey::new(std::array::from_fn(|i| u8::try_from(i).unwrap()))
    }

    fn ask(text: &str) -> impl FnOnce() -> Result<Zeroizing<Vec<u8>>> {
        let text = text.as_bytes().to_vec();
        move || Ok(Zeroizing::new(text))
    }

    #[test]
    fn published_protected_keys_are_made_and_opened() {
        let iv = std::array::from_fn(|i| 0xa0 + u8::try_from(i).unwrap());
        let scrypt = Kdf::Scrypt {
            n: 65536,
            r: 8,
            p: 1,
            salt: vec![0x11; 32],
        };
        let pbkdf2 = Kdf::Pbkdf2 {
            iter: 65535,
            salt: vec![0x11; 32],
        };
        for (kdf, derived, data) in [
            (
                scrypt,
                "12feef539e1c08a9a092daa0970d082250e8f7000cfccec7956fd0c126792a33",
                "oKGio6SlpqeoqaqrrK2ur/RK09Fe+XLQlP7Qt3faRTG6LRgdPXB8rt/5nqpHO8D3GNg9JhHaY+Pte2NVgVMWuQ==",
            ),
            (
                pbkdf2,
                "a9e77d30a48fd26a1d2293558c0b60e41af70b4127629665ac4621489580cd15",
                "oKGio6SlpqeoqaqrrK2ur3mEDl7aPAz6SOQTP1nONV28Y6Yp8h5+NYyYiZGSdIZAbDLcQZdc6dfeoWeEjOCHFQ==",
            ),
        ] {
            assert_eq!(
                crate::Digest(*kdf.derive(b"correct horse").unwrap()).to_string(),
                derived
            );
            let wrapped = wrap(&counting_key(), &kdf, &iv, b"correct horse").unwrap();
            assert_eq!(BASE64.encode(&wrapped), data);
            assert_eq!(
                *unwrap(&wrapped, &kdf, b"correct horse").unwrap(),
                *counting_key().key_bytes()
            );
            assert!(unwrap(&wrapped, &kdf, b"correct horsf").is_err());
        }
    }

    #[test]
    fn what_is_protected_is_opened_with_the_passphrase_only() {
        let key = counting_key();
        for kind in [KdfKind::Scrypt, KdfKind::Pbkdf2] {
            let file = KeyFile::protected(&key, kind, b"secret", TIME, TIME, Some("it is".into()))
                .unwrap();
            let file = KeyFile::from_json(&file.to_json().unwrap()).unwrap();
            assert_eq!(
                file.open(ask("secret")).unwrap().key_bytes(),
                key.key_bytes()
            );
            assert!(file.open(ask("secreu")).is_err());
            assert!(file.open(ask("four")).is_err());
            assert_eq!(file.hint.as_deref(), Some("it is"));
        }
        assert!(KeyFile::protected(&key, KdfKind::Scrypt, b"four", TIME, TIME, None).is_err());
    }

    #[test]
    fn no_passphrase_is_asked_for_a_bare_key() {
        let file =
            KeyFile::protected(&counting_key(), KdfKind::None, b"", TIME, TIME, None).unwrap();
        assert_eq!(file, KeyFile::unprotected(&counting_key(), TIME, TIME));
        assert!(file.open(|| panic!("asked")).is_ok());
    }

    #[test]
    fn a_fingerprint_that_is_not_the_keys_is_refused() {
        let mut file = KeyFile::unprotected(&counting_key(), TIME, TIME);
        file.fingerprint = Some(CryptKey::new([9; 32]).fingerprint());
        assert!(file.open(ask("")).is_err());
        file.fingerprint = None;
        assert!(file.open(ask("")).is_ok());
    }

    #[test]
    fn absurd_derivations_are_refused() {
        let salt = vec![1; 32];
        for kdf in [
            Kdf::Scrypt {
                n: 1 << 40,
                r: 8,
                p: 1,
                salt: salt.clone(),
            },
            Kdf::Scrypt {
                n: 1000,
                r: 8,
                p: 1,
                salt: salt.clone(),
            },
            Kdf::Scrypt {
                n: 0,
                r: 0,
                p: 0,
                salt: salt.clone(),
            },
            Kdf::Scrypt {
                n: 2,
                r: u64::MAX,
                p: u64::MAX,
                salt: salt.clone(),
            },
            Kdf::Scrypt {
                n: 2,
                r: 1,
                p: 1 << 20,
                salt: salt.clone(),
            },
            Kdf::Pbkdf2 {
                iter: 0,
                salt: salt.clone(),
            },
            Kdf::Pbkdf2 {
                iter: 1 << 32,
                salt,
            },
        ] {
            assert!(kdf.derive(b"secret").is_err(), "{kdf:?}");
        }
    }

    #[test]
    fn times_keep_their_offset() {
        for text in [
            "2024-01-01T00:00:00+01:00",
            "2024-01-01T00:00:00-09:30",
            "2024-06-30T23:59:59+00:00",
        ] {
            assert_eq!(text.parse::<KeyTime>().unwrap().to_string(), text);
        }
        assert_eq!(
            "2024-01-01T00:00:00+01:00".parse::<KeyTime>().unwrap(),
            TIME
        );
        assert_eq!(
            "2024-01-01T00:00:00Z"
                .parse::<KeyTime>()
                .unwrap()
                .to_string(),
            "2024-01-01T00:00:00+00:00"
        );
        assert_eq!(
            "2024-01-01T00:00:00.5Z"
                .parse::<KeyTime>()
                .unwrap()
                .to_string(),
            "2024-01-01T00:00:00+00:00"
        );
        assert!("2024-01-01".parse::<KeyTime>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text: String, zone: bool) {
            let _ = KeyFile::from_json(text.as_bytes());
            if let Ok(time) = text.parse::<KeyTime>() {
                let _ = time.to_string();
            }
            let _ = format!("9999-12-31T23:59:59{}", if zone { "-25:00" } else { "-12:00" }).parse::<KeyTime>();
        }

        #[test]
        fn times_are_read_as_written(seconds in -62_135_500_000i64..253_402_100_000, minutes in -720i32..840) {
            let time = KeyTime { seconds, offset: minutes * 60 };
            prop_assert_eq!(time.to_string().parse::<KeyTime>().unwrap(), time);
        }
    }
}
