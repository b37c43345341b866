//! The connection to a server: address, trust, login, HTTP requests and the upgrade to HTTP/2 sessions.
//!
//! Credentials are never sent before the server's certificate is trusted.

pub mod continuity;
mod dial;
pub(crate) mod http_client;
pub(crate) mod liveness;
pub mod options;
pub mod pins;
pub mod rate;
pub(crate) mod session;
pub mod trust;

pub use backstop_outgoing::{certificate_verifier, proxy};
pub use http_client::{HttpClient, encode_path_component};
pub use options::{ClientOptions, ConfirmCertificate, PasswordPrompt, RateLimit};
