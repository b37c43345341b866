//! The router: one declaration per endpoint, and the one place that checks requests against it.
//!
//! An [`Endpoint`](endpoint::Endpoint) names its method, path, parameters, permission and handler. There is no way to
//! mount a handler without a permission rule, and a handler runs only after log-in, permission and parameters were
//! checked, in this order.

pub mod context;
pub mod dispatch;
pub mod endpoint;
pub mod params;
pub mod permission;
pub mod schema;
pub mod tree;

pub use context::RequestContext;
pub use endpoint::{Endpoint, Handler, Method};
pub use params::Params;
pub use permission::Permission;
