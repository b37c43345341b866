//! HTTP as the server speaks it: bodies, replies, errors, envelopes, path rules, logs. Knows nothing of endpoints.

pub mod access_log;
pub mod body;
pub mod connection;
pub mod credentials;
pub mod deflate;
pub mod envelope;
pub mod error;
pub mod path;
pub mod real_ip;
pub mod reply;
pub(crate) mod security_headers;
pub mod upgrade;

pub use body::Body;
pub use error::ApiError;
pub use reply::Reply;
