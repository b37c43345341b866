//! A certificate authority for tests, with one certificate for this machine.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// An authority's files.
#[derive(Debug, Clone)]
pub struct Authority {
    /// Its own certificate.
    pub certificate: PathBuf,
    /// A certificate of it, for `127.0.0.1`, `::1` and `localhost`.
    pub server_certificate: PathBuf,
    /// The key of that certificate.
    pub server_key: PathBuf,
}

impl Authority {
    /// Makes an authority in `folder`.
    ///
    /// # Errors
    ///
    /// When it cannot be made or written.
    pub fn create(folder: &Path) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let own = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let server_key = KeyPair::generate()?;
        let names = ["127.0.0.1", "::1", "localhost"].map(str::to_owned);
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named("server of a test");
        let server = params.signed_by(&server_key, &issuer)?;
        let authority = Self {
            certificate: folder.join("ca.pem"),
            server_certificate: folder.join("server.pem"),
            server_key: folder.join("server.key"),
        };
        std::fs::write(&authority.certificate, own)?;
        std::fs::write(&authority.server_certificate, server.pem())?;
        std::fs::write(&authority.server_key, server_key.serialize_pem())?;
        Ok(authority)
    }
}

/// The name of a certificate. Where it is the issuer's, OpenSSL takes a certificate for one that signed itself.
fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
