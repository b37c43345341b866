//! Reader sessions: a client downloads files of one snapshot and the chunks that its indexes name.
//!
//! What the endpoints answer is described in `docs/formats/reader-protocol.md`. Many calls run at once; files are read
//! on the blocking pool, in pieces, so that a client that does not read holds no thread.

mod calls;
mod file_body;
pub mod readable_chunks;
pub mod session;
pub mod upgrade;

pub(crate) use file_body::file_body;
