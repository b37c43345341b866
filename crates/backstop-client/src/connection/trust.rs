//! Whether a server's certificate is trusted: by the system's authorities, by a pinned fingerprint,
//! or because a human says so.
//!
//! A pin replaces the name check. Never trusts silently on first use.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use backstop_format::{Digest, Fingerprint};
use backstop_outgoing::tls::Judge;
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::certificate_verifier::{CertificateJudge, Shown, authorities, system_roots};
use super::continuity::Unproven;

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// Subject name.
    pub subject: String,
    /// Host names and addresses that it is for.
    pub names: Vec<String>,
    /// Issuer name.
    pub issuer: String,
    /// Start of the validity.
    pub not_before: String,
    /// End of the validity.
    pub not_after: String,
    /// Both, in seconds since 1970; `None`: the certificate cannot be read.
    pub validity: Option<(i64, i64)>,
}

impl CertificateSummary {
    /// What the certificate `der` says.
    pub fn new(der: &[u8]) -> Self {
        let fingerprint = Fingerprint(Digest::of(der).0);
        match x509_parser::parse_x509_certificate(der) {
            Ok((_, parsed)) => Self {
                fingerprint,
                subject: parsed.subject().to_string(),
                names: names(&parsed),
                issuer: parsed.issuer().to_string(),
                not_before: parsed.validity().not_before.to_string(),
                not_after: parsed.validity().not_after.to_string(),
                validity: Some((
                    parsed.validity().not_before.timestamp(),
                    parsed.validity().not_after.timestamp(),
                )),
            },
            Err(_) => Self {
                fingerprint,
                subject: "unreadable".to_owned(),
                names: Vec::new(),
                issuer: "unreadable".to_owned(),
                not_before: "unknown".to_owned(),
                not_after: "unknown".to_owned(),
                validity: None,
            },
        }
    }
}

impl std::fmt::Display for CertificateSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "  presented:   {}\n  subject:     {}\n  names:       {}\n  issuer:      {}\n  valid:       {} to {}",
            self.fingerprint,
            self.subject,
            self.names.join(", "),
            self.issuer,
            self.not_before,
            self.not_after,
        )
    }
}

/// The host names and addresses of a certificate, as text.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names
        .into_iter()
        .flat_map(|names| &names.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.escape_default().to_string()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let any = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                any.ok().map(|address| address.to_string())
            }
            _ => None,
        })
        .collect()
}

/// A certificate that was presented and not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UntrustedCertificate {
    /// `host:port` of the server.
    pub server: String,
    /// What the server presented.
    pub presented: CertificateSummary,
    /// The fingerprint that was expected, if any was.
    pub expected: Option<Fingerprint>,
    /// Why the system's authorities do not vouch for it.
    pub authority_error: String,
    /// Why the pinned key does not vouch for it, where it was asked.
    pub unproven: Option<Unproven>,
    /// What accepts it for the future, if that is not `PBS_FINGERPRINT`: a command that lacks only the fingerprint.
    pub acceptance: Option<String>,
}

impl std::fmt::Display for UntrustedCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("certificate validation failed - ")?;
        match &self.expected {
            Some(expected) => write!(
                f,
                "certificate fingerprint of '{}' does not match expected fingerprint!\n  expected:    {expected}\n",
                self.server
            )?,
            None => write!(
                f,
                "Certificate fingerprint was not confirmed.\n  server:      {}\n",
                self.server
            )?,
        }
        write!(
            f,
            "{}\n  authorities: {}\n",
            self.presented, self.authority_error
        )?;
        if let Some(unproven) = &self.unproven {
            writeln!(f, "  pinned key:  {unproven}")?;
        }
        match &self.acceptance {
            Some(command) => write!(
                f,
                "Compare the presented fingerprint with the one that 'proxmox-backup-manager cert info' shows on the other \
                 server. If they are equal, accept it with:\n  {command} {}",
                self.presented.fingerprint
            ),
            None => f.write_str(
                "If this certificate is the right one, set PBS_FINGERPRINT to the presented fingerprint, \
                 or confirm it once in an interactive run.",
            ),
        }
    }
}

/// What the judge saw during a handshake.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub presented: CertificateSummary,
    pub authority_error: String,
}

/// What a handshake fails with when the certificate is refused.
const REFUSED: &str = "certificate not trusted";

/// Judges handshakes by authorities and pin, and remembers why it refused last.
#[derive(Debug)]
pub(crate) struct PinOrAuthorities {
    use_authorities: bool,
    /// Who judges in place of the system's authorities.
    judge: Option<Arc<Judge>>,
    pin: Option<Fingerprint>,
    refusal: Mutex<Option<Refusal>>,
}

impl PinOrAuthorities {
    pub fn new(pin: Option<Fingerprint>, use_authorities: bool, judge: Option<Arc<Judge>>) -> Self {
        Self {
            use_authorities,
            judge,
            pin,
            refusal: Mutex::new(None),
        }
    }

    /// Why this judge has refused, if that is what a handshake failed with.
    pub fn refusal_behind(&self, error: &std::io::Error) -> Option<Refusal> {
        let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        let is_refusal = matches!(inner, rustls::Error::General(text) if text == REFUSED);
        is_refusal.then(|| self.refusal.lock().clone()).flatten()
    }
}

/// The system's certificate authorities; `None` when there are none.
fn system_authorities() -> Option<Arc<WebPkiServerVerifier>> {
    static AUTHORITIES: OnceLock<Option<Arc<WebPkiServerVerifier>>> = OnceLock::new();
    AUTHORITIES
        .get_or_init(|| authorities(system_roots().clone()).ok())
        .clone()
}

impl CertificateJudge for PinOrAuthorities {
    fn judge(&self, shown: Shown<'_>) -> Result<(), rustls::Error> {
        // First what is cheap: reading the system's authorities takes longer than the rest of the handshake.
        let presented = CertificateSummary::new(shown.certificate);
        if self.pin.is_some_and(|pin| pin == presented.fingerprint) {
            return Ok(());
        }
        let verdict = match &self.judge {
            _ if !self.use_authorities => None,
            Some(judge) => Some(judge.judge(shown)),
            None => system_authorities().map(|known| shown.is_vouched_for(&known, None)),
        };
        let authority_error = match verdict {
            Some(Ok(())) => return Ok(()),
            Some(Err(error)) => error.to_string(),
            None => "no certificate authorities in use".to_owned(),
        };
        *self.refusal.lock() = Some(Refusal {
            presented,
            authority_error,
        });
        Err(rustls::Error::General(REFUSED.to_owned()))
    }
}
