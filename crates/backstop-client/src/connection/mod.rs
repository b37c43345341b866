//! The connection to a server: address, trust, login, HTTP requests and the upgrade to HTTP/2 sessions.
//!
//! Credentials are never sent before the server's certificate is trusted.

pub mod certificate_verifier;
pub mod continuity;
mod dial;
pub(crate) mod http_client;
pub(crate) mod liveness;
pub mod options;
pub mod pins;
pub mod proxy;
pub mod rate;
pub(crate) mod session;
pub mod trust;

pub use http_client::{HttpClient, encode_path_component};
pub use options::{ClientOptions, ConfirmCertificate, PasswordPrompt, RateLimit};
