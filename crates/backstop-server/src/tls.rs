//! The server's certificate: created on the first start, loaded, and loaded again when its files change. How it is changed is
//! in `certificate_change`.
//!
//! A certificate that cannot be loaded never replaces one that works; private keys never reach a log.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use backstop_format::{Digest, Fingerprint};
use base64::Engine as _;
use zeroize::Zeroizing;

use crate::certificate_change::CertificatePair;
use crate::roots::Roots;
use crate::tls_ciphers::CipherChoice;

/// The file of the certificates, in the configuration directory.
pub(crate) const CERTIFICATE_FILE: &str = "proxy.pem";
/// The file of their key.
pub(crate) const KEY_FILE: &str = "proxy.key";

/// Why the certificate could not be loaded or created.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("unable to {action} {path:?} - {source}")]
    File {
        /// What was attempted: `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file holds no certificate, or no private key, in PEM form.
    #[error(
        "no usable {what} in {path:?} - {reason}; put a PEM file there, or remove proxy.pem and proxy.key to get new ones"
    )]
    Pem {
        /// `certificate` or `private key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// Certificate and key do not belong together, or the key type is not supported.
    #[error("unable to use the certificate and key in {path:?} - {source}")]
    Config {
        /// The certificate file.
        path: PathBuf,
        /// The TLS library's reason.
        source: rustls::Error,
    },
    /// A new certificate could not be made.
    #[error("unable to create a self-signed certificate - {0}")]
    Create(#[from] rcgen::Error),
}

/// One loaded certificate.
#[derive(Debug)]
pub struct Certificate {
    config: Arc<ServerConfig>,
    signing_key: Arc<dyn SigningKey>,
    chain: Vec<CertificateDer<'static>>,
    chain_pem: Vec<u8>,
    leaf: Vec<u8>,
    fingerprint: Fingerprint,
    is_self_signed: bool,
    /// Begin and end of its validity, in seconds since 1970.
    validity: (i64, i64),
}

impl Certificate {
    /// Whether it was issued by itself, so that no browser knows it.
    pub fn is_self_signed(&self) -> bool {
        self.is_self_signed
    }

    /// Settings for accepting TLS connections with this certificate.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// SHA-256 of the leaf certificate, which clients pin.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The leaf certificate, DER.
    pub fn leaf_der(&self) -> &[u8] {
        &self.leaf
    }

    /// Signs with its key.
    pub(crate) fn signing_key(&self) -> &dyn SigningKey {
        &*self.signing_key
    }

    /// From when on it is valid, in seconds since 1970.
    pub fn not_before(&self) -> i64 {
        self.validity.0
    }

    /// Until when it is valid, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.validity.1
    }

    /// The whole chain, PEM, without what else was in the file.
    pub fn to_pem(&self) -> String {
        self.chain.iter().map(|der| pem_of(der)).collect()
    }

    /// The whole chain as it is in the file, PEM.
    pub fn chain_pem(&self) -> &[u8] {
        &self.chain_pem
    }
}

/// What tells whether the files changed: modification time and length of both.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// The certificate in use, and the files it comes from.
#[derive(Debug)]
pub struct CertificateStore {
    chain_path: PathBuf,
    key_path: PathBuf,
    current: ArcSwap<Certificate>,
    stamp: Mutex<Stamp>,
    ciphers: Mutex<CipherChoice>,
}

impl CertificateStore {
    /// Loads `proxy.pem` and `proxy.key`, or creates both when neither exists.
    ///
    /// # Errors
    /// Files that cannot be read, parsed or written; one of the two missing.
    pub fn open(roots: &Roots, node: &str) -> Result<Self, TlsError> {
        let chain_path = roots.etc().join(CERTIFICATE_FILE);
        let key_path = roots.etc().join(KEY_FILE);
        if !chain_path.exists() && !key_path.exists() {
            create_self_signed(&chain_path, &key_path, node)?;
        }
        let stamp = stamp_of(&chain_path, &key_path);
        let ciphers = CipherChoice::default();
        let certificate = Certificate::load(&chain_path, &key_path, &ciphers)?;
        Ok(Self {
            chain_path,
            key_path,
            current: ArcSwap::from_pointee(certificate),
            stamp: Mutex::new(stamp),
            ciphers: Mutex::new(ciphers),
        })
    }

    /// The certificate for new connections.
    pub fn current(&self) -> Arc<Certificate> {
        self.current.load_full()
    }

    /// Loads the files again when they changed; says whether a new certificate is in use. `before_use` is given the one before and
    /// the new one, if they differ. Blocking.
    ///
    /// # Errors
    /// When the changed files cannot be used; the previous certificate then stays in use, and the
    /// error is reported once per change.
    pub fn reload_if_changed(
        &self,
        before_use: impl FnOnce(&Certificate, &Certificate),
    ) -> Result<bool, TlsError> {
        let stamp = stamp_of(&self.chain_path, &self.key_path);
        let mut known = self.stamp.lock();
        if *known == stamp {
            return Ok(false);
        }
        *known = stamp;
        let certificate =
            Certificate::load(&self.chain_path, &self.key_path, &self.ciphers.lock())?;
        let before = self.current.load();
        let changed = certificate.fingerprint != before.fingerprint;
        if changed {
            before_use(&before, &certificate);
        }
        self.current.store(Arc::new(certificate));
        Ok(changed)
    }

    /// Offers these ciphers to new connections; says whether they are others than before. Blocking.
    ///
    /// # Errors
    /// When the certificate cannot be loaded; everything then stays as it is.
    pub(crate) fn use_ciphers(&self, choice: CipherChoice) -> Result<bool, TlsError> {
        let mut ciphers = self.ciphers.lock();
        if *ciphers == choice {
            return Ok(false);
        }
        let certificate = Certificate::load(&self.chain_path, &self.key_path, &choice)?;
        self.current.store(Arc::new(certificate));
        *ciphers = choice;
        Ok(true)
    }
}

fn stamp_of(chain: &Path, key: &Path) -> Stamp {
    [chain, key].map(|path| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

impl Certificate {
    /// Reads a certificate and its key from files.
    ///
    /// # Errors
    /// When they cannot be read or used.
    pub(crate) fn load(
        chain_path: &Path,
        key_path: &Path,
        ciphers: &CipherChoice,
    ) -> Result<Self, TlsError> {
        let (chain, key) = (read(chain_path)?, Zeroizing::new(read(key_path)?));
        Self::from_pem((&chain, chain_path), (&key, key_path), ciphers)
    }

    /// Makes use of a certificate chain and its key, both PEM, each with the path that errors name.
    ///
    /// # Errors
    /// When they cannot be used.
    pub(crate) fn from_pem(
        (chain_pem, chain_path): (&[u8], &Path),
        (key_pem, key_path): (&[u8], &Path),
        ciphers: &CipherChoice,
    ) -> Result<Self, TlsError> {
        let pem = |what, path: &Path, reason: String| TlsError::Pem {
            what,
            path: path.to_owned(),
            reason,
        };
        let chain = CertificateDer::pem_slice_iter(chain_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|err| pem("certificate", chain_path, err.to_string()))?;
        let leaf = chain
            .first()
            .map(|certificate| certificate.to_vec())
            .ok_or_else(|| pem("certificate", chain_path, "the file holds none".into()))?;
        let key = PrivateKeyDer::from_pem_slice(key_pem)
            .map_err(|err| pem("private key", key_path, err.to_string()))?;
        let provider = CryptoProvider {
            cipher_suites: ciphers.suites.clone(),
            ..aws_lc_rs::default_provider()
        };
        let unusable = |source| TlsError::Config {
            path: chain_path.to_owned(),
            source,
        };
        let signing_key = provider
            .key_provider
            .load_private_key(key.clone_key())
            .map_err(unusable)?;
        // TLS 1.2 and 1.3.
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                let builder = builder.with_no_client_auth();
                builder.with_single_cert(chain.clone(), key)
            })
            .map_err(unusable)?;
        let fingerprint = Fingerprint(Digest::of(&leaf).0);
        let (is_self_signed, validity) = match X509Certificate::from_der(&leaf) {
            Ok((_, parsed)) => {
                let validity = parsed.validity();
                let (begin, end) = (validity.not_before, validity.not_after);
                (
                    parsed.issuer().as_raw() == parsed.subject().as_raw(),
                    (begin.timestamp(), end.timestamp()),
                )
            }
            Err(_) => (true, (0, i64::MAX)),
        };
        Ok(Self {
            is_self_signed,
            config: Arc::new(config),
            signing_key,
            chain,
            chain_pem: chain_pem.to_vec(),
            leaf,
            fingerprint,
            validity,
        })
    }
}

/// A certificate as PEM.
pub(crate) fn pem_of(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (position, character) in text.chars().enumerate() {
        if position > 0 && position % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

/// A year far enough away that expiry never breaks a pinned certificate; stock uses about a thousand years, too.
const EXPIRY_YEAR: i32 = 3000;

fn create_self_signed(chain_path: &Path, key_path: &Path, node: &str) -> Result<(), TlsError> {
    let pair = self_signed(node)?;
    write_new(key_path, pair.key.as_bytes())?;
    write_new(chain_path, pair.certificates.as_bytes())
}

/// A new certificate that signs itself, with its key.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn self_signed(node: &str) -> Result<CertificatePair, TlsError> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    if node != "localhost" {
        names.push(node.to_owned());
    }
    let mut params = rcgen::CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "Backstop");
    params.distinguished_name.push(
        rcgen::DnType::OrganizationalUnitName,
        uuid::Uuid::new_v4().to_string(),
    );
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, node);
    params.not_after = rcgen::date_time_ymd(EXPIRY_YEAR, 1, 1);
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = rcgen::KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(CertificatePair {
        certificates: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), TlsError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(path)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .map_err(|source| TlsError::File {
            action: "write",
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn fresh() -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        roots.create_directories().unwrap();
        (dir, roots)
    }

    #[test]
    fn the_first_start_creates_a_certificate_that_the_second_one_keeps() {
        let (_dir, roots) = fresh();
        let first = CertificateStore::open(&roots, "elsa").unwrap().current();
        let second = CertificateStore::open(&roots, "elsa").unwrap().current();
        assert_eq!(first.fingerprint(), second.fingerprint());
        let mode = fs::metadata(roots.etc().join("proxy.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn a_changed_certificate_is_used_without_a_restart() {
        let (_dir, roots) = fresh();
        let store = CertificateStore::open(&roots, "elsa").unwrap();
        let before = store.current();
        assert!(!store.reload_if_changed(|_, _| ()).unwrap());
        for name in ["proxy.pem", "proxy.key"] {
            fs::remove_file(roots.etc().join(name)).unwrap();
        }
        create_self_signed(
            &roots.etc().join("proxy.pem"),
            &roots.etc().join("proxy.key"),
            "anna.example",
        )
        .unwrap();
        assert!(store.reload_if_changed(|_, _| ()).unwrap());
        assert_ne!(store.current().fingerprint(), before.fingerprint());
    }

    #[test]
    fn a_broken_certificate_does_not_replace_a_working_one() {
        let (_dir, roots) = fresh();
        let store = CertificateStore::open(&roots, "elsa").unwrap();
        let before = store.current();
        fs::write(roots.etc().join("proxy.pem"), b"nothing of use").unwrap();
        assert!(store.reload_if_changed(|_, _| ()).is_err());
        assert!(
            !store.reload_if_changed(|_, _| ()).unwrap(),
            "the same fault is reported once"
        );
        assert_eq!(store.current().fingerprint(), before.fingerprint());
    }

    #[test]
    fn a_stock_certificate_and_key_are_used_as_they_are() {
        let (_dir, roots) = fresh();
        let stock = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/pbs-4.2.3/etc-proxmox-backup"
        ));
        fs::copy(stock.join("proxy.pem"), roots.etc().join("proxy.pem")).unwrap();
        let wrapped: String = fs::read_to_string(stock.join("proxy.key.b64"))
            .unwrap()
            .split_whitespace()
            .collect();
        let key = base64::engine::general_purpose::STANDARD
            .decode(wrapped)
            .unwrap();
        fs::write(roots.etc().join("proxy.key"), key).unwrap();
        let store = CertificateStore::open(&roots, "vm").unwrap();
        assert_eq!(
            store.current().fingerprint().to_string(),
            "d8:10:6d:8a:b8:42:73:2c:e3:dd:dd:3d:7d:56:75:68:26:f3:6d:54:8e:3b:65:fb:d6:4b:a5:7b:d5:10:54:5e"
        );
    }
}
