//! Whether a server's certificate is trusted: by the system's authorities, by a pinned fingerprint,
//! or because a human says so.
//!
//! A pin replaces the name check. Never trusts silently on first use.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use backstop_format::{Digest, Fingerprint};
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

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
}

impl CertificateSummary {
    fn new(certificate: &CertificateDer<'_>) -> Self {
        let fingerprint = Fingerprint(Digest::of(certificate.as_ref()).0);
        match x509_parser::parse_x509_certificate(certificate.as_ref()) {
            Ok((_, parsed)) => Self {
                fingerprint,
                subject: parsed.subject().to_string(),
                names: names(&parsed),
                issuer: parsed.issuer().to_string(),
                not_before: parsed.validity().not_before.to_string(),
                not_after: parsed.validity().not_after.to_string(),
            },
            Err(_) => Self {
                fingerprint,
                subject: "unreadable".to_owned(),
                names: Vec::new(),
                issuer: "unreadable".to_owned(),
                not_before: "unknown".to_owned(),
                not_after: "unknown".to_owned(),
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
            "{}\n  authorities: {}\n\
             If this certificate is the right one, set PBS_FINGERPRINT to the presented fingerprint, \
             or confirm it once in an interactive run.",
            self.presented, self.authority_error,
        )
    }
}

/// What the verifier saw during a handshake.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub presented: CertificateSummary,
    pub authority_error: String,
}

/// Checks one handshake against authorities and pin, and remembers why it refused.
#[derive(Debug)]
pub(crate) struct TrustVerifier {
    provider: Arc<CryptoProvider>,
    use_authorities: bool,
    pin: Option<Fingerprint>,
    refusal: Mutex<Option<Refusal>>,
}

impl TrustVerifier {
    pub fn new(
        provider: Arc<CryptoProvider>,
        pin: Option<Fingerprint>,
        use_authorities: bool,
    ) -> Self {
        Self {
            provider,
            use_authorities,
            pin,
            refusal: Mutex::new(None),
        }
    }

    /// Why the last handshake was refused, if it was the certificate.
    pub fn take_refusal(&self) -> Option<Refusal> {
        self.refusal.lock().take()
    }
}

/// The system's certificate authorities, read once per process; `None` when there are none.
fn system_authorities(provider: &Arc<CryptoProvider>) -> Option<Arc<WebPkiServerVerifier>> {
    static AUTHORITIES: OnceLock<Option<Arc<WebPkiServerVerifier>>> = OnceLock::new();
    AUTHORITIES
        .get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::debug!("reading the system's certificate authorities: {error}");
            }
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(found.certs);
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .ok()
        })
        .clone()
}

impl ServerCertVerifier for TrustVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // First what is cheap: reading the system's authorities takes longer than the rest of the handshake.
        let presented = CertificateSummary::new(end_entity);
        if self.pin.is_some_and(|pin| pin == presented.fingerprint) {
            return Ok(ServerCertVerified::assertion());
        }
        let authorities = self
            .use_authorities
            .then(|| system_authorities(&self.provider))
            .flatten();
        let authority_error = match authorities {
            Some(authorities) => {
                match authorities.verify_server_cert(
                    end_entity,
                    intermediates,
                    server_name,
                    ocsp_response,
                    now,
                ) {
                    Ok(verified) => return Ok(verified),
                    Err(error) => error.to_string(),
                }
            }
            None => "no certificate authorities in use".to_owned(),
        };
        *self.refusal.lock() = Some(Refusal {
            presented,
            authority_error,
        });
        Err(rustls::Error::General("certificate not trusted".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
