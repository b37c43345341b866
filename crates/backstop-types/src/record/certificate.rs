//! What a server tells about its certificates to those who pin them.

use backstop_format::Fingerprint;
use serde::{Deserialize, Serialize};

/// The certificate of a server, and the one that takes its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CertificateStatus {
    /// Fingerprint of the certificate in use.
    pub fingerprint: Fingerprint,
    /// The number of the last link of the continuity chain; 0 when there is none.
    pub number: u64,
    /// The certificate that is announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<AnnouncedCertificate>,
    /// How long a certificate is announced, in seconds, unless whoever changes it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<i64>,
}

/// A certificate that will be used from some time on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AnnouncedCertificate {
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// From when on it is used, in seconds since 1970.
    pub switch_at: i64,
}
