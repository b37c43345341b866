//! Directory trees and archives: [`create_unified`] and [`create_split`] walk a tree into pxar streams, [`extract`]
//! and [`extract_path`] write an archive's tree to disk.
//!
//! All of it blocks; call it from a thread of its own. Nothing here knows a server: streams go into
//! plain writers and a [`PayloadSink`].
//!
//! Archives are hostile until proven otherwise: the extractor never writes outside its target and
//! follows no symbolic link that it finds there or has made.

pub(crate) mod acl;
mod apply;
mod create;
mod crew;
mod error;
mod extract;
mod flags;
mod glob;
mod metadata;
mod options;
mod pattern;
mod reuse;
mod sink;
mod target;
mod tree_source;
mod walk;
mod writers;

pub use create::{CreateSummary, Previous, create_split, create_unified};
pub use error::{ArchiveError, Result};
pub use extract::{ExtractSummary, extract, extract_path};
pub use options::{CreateOptions, DeviceSet, ExtractOptions, Features};
pub use pattern::{MatchType, Pattern, PatternError, evaluate};
pub use sink::{PayloadSink, PlainPayload, ReusedChunk};

/// Raises the limit of open files as far as allowed: each level of a tree keeps its directory
/// open, and unchanged files wait with theirs.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Not being allowed to changes nothing but how deep a tree may be.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}
