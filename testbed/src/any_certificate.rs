//! TLS for tests that are not about trust: whatever certificate is shown is accepted. A server still has to prove that its key is
//! its own.

use std::sync::Arc;

use backstop_client::connection::certificate_verifier::{CertificateJudge, Shown, client_config};
use rustls::ClientConfig;

#[derive(Debug)]
struct AnyCertificate;

impl CertificateJudge for AnyCertificate {
    fn judge(&self, _: Shown<'_>) -> Result<(), rustls::Error> {
        Ok(())
    }
}

/// Settings of a client that accepts every certificate.
///
/// # Errors
/// As [`client_config`].
pub fn accepted() -> Result<Arc<ClientConfig>, rustls::Error> {
    client_config(Arc::new(AnyCertificate)).map(Arc::new)
}
