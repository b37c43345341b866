//! Backup sessions: a client uploads one snapshot over an upgraded HTTP/2 connection.
//!
//! What the endpoints answer is described in `docs/formats/backup-protocol.md`. The rules live in [`state`], which
//! is pure; the modules beside it bring bytes in, check them on the blocking pool and put them on disk.

pub mod acceptance;
mod calls;
pub mod chunk_gate;
pub mod error;
pub mod index_writer;
pub mod known_chunks;
mod service;
pub mod session;
pub mod state;
pub mod statistics;
pub mod target;
pub mod upgrade;
pub mod upload;

#[cfg(test)]
mod state_tests;

pub use error::SessionError;
