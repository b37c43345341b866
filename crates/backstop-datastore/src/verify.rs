//! Verification: is everything that a snapshot consists of still there and as it was written?
//!
//! A chunk is set aside as corrupt only when its bytes, read twice, are wrong; a disk that does not answer proves nothing about
//! them. Encrypted chunks are checked as far as a server without the key can: their CRC and that they are encrypted.

mod chunks;
mod run;
mod threads;

use std::collections::HashMap;

use backstop_format::blob::{DataBlob, MAX_BLOB_SIZE};
use backstop_format::index::{AnyIndex, ChunkIndex};
use backstop_format::manifest::{FileEntry, Manifest, VerifyResult, VerifyState};
use backstop_format::{CryptMode, Digest};
use backstop_types::{ArchiveKind, ArchiveName, Namespace, Snapshot, Upid};

use crate::clock;
use crate::datastore::Datastore;
use crate::error::{DatastoreError, Result};
use crate::lock_file::LockMode;
use crate::snapshot::parse_index;
use crate::task_log::TaskLog;

pub use run::{VerifyRun, VerifyThreads};

/// What a verification found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyOutcome {
    /// Everything is as it was written.
    Ok,
    /// Something is missing or damaged.
    Failed,
    /// The snapshot is in use, or was removed meanwhile; nothing is known.
    Skipped,
}

/// When a verified snapshot is to be verified again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyAge {
    /// Whether snapshots that were verified are left out at all.
    pub ignore_verified: bool,
    /// Whole days after which a verification is outdated; unset: never.
    pub outdated_after: Option<i64>,
}

impl VerifyAge {
    /// Whether a snapshot with this manifest is to be verified now. One that failed always is: a later backup may have
    /// brought its chunks back, and if not, nobody should forget it.
    pub fn is_due(&self, manifest: &Manifest) -> bool {
        if !self.ignore_verified {
            return true;
        }
        let Some(state) = manifest.verify_state() else {
            return true;
        };
        let Ok(upid) = state.upid.parse::<Upid>() else {
            return true;
        };
        if state.state == VerifyResult::Failed {
            return true;
        }
        let days = clock::now().saturating_sub(upid.starttime) / 86400;
        self.outdated_after.is_some_and(|limit| days > limit)
    }
}

impl Datastore {
    /// Verifies a snapshot and records the result in its manifest. `upid` is the task that does it.
    ///
    /// # Errors
    /// [`DatastoreError::Aborted`]. Everything that is wrong with the snapshot is written to the log instead.
    pub fn verify_snapshot(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        upid: &str,
        run: &VerifyRun,
        log: &dyn TaskLog,
    ) -> Result<VerifyOutcome> {
        let name = format!("{}:{}", self.name(), self.label(namespace, snapshot));
        log.info(&format!("verify {name}"));
        let _lock = match self.lock_snapshot(namespace, snapshot, LockMode::Shared) {
            Ok(lock) => lock,
            Err(error @ (DatastoreError::Locked { .. } | DatastoreError::NoSuchSnapshot(_))) => {
                log.info(&format!("SKIPPED: verify {name} - {error}"));
                return Ok(VerifyOutcome::Skipped);
            }
            Err(error) => {
                log.warn(&format!("verify {name} - {error}"));
                return Ok(VerifyOutcome::Failed);
            }
        };
        let manifest = match self.load_manifest(namespace, snapshot) {
            Ok((manifest, _)) => manifest,
            Err(error) => {
                log.warn(&format!("verify {name} - manifest load error: {error}"));
                return Ok(VerifyOutcome::Failed);
            }
        };
        let mut failed = false;
        for file in &manifest.files {
            if log.is_aborted() {
                return Err(DatastoreError::Aborted);
            }
            log.info(&format!("  check {}", file.filename));
            match self.verify_file(namespace, snapshot, file, run, log) {
                Ok(()) => {}
                Err(DatastoreError::Aborted) => return Err(DatastoreError::Aborted),
                Err(error) => {
                    log.warn(&format!("verify {name}/{} failed: {error}", file.filename));
                    failed = true;
                }
            }
        }
        let state = if failed {
            VerifyResult::Failed
        } else {
            VerifyResult::Ok
        };
        let state = VerifyState {
            state,
            upid: upid.to_owned(),
        };
        if let Err(error) = self.set_verify_state(namespace, snapshot, &state) {
            log.warn(&format!(
                "verify {name} - unable to store the result: {error}"
            ));
            failed = true;
        }
        Ok(if failed {
            VerifyOutcome::Failed
        } else {
            VerifyOutcome::Ok
        })
    }

    /// How logs name a snapshot.
    fn label(&self, namespace: &Namespace, snapshot: &Snapshot) -> String {
        if namespace.is_root() {
            snapshot.to_string()
        } else {
            format!("{}/{snapshot}", namespace.to_path())
        }
    }

    fn verify_file(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        file: &FileEntry,
        run: &VerifyRun,
        log: &dyn TaskLog,
    ) -> Result<()> {
        let path = self.snapshot_path(namespace, snapshot);
        let name: ArchiveName = file
            .filename
            .parse()
            .map_err(|error| DatastoreError::Invalid {
                path: path.join(ArchiveName::MANIFEST),
                reason: format!("it names the file '{}': {error}", file.filename),
            })?;
        let (path, raw) = self.read_file(namespace, snapshot, &name)?;
        let wrong = |reason: String| DatastoreError::Invalid {
            path: path.clone(),
            reason,
        };
        match name.kind() {
            ArchiveKind::Blob => {
                if raw.len() as u64 != file.size {
                    return Err(wrong(format!(
                        "wrong size ({} != {})",
                        file.size,
                        raw.len()
                    )));
                }
                if Digest::of(&raw) != file.csum {
                    return Err(wrong("wrong checksum".into()));
                }
                let damaged = |source| DatastoreError::Damaged {
                    path: path.clone(),
                    source,
                };
                let blob = DataBlob::load(raw).map_err(damaged)?;
                if !blob.is_encrypted() {
                    blob.decode(None, MAX_BLOB_SIZE).map_err(damaged)?;
                }
                Ok(())
            }
            kind => {
                let index = parse_index(&path, &raw, kind)?;
                if index.checksum() != file.csum {
                    return Err(wrong("wrong index checksum".into()));
                }
                if index.size() != file.size {
                    return Err(wrong(format!(
                        "wrong size ({} != {})",
                        file.size,
                        index.size()
                    )));
                }
                drop(raw);
                let sizes = chunk_sizes(&index).map_err(wrong)?;
                match chunks::verify(self, sizes, file.crypt_mode == CryptMode::Encrypt, run, log)?
                {
                    0 => Ok(()),
                    _ => Err(wrong("chunks could not be verified".into())),
                }
            }
        }
    }
}

/// The distinct chunks of an index with their sizes, in the order of the archive.
fn chunk_sizes(index: &AnyIndex) -> std::result::Result<Vec<(Digest, u64)>, String> {
    let mut seen: HashMap<Digest, u64> = HashMap::new();
    let mut distinct = Vec::new();
    for span in (0..index.chunk_count()).filter_map(|position| index.chunk(position)) {
        match seen.insert(span.digest, span.size()) {
            None => distinct.push((span.digest, span.size())),
            Some(size) if size != span.size() => {
                return Err(format!(
                    "it gives chunk {} the sizes {size} and {}",
                    span.digest,
                    span.size()
                ));
            }
            Some(_) => {}
        }
    }
    Ok(distinct)
}

#[cfg(test)]
mod tests;
