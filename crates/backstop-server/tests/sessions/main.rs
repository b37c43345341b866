//! Backup and reader sessions against a complete server over TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admission;
mod backup;
mod broken;
mod content;
mod peer;
mod reader;
mod server;
mod server_end;
