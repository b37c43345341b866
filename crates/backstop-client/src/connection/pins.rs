//! Pins that change: what is known of a pinned server beyond its pin, and who is told when another certificate takes its place.
//!
//! A pin changes only for a certificate that the pinned key vouches for: it was announced over a connection to the pinned key,
//! or the continuity chain leads to it.

use backstop_format::Fingerprint;
use backstop_types::record::CertificateStatus;

use super::trust::CertificateSummary;

/// What is known of the server behind a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// The certificate that it announced.
    pub announced: Option<Fingerprint>,
    /// The largest number of a link of its continuity chain that is known; 0 when none is. Older ones prove nothing.
    pub number: u64,
}

/// By what a new certificate was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It was announced over a connection to the pinned key.
    Announcement,
    /// The pinned key signed for it, over this many steps.
    Chain {
        /// Number of certificates after the pinned one.
        links: usize,
    },
}

impl Proof {
    /// One word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Announcement => "announcement",
            Self::Chain { .. } => "chain",
        }
    }
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Announcement => f.write_str("it was announced before"),
            Self::Chain { links: 1 } => f.write_str("the key of the old certificate signed it"),
            Self::Chain { links } => write!(
                f,
                "the key of the old certificate signed for it, over {links} steps"
            ),
        }
    }
}

/// A certificate that has provably taken the place of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinChange {
    /// `host:port` of the server.
    pub server: String,
    /// The pin so far.
    pub from: Fingerprint,
    /// The certificate that is pinned from now on.
    pub to: CertificateSummary,
    /// By what it is proven.
    pub proof: Proof,
    /// The largest number of a link of the continuity chain that is known now.
    pub number: u64,
}

impl std::fmt::Display for PinChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the certificate of '{}' has changed, and {}: {} takes the place of {} (subject {}, issuer {}, valid {} to {})",
            self.server,
            self.proof,
            self.to.fingerprint,
            self.from,
            self.to.subject,
            self.to.issuer,
            self.to.not_before,
            self.to.not_after,
        )
    }
}

/// Remembers what is known of pinned servers. Its functions may block; they run on a blocking thread.
pub trait PinKeeper: Send + Sync {
    /// What is known of the server with this pin.
    fn known(&self, pin: &Fingerprint) -> Known;

    /// The pin has changed. Called before anything is sent to the server.
    fn changed(&self, change: &PinChange);

    /// What the server with this pin has told over a connection to the pinned key.
    fn told(&self, pin: &Fingerprint, status: &CertificateStatus);
}
