//! Access control: who somebody is, and what they may do.
//! Formats: `docs/formats/authentication.md`.
//!
//! Secrets (passwords, token secrets, keys) never appear in errors, logs or `Debug` texts, are
//! compared in constant time, and are wiped from memory after use where this module owns them.

pub mod acl;
mod administrator;
pub mod append_only;
mod authenticator;
mod control;
mod csrf;
pub mod directory;
mod hash_queue;
mod key;
mod login;
pub mod openid;
mod outside_queue;
pub mod password;
mod password_hash;
mod permissions;
pub mod realm;
pub mod realm_sync;
mod refusal;
mod revocation;
pub mod second_factor;
pub mod session_limit;
pub(crate) mod throttle;
mod ticket;
pub mod token;
mod token_cache;
pub mod user;

pub use administrator::{Administrator, INITIAL_PASSWORD_FILE, create_administrator};
pub use control::AccessControl;
pub use key::{AuthKeys, KeyError};
pub use login::{LoginError, LoginReply, LoginRequest};
pub use outside_queue::OutsideTurn;
pub use permissions::{PermissionDenied, PermissionMap};
pub use refusal::Refused;
