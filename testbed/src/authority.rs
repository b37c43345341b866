//! A certificate authority for tests, with one certificate for this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// An authority, its files, and what it issues.
#[derive(Clone)]
pub struct Authority {
    /// Its own certificate.
    pub certificate: PathBuf,
    /// A certificate of it, for `127.0.0.1`, `::1` and `localhost`.
    pub server_certificate: PathBuf,
    /// The key of that certificate.
    pub server_key: PathBuf,
    issuer: Arc<Issuer<'static, KeyPair>>,
    /// What a server shows beside its own certificate.
    chain: String,
}

impl Authority {
    /// Makes an authority in `folder`.
    ///
    /// # Errors
    ///
    /// When it cannot be made or written.
    pub fn create(folder: &Path) -> Result<Self> {
        let key = KeyPair::generate()?;
        let params = of_authority("authority of a test");
        let own = params.self_signed(&key)?.pem();
        let mut authority = Self {
            certificate: folder.join("ca.pem"),
            server_certificate: PathBuf::new(),
            server_key: PathBuf::new(),
            issuer: Arc::new(Issuer::new(params, key)),
            chain: String::new(),
        };
        std::fs::write(&authority.certificate, own)?;
        let names = ["127.0.0.1", "::1", "localhost"];
        let issued = authority.issue(folder, "server", &names)?;
        (authority.server_certificate, authority.server_key) = issued;
        Ok(authority)
    }

    /// An authority that this one vouches for, as public ones have them. What it issues comes with its own certificate.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn intermediate(&self) -> Result<Self> {
        let key = KeyPair::generate()?;
        let params = of_authority("intermediate authority of a test");
        let own = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Self {
            issuer: Arc::new(Issuer::new(params, key)),
            chain: format!("{own}{}", self.chain),
            ..self.clone()
        })
    }

    /// Issues a certificate for these names: the files `NAME.pem` and, with its key, `NAME.key` in `folder`.
    ///
    /// # Errors
    ///
    /// When it cannot be made or written.
    pub fn issue(&self, folder: &Path, name: &str, names: &[&str]) -> Result<(PathBuf, PathBuf)> {
        self.issue_with(folder, name, for_names(names)?)
    }

    /// The same for one that began and ends at these times.
    ///
    /// # Errors
    ///
    /// When it cannot be made or written.
    pub fn issue_for_a_time(
        &self,
        folder: &Path,
        name: &str,
        names: &[&str],
        (from, until): (SystemTime, SystemTime),
    ) -> Result<(PathBuf, PathBuf)> {
        let mut params = for_names(names)?;
        params.not_before = from.into();
        params.not_after = until.into();
        self.issue_with(folder, name, params)
    }

    fn issue_with(
        &self,
        folder: &Path,
        name: &str,
        params: CertificateParams,
    ) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let files = (
            folder.join(format!("{name}.pem")),
            folder.join(format!("{name}.key")),
        );
        std::fs::write(&files.0, format!("{}{}", certificate.pem(), self.chain))?;
        std::fs::write(&files.1, key.serialize_pem())?;
        Ok(files)
    }
}

fn for_names(names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = named("server of a test");
    Ok(params)
}

fn of_authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The name of a certificate. Where it is the issuer's, OpenSSL takes a certificate for one that signed itself.
fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
