//! What leaves this host for others: requests to push receivers, web hooks and providers, and a spool that keeps what is to be
//! delivered until it has arrived.
//!
//! It knows nothing of jobs, users or datastores. A certificate is always verified unless somebody asked for the opposite, and no
//! secret of a URL, a header or a body appears in an error.

pub mod answer;
pub mod certificate_verifier;
pub mod courier;
pub mod dial;
pub mod durable_file;
pub mod http_client;
pub mod proxy;
pub mod spool;
pub mod tls;

pub use answer::Refusal;
pub use courier::{Carrier, Courier};
pub use http_client::{HttpClient, RequestError, Route};
pub use spool::{Delivery, Limits, Spool, SpoolError, Undelivered};
