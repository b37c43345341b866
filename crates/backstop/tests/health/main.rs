//! Health of the real server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod audience;
mod checks;
mod configuration;
mod losses;
mod remotes;
mod world;
