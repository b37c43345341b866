//! How to reach a server, as whom, and whom to ask when something is missing.
//!
//! Plain data: reads neither environment nor files.

use std::io;
use std::sync::Arc;

use backstop_format::Fingerprint;
use backstop_outgoing::tls::Judge;
use backstop_types::AuthId;

use super::pins::PinKeeper;
use super::proxy::ProxyAddress;
use super::rate::SharedLimit;
use super::trust::UntrustedCertificate;
use crate::fingerprint_store::FingerprintStore;
use crate::second_factor::SecondFactorRequest;
use crate::ticket_cache::TicketCache;

/// Port of a backup server.
pub const DEFAULT_PORT: u16 = 8007;

/// Asks a human whether an unknown certificate is to be trusted. May block; runs on a blocking thread.
pub type ConfirmCertificate = dyn Fn(&UntrustedCertificate) -> bool + Send + Sync;

/// Asks a human for the password of a user. May block; runs on a blocking thread.
pub type PasswordPrompt = dyn Fn(&AuthId) -> io::Result<String> + Send + Sync;

/// Asks a human for the second factor of a user. May block; runs on a blocking thread.
pub type SecondFactorPrompt = dyn Fn(&SecondFactorRequest) -> io::Result<String> + Send + Sync;

/// Limit of the traffic in each direction, in bytes per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Mean rate; `None` or 0 means unlimited.
    pub rate: Option<u64>,
    /// How many bytes may be sent at once after an idle time; default: the rate, i.e. one second.
    pub burst: Option<u64>,
}

/// Everything that is needed to talk to one server.
#[derive(Clone)]
pub struct ClientOptions {
    /// Host name or IP address; an IPv6 address with or without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User or API token.
    pub auth_id: AuthId,
    /// Password of the user or secret of the token.
    pub secret: Option<String>,
    /// Called when a user has neither password nor valid ticket.
    pub password_prompt: Option<Arc<PasswordPrompt>>,
    /// Called when the password of a user is not enough; without it, such a login fails.
    pub second_factor_prompt: Option<Arc<SecondFactorPrompt>>,
    /// Expected SHA-256 of the server's certificate (`PBS_FINGERPRINT`); nothing is stored then.
    pub fingerprint: Option<Fingerprint>,
    /// What is known of the server behind the fingerprint, and who is told when it has changed, provably.
    pub pins: Option<Arc<dyn PinKeeper>>,
    /// The name under which authorities have to vouch for the server, if that is not the host.
    pub server_name: Option<String>,
    /// Who vouches for the server in place of the system's authorities.
    pub judge: Option<Arc<Judge>>,
    /// What accepts another certificate, for messages: a command that lacks only the fingerprint.
    pub acceptance: Option<String>,
    /// Fingerprints that the user has confirmed before.
    pub fingerprint_store: Option<FingerprintStore>,
    /// Called for an unknown or changed certificate; without it, such a server is refused.
    pub confirm_certificate: Option<Arc<ConfirmCertificate>>,
    /// Where tickets are kept between runs.
    pub ticket_cache: Option<TicketCache>,
    /// HTTP proxy to connect through.
    pub proxy: Option<ProxyAddress>,
    /// Traffic limit of backup and restore sessions.
    pub rate_limit: RateLimit,
    /// Instead of it, a limit that all sessions of this client share.
    pub shared_limit: Option<SharedLimit>,
    /// Whether certificates that the system's authorities vouch for are accepted without a pin. Default: yes.
    pub trust_system_authorities: bool,
}

impl ClientOptions {
    /// Options for a server and an identity, everything else absent.
    pub fn new(host: impl Into<String>, port: u16, auth_id: AuthId) -> Self {
        Self {
            host: host.into(),
            port,
            auth_id,
            secret: None,
            password_prompt: None,
            second_factor_prompt: None,
            fingerprint: None,
            pins: None,
            server_name: None,
            judge: None,
            acceptance: None,
            fingerprint_store: None,
            confirm_certificate: None,
            ticket_cache: None,
            proxy: None,
            rate_limit: RateLimit::default(),
            shared_limit: None,
            trust_system_authorities: true,
        }
    }

    /// The host without the brackets of an IPv6 address, as the resolver and TLS want it.
    pub(crate) fn bare_host(&self) -> &str {
        self.host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(&self.host)
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub fn server(&self) -> String {
        let host = self.bare_host();
        if host.contains(':') {
            format!("[{host}]:{}", self.port)
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl std::fmt::Debug for ClientOptions {
    /// Leaves out the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOptions")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("auth_id", &self.auth_id.to_string())
            .field(
                "fingerprint",
                &self.fingerprint.as_ref().map(ToString::to_string),
            )
            .finish_non_exhaustive()
    }
}
