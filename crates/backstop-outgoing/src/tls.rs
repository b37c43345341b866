//! TLS to servers that this server asks: directories and OpenID providers.
//!
//! A certificate that is not to be verified still has to prove that its key is the peer's.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, RootCertStore};

use crate::certificate_verifier::{self, CertificateJudge, Shown, authorities, system_roots};

/// Whom to trust.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// The system's certificate authorities.
    System,
    /// With a file: its certificates beside the system's authorities. With a directory: the certificates in it instead.
    Path(&'a Path),
    /// Whoever answers.
    Anybody,
}

/// Why no TLS connection can be prepared.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The name cannot stand in a certificate.
    #[error("'{0}' is neither a host name nor an IP address")]
    Name(String),
    /// Certificates cannot be read.
    #[error("unable to read certificates from {path:?} - {reason}")]
    Certificates {
        /// The file or directory.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// There is nobody to trust.
    #[error("no certificate authorities are known - {0}")]
    NoAuthorities(String),
    /// The TLS library refuses.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Settings for connections to `host`, a name or an IP address (also in brackets). Reads files.
///
/// # Errors
/// When the name or the certificates cannot be used.
pub fn client_config(host: &str, trust: Trust<'_>) -> Result<ClientConfig, TrustError> {
    let judge = Judge::new(host, trust)?;
    let mut config = certificate_verifier::client_config(Arc::new(judge))?;
    // Addresses are not named in a handshake.
    config.enable_sni = without_brackets(host).parse::<IpAddr>().is_err();
    Ok(config)
}

/// An IPv6 address without its brackets; every other host as it is.
pub fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

fn from_path(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TrustError> {
    let failed = |path: &Path, reason: String| TrustError::Certificates {
        path: path.to_owned(),
        reason,
    };
    let read = |path: &Path| -> Result<Vec<CertificateDer<'static>>, TrustError> {
        let text = std::fs::read(path).map_err(|err| failed(path, err.to_string()))?;
        CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|err| failed(path, err.to_string()))
    };
    let mut known = Vec::new();
    let mut roots = if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|err| failed(path, err.to_string()))?;
        for entry in entries {
            let entry = entry.map_err(|err| failed(path, err.to_string()))?.path();
            if !entry.is_dir() {
                known.extend(read(&entry)?);
            }
        }
        RootCertStore::empty()
    } else {
        known = read(path)?;
        system_roots().clone()
    };
    if known.is_empty() {
        return Err(failed(path, "there is no PEM certificate".to_owned()));
    }
    roots.add_parsable_certificates(known.iter().cloned());
    Ok((roots, known))
}

/// Judges one server's certificate.
#[derive(Debug)]
pub struct Judge {
    /// `None` trusts whoever answers.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates that the administrator named; one of a server itself is as good as one of its authority.
    known: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
}

impl Judge {
    /// A judge of the certificate of `host`, a name or an IP address (also in brackets). Reads files.
    ///
    /// # Errors
    /// When the name or the certificates cannot be used.
    pub fn new(host: &str, trust: Trust<'_>) -> Result<Self, TrustError> {
        let name = ServerName::try_from(without_brackets(host).to_owned())
            .map_err(|_| TrustError::Name(host.escape_debug().to_string()))?;
        let (roots, known) = match trust {
            Trust::Anybody => (None, Vec::new()),
            Trust::System => (Some(system_roots().clone()), Vec::new()),
            Trust::Path(path) => {
                let (roots, known) = from_path(path)?;
                (Some(roots), known)
            }
        };
        let authorities = roots.map(authorities).transpose();
        Ok(Self {
            authorities: authorities.map_err(|err| TrustError::NoAuthorities(err.to_string()))?,
            known,
            name,
        })
    }

    /// Whether the server shows a certificate that the administrator named, in its time and under its name.
    fn is_known(&self, shown: &CertificateDer<'_>, now: UnixTime) -> Result<bool, rustls::Error> {
        if !self
            .known
            .iter()
            .any(|known| known.as_ref() == shown.as_ref())
        {
            return Ok(false);
        }
        verify_server_name(&ParsedCertificate::try_from(shown)?, &self.name)?;
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(shown.as_ref()) else {
            return Ok(false);
        };
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = parsed.validity();
        Ok(validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp())
    }
}

impl CertificateJudge for Judge {
    fn judge(&self, shown: Shown<'_>) -> Result<(), rustls::Error> {
        match &self.authorities {
            None => Ok(()),
            Some(_) if self.is_known(shown.certificate, shown.now)? => Ok(()),
            Some(authorities) => shown.is_vouched_for(authorities, Some(&self.name)),
        }
    }
}
