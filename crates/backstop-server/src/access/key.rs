//! The server's own keys: one signs tickets, one makes tokens against cross-site requests.
//! They are made on the first start and never leave the configuration directory.

use std::fmt;

use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
    UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use zeroize::Zeroizing;

use crate::config::{ConfigError, ConfigStore, FileClass};

pub(super) const PRIVATE_FILE: &str = "authkey.key";
const PUBLIC_FILE: &str = "authkey.pub";
const CSRF_FILE: &str = "csrf.key";
/// Taken while the keys are made, so that two servers starting at once make one set.
const LOCK_FILE: &str = ".user.lck";

/// What precedes the 32 bytes of an Ed25519 public key in its DER form.
const ED25519_PUBLIC_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// They cannot be read or written.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file holds no key that this server understands.
    #[error(
        "{path:?} holds no usable key ({expected}); restore it, or remove it to have a new one made, which ends all logins"
    )]
    Unusable {
        /// The file.
        path: std::path::PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The system gives no random numbers.
    #[error("unable to make a key - the system gives no random numbers")]
    NoRandomness,
}

/// The key that signs tickets.
pub(super) enum TicketKey {
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl TicketKey {
    /// Makes a new key; gives its private and its public file.
    fn generate() -> Result<(Zeroizing<String>, String), KeyError> {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let document =
            Ed25519KeyPair::generate_pkcs8v1(&random).map_err(|_| KeyError::NoRandomness)?;
        let key =
            Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|_| KeyError::NoRandomness)?;
        let private = Zeroizing::new(to_pem("PRIVATE KEY", document.as_ref()));
        let mut public = ED25519_PUBLIC_PREFIX.to_vec();
        public.extend_from_slice(key.public_key().as_ref());
        Ok((private, to_pem("PUBLIC KEY", &public)))
    }

    /// Reads the private file: Ed25519 in PKCS#8, or RSA in PKCS#1 as older servers wrote it.
    fn from_pem(text: &str) -> Option<Self> {
        let (label, der) = from_pem(text)?;
        match label.as_str() {
            "PRIVATE KEY" => Ed25519KeyPair::from_pkcs8(&der)
                .map(Self::Ed25519)
                .or_else(|_| RsaKeyPair::from_pkcs8(&der).map(Self::Rsa))
                .ok(),
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(&der).map(Self::Rsa).ok(),
            _ => None,
        }
    }

    /// How many bytes a signature has.
    pub(super) fn signature_length(&self) -> usize {
        match self {
            Self::Ed25519(_) => 64,
            Self::Rsa(key) => key.public_modulus_len(),
        }
    }

    /// Signs a text; `None` when the system gives no random numbers.
    pub(super) fn sign(&self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Ed25519(key) => Some(key.sign(text).as_ref().to_vec()),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let random = aws_lc_rs::rand::SystemRandom::new();
                key.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature)
                    .ok()?;
                Some(signature)
            }
        }
    }

    /// Whether this key signed the text.
    pub(super) fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key.public_key())
                .verify(text, signature)
                .is_ok(),
            Self::Rsa(key) => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key())
                .verify(text, signature)
                .is_ok(),
        }
    }
}

/// The secret of tokens against cross-site requests.
pub(super) struct CsrfKey(Zeroizing<Vec<u8>>);

impl CsrfKey {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn generate() -> Result<Zeroizing<String>, KeyError> {
        let mut secret = Zeroizing::new([0u8; 64]);
        aws_lc_rs::rand::fill(secret.as_mut()).map_err(|_| KeyError::NoRandomness)?;
        Ok(Zeroizing::new(STANDARD_NO_PAD.encode(secret.as_ref())))
    }

    fn from_text(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(
            STANDARD_NO_PAD
                .decode(text.trim().trim_end_matches('='))
                .ok()?,
        );
        (bytes.len() >= 16).then_some(Self(bytes))
    }
}

/// All keys of the server.
pub struct AuthKeys {
    pub(super) ticket: TicketKey,
    pub(super) csrf: CsrfKey,
}

impl fmt::Debug for AuthKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthKeys(…)")
    }
}

impl AuthKeys {
    /// Reads the keys, and makes those that are not there.
    ///
    /// # Errors
    /// When a file cannot be read or written, or holds something else.
    pub fn load_or_create(config: &ConfigStore) -> Result<Self, KeyError> {
        let _lock = config.lock_named(LOCK_FILE)?;
        let unusable = |name: &str, expected| KeyError::Unusable {
            path: config.path(name),
            expected,
        };
        let private = match config.read_key(PRIVATE_FILE)? {
            Some(private) => private,
            None => {
                let (private, public) = TicketKey::generate()?;
                config.write_key(PUBLIC_FILE, &public, FileClass::Config)?;
                config.write_key(PRIVATE_FILE, &private, FileClass::Secret)?;
                private
            }
        };
        let ticket = TicketKey::from_pem(&private)
            .ok_or_else(|| unusable(PRIVATE_FILE, "an Ed25519 or RSA private key in PEM form"))?;
        let secret = match config.read_key(CSRF_FILE)? {
            Some(secret) => secret,
            None => {
                let secret = CsrfKey::generate()?;
                config.write_key(CSRF_FILE, &secret, FileClass::Config)?;
                secret
            }
        };
        let csrf = CsrfKey::from_text(&secret)
            .ok_or_else(|| unusable(CSRF_FILE, "at least 16 random bytes in base64"))?;
        Ok(Self { ticket, csrf })
    }
}

fn to_pem(label: &str, der: &[u8]) -> String {
    let base64 = Zeroizing::new(STANDARD.encode(der));
    let mut out = format!("-----BEGIN {label}-----\n");
    for (position, character) in base64.chars().enumerate() {
        if position > 0 && position % 64 == 0 {
            out.push('\n');
        }
        out.push(character);
    }
    out.push_str(&format!("\n-----END {label}-----\n"));
    out
}

/// Label and content of the first block.
fn from_pem(text: &str) -> Option<(String, Zeroizing<Vec<u8>>)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body = Zeroizing::new(body.split_whitespace().collect::<String>());
    let der = STANDARD.decode(body.as_bytes()).ok()?;
    Some((label.to_string(), Zeroizing::new(der)))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn fixtures(version: &str) -> String {
        format!(
            "{}/../../tests/fixtures/{version}",
            env!("CARGO_MANIFEST_DIR")
        )
    }

    /// The keys of a reference server.
    pub(in crate::access) fn fixture_keys(version: &str) -> AuthKeys {
        let etc = format!("{}/etc-proxmox-backup", fixtures(version));
        let wrapped = std::fs::read_to_string(format!("{etc}/authkey.key.b64")).unwrap();
        let wrapped: String = wrapped.split_whitespace().collect();
        let pem = String::from_utf8(STANDARD.decode(wrapped).unwrap()).unwrap();
        let csrf = std::fs::read_to_string(format!("{etc}/csrf.key")).unwrap();
        AuthKeys {
            ticket: TicketKey::from_pem(&pem).unwrap(),
            csrf: CsrfKey::from_text(&csrf).unwrap(),
        }
    }

    /// Tickets that a reference server gave: ticket, token against cross-site requests, user.
    pub(in crate::access) fn fixture_tickets(version: &str) -> Vec<(String, String, String)> {
        let mut tickets = Vec::new();
        for entry in std::fs::read_dir(format!("{}/rest", fixtures(version))).unwrap() {
            let path = entry.unwrap().path();
            if !path.to_string_lossy().contains("-ticket-") {
                continue;
            }
            let capture: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
            let Some(body) = capture["body"].as_str() else {
                continue;
            };
            let Ok(body) = serde_json::from_str::<serde_json::Value>(body) else {
                continue;
            };
            let text = |key: &str| body["data"][key].as_str().map(str::to_string);
            if let (Some(ticket), Some(token), Some(user)) = (
                text("ticket"),
                text("CSRFPreventionToken"),
                text("username"),
            ) {
                tickets.push((ticket, token, user));
            }
        }
        tickets
    }

    #[test]
    fn keys_are_made_once_with_their_modes() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigStore::new(dir.path());
        let first = AuthKeys::load_or_create(&config).unwrap();
        let second = AuthKeys::load_or_create(&config).unwrap();
        let signature = first.ticket.sign(b"text").unwrap();
        assert!(second.ticket.verify(b"text", &signature));
        assert!(!second.ticket.verify(b"texu", &signature));
        assert_eq!(first.csrf.bytes(), second.csrf.bytes());
        assert_eq!(first.csrf.bytes().len(), 64);
        for (name, mode) in [
            (PRIVATE_FILE, 0o600),
            (PUBLIC_FILE, 0o640),
            (CSRF_FILE, 0o640),
        ] {
            let metadata = std::fs::metadata(dir.path().join(name)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
        }
        // The same shape as stock servers write: sizes of their files.
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert_eq!(
            (size(PRIVATE_FILE), size(PUBLIC_FILE), size(CSRF_FILE)),
            (119, 113, 86)
        );
    }

    #[test]
    fn the_public_file_matches_the_private_one() {
        let etc = format!("{}/etc-proxmox-backup", fixtures("pbs-4.2.3"));
        let public = std::fs::read_to_string(format!("{etc}/authkey.pub")).unwrap();
        let (_, der) = from_pem(&public).unwrap();
        let TicketKey::Ed25519(key) = fixture_keys("pbs-4.2.3").ticket else {
            panic!("not Ed25519")
        };
        assert_eq!(der[..12], ED25519_PUBLIC_PREFIX);
        assert_eq!(&der[12..], key.public_key().as_ref());
    }

    #[test]
    fn an_rsa_key_of_an_older_server_signs_and_verifies() {
        // Any RSA key in PKCS#1 form will do; the TLS key of the reference server is one.
        let wrapped = std::fs::read_to_string(format!(
            "{}/etc-proxmox-backup/proxy.key.b64",
            fixtures("pbs-3.2.4")
        ))
        .unwrap();
        let wrapped: String = wrapped.split_whitespace().collect();
        let pem = String::from_utf8(STANDARD.decode(wrapped).unwrap()).unwrap();
        let key = TicketKey::from_pem(&pem).unwrap();
        assert!(matches!(key, TicketKey::Rsa(_)));
        let signature = key.sign(b"text").unwrap();
        assert!(key.verify(b"text", &signature) && !key.verify(b"other", &signature));
    }

    #[test]
    fn a_damaged_key_is_reported_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigStore::new(dir.path());
        for content in [
            "",
            "garbage",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            std::fs::write(dir.path().join(PRIVATE_FILE), content).unwrap();
            let error = AuthKeys::load_or_create(&config).unwrap_err().to_string();
            assert!(error.contains(PRIVATE_FILE), "{error}");
            assert_eq!(
                std::fs::read_to_string(dir.path().join(PRIVATE_FILE)).unwrap(),
                content
            );
        }
    }
}
