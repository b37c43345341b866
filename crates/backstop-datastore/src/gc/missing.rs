//! Marked chunks that the sweep has not met: which index needs them?

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use backstop_format::Digest;

use super::index_reader::{IndexReader, index_kind};
use crate::datastore::Datastore;
use crate::digest_set::DigestHash;
use crate::error::Result;
use crate::task_log::TaskLog;

/// Lines about single chunks; what comes after is counted.
const LINES: u64 = 1000;

/// Warns of each missing chunk once, with the first index that names it. Reads the indexes a second time, which only happens
/// to damaged datastores.
pub(super) fn report(
    datastore: &Datastore,
    missing: Vec<Digest>,
    indexes: HashSet<PathBuf>,
    log: &dyn TaskLog,
) -> Result<()> {
    let mut wanted: HashSet<Digest, DigestHash> = HashSet::default();
    for digest in missing {
        // A backup may have brought it since.
        if !datastore.chunks().contains(&digest)? {
            wanted.insert(digest);
        }
    }
    let mut reader = IndexReader::new(0);
    let mut lines = 0;
    for path in indexes.into_iter().collect::<BTreeSet<_>>() {
        if wanted.is_empty() {
            break;
        }
        let Some(kind) = index_kind(&path) else {
            continue;
        };
        reader.read(
            &path,
            kind,
            log,
            |_| false,
            |digest, _| {
                if wanted.remove(digest) {
                    lines += 1;
                    if lines <= LINES {
                        log.warn(&line(digest, &path));
                    }
                }
            },
        )?;
    }
    if lines > LINES {
        log.warn(&format!(
            "warning: {} more chunks do not exist; verify the datastore to learn which snapshots need them",
            lines - LINES
        ));
    }
    Ok(())
}

fn line(digest: &Digest, index: &Path) -> String {
    format!("warning: unable to access non-existent chunk {digest}, required by {index:?}")
}
