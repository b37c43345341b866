//! What all TLS connections of this program have in common when they look at a server's certificate.
//!
//! Who is trusted is decided by a [`CertificateJudge`]. Whatever it says, a server has to prove that the key of the certificate
//! that it shows is its own.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// What a server shows in a handshake.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Its own certificate.
    pub certificate: &'a CertificateDer<'a>,
    /// Those of authorities that it sends along.
    pub intermediates: &'a [CertificateDer<'a>],
    /// The name that the connection is made to.
    pub name: &'a ServerName<'a>,
    /// What it sends about revocation.
    pub ocsp: &'a [u8],
    /// The time of the handshake.
    pub now: UnixTime,
}

/// Decides which certificates are trusted.
pub trait CertificateJudge: Debug + Send + Sync {
    /// Refuses a certificate by an error.
    ///
    /// # Errors
    /// When it is not trusted.
    fn judge(&self, shown: Shown<'_>) -> Result<(), rustls::Error>;
}

impl Shown<'_> {
    /// Whether authorities vouch for it, under `name` in place of the connection's own, if one is given.
    ///
    /// # Errors
    /// When they do not.
    pub fn is_vouched_for(
        &self,
        authorities: &WebPkiServerVerifier,
        name: Option<&ServerName<'_>>,
    ) -> Result<(), rustls::Error> {
        let name = name.unwrap_or(self.name);
        authorities
            .verify_server_cert(
                self.certificate,
                self.intermediates,
                name,
                self.ocsp,
                self.now,
            )
            .map(|_| ())
    }
}

/// Settings of TLS connections whose certificates `judge` decides on.
///
/// # Errors
/// When the TLS library has no protocol version for its own cryptography, which does not happen.
pub fn client_config<J: CertificateJudge + 'static>(
    judge: Arc<J>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier {
        provider: Arc::clone(&provider),
        judge,
    };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// The system's certificate authorities, read once per process (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).
pub fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!("reading the system's certificate authorities: {error}");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        roots
    })
}

/// Judges by these authorities.
///
/// # Errors
/// When there are none.
pub fn authorities(
    roots: RootCertStore,
) -> Result<Arc<WebPkiServerVerifier>, rustls::client::VerifierBuilderError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()
}

#[derive(Debug)]
struct Verifier<J> {
    provider: Arc<CryptoProvider>,
    judge: Arc<J>,
}

impl<J: CertificateJudge> ServerCertVerifier for Verifier<J> {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Shown {
            certificate,
            intermediates,
            name,
            ocsp,
            now,
        };
        self.judge
            .judge(shown)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
