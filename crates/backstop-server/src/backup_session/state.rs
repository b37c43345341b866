//! What one backup session has done so far: known chunks, open writers, stored files, and whether it is finished.
//!
//! A pure state machine: it decides and counts, and never touches a disk, a socket or a clock. Its callers
//! hold it in a mutex and keep all slow work outside.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use backstop_format::Digest;
use backstop_format::blob::DataBlob;
use backstop_format::index::{ChunkIndex, FixedIndex};
use backstop_format::manifest::Manifest;

use super::acceptance::{MANIFEST_NAME, SnapshotIdentity, StoredFile, accept_manifest};
use super::error::SessionError;
use super::index_writer::{ClosedIndex, ContentKinds, IndexKind, IndexWriter};
use super::known_chunks::{Encryption, KnownChunk, KnownChunks};
use super::statistics::UploadStatistics;

/// Number of index writers that a session may create; the protocol's ids are 1 to 256.
pub const MAX_WRITERS: u16 = 256;

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Uploads are accepted.
    Active,
    /// `finish` passed its checks and is being carried out. Never left for `Active`.
    Finishing,
    /// The snapshot is complete.
    Finished,
    /// The connection has ended without a snapshot; the upload is being removed.
    Abandoned,
}

/// A chunk whose upload is complete.
#[derive(Clone, Copy, Debug)]
pub struct UploadedChunk {
    /// Name of the chunk.
    pub digest: Digest,
    /// Plain size, bytes.
    pub size: u32,
    /// Size as stored, bytes.
    pub stored: u64,
    /// Whether the datastore had it already.
    pub duplicate: bool,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

/// The state of one backup session.
pub struct SessionState {
    phase: Phase,
    identity: SnapshotIdentity,
    known: KnownChunks,
    writers: HashMap<u16, IndexWriter>,
    created_writers: u16,
    files: BTreeMap<String, StoredFile>,
    manifest: Option<DataBlob>,
    statistics: UploadStatistics,
}

impl SessionState {
    /// A session that has done nothing yet.
    pub fn new(identity: SnapshotIdentity) -> Self {
        Self {
            phase: Phase::Active,
            identity,
            known: KnownChunks::default(),
            writers: HashMap::new(),
            created_writers: 0,
            files: BTreeMap::new(),
            manifest: None,
            statistics: UploadStatistics::default(),
        }
    }

    /// How far the session is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Fails unless the session still takes uploads.
    pub fn check_active(&self) -> Result<(), SessionError> {
        match self.phase {
            Phase::Active => Ok(()),
            Phase::Finishing => Err(SessionError::Finishing),
            Phase::Finished => Err(SessionError::Finished),
            Phase::Abandoned => Err(SessionError::Abandoned),
        }
    }

    /// The connection has ended. Fails unless the snapshot is complete; then nothing can be uploaded any more either.
    pub fn end(&mut self) -> Result<(), SessionError> {
        self.check_finished()
            .inspect_err(|_| self.phase = Phase::Abandoned)
    }

    /// Fails unless `finish` succeeded: the verdict when the connection has ended.
    pub fn check_finished(&self) -> Result<(), SessionError> {
        match self.phase {
            Phase::Finished => Ok(()),
            Phase::Active | Phase::Finishing | Phase::Abandoned => Err(SessionError::NotFinished),
        }
    }

    /// Starts a dynamic index and returns its id.
    pub fn create_dynamic(&mut self, name: &str) -> Result<u16, SessionError> {
        self.check_active()?;
        check_extension(name, ".didx")?;
        self.check_not_open(name)?;
        self.add_writer(IndexWriter::dynamic(name.to_owned()))
    }

    /// Starts a fixed index (`size` in bytes, or growing) and returns its id.
    pub fn create_fixed(&mut self, name: &str, size: Option<u64>) -> Result<u16, SessionError> {
        self.check_active()?;
        check_extension(name, ".fidx")?;
        self.check_not_open(name)?;
        self.add_writer(IndexWriter::fixed(name.to_owned(), size)?)
    }

    /// Starts a fixed index that keeps the entries of the previous snapshot's, and returns its id.
    pub fn create_incremental(
        &mut self,
        name: &str,
        size: u64,
        previous: &FixedIndex,
        expected: &Digest,
    ) -> Result<u16, SessionError> {
        self.check_active()?;
        check_extension(name, ".fidx")?;
        self.check_not_open(name)?;
        self.add_writer(IndexWriter::incremental(
            name.to_owned(),
            size,
            previous,
            expected,
        )?)
    }

    fn check_not_open(&self, name: &str) -> Result<(), SessionError> {
        match self
            .writers
            .iter()
            .find(|(_, writer)| writer.name() == name)
        {
            Some((wid, _)) => Err(SessionError::ArchiveInUse {
                name: name.to_owned(),
                wid: *wid,
            }),
            None => Ok(()),
        }
    }

    fn add_writer(&mut self, writer: IndexWriter) -> Result<u16, SessionError> {
        if self.created_writers >= MAX_WRITERS {
            return Err(SessionError::TooManyWriters { limit: MAX_WRITERS });
        }
        self.created_writers += 1;
        self.writers.insert(self.created_writers, writer);
        Ok(self.created_writers)
    }

    fn writer(&mut self, kind: IndexKind, wid: u16) -> Result<&mut IndexWriter, SessionError> {
        match self.writers.get_mut(&wid) {
            Some(writer) if writer.kind() == kind => Ok(writer),
            _ => Err(SessionError::NotRegistered { kind, wid }),
        }
    }

    /// Whether a chunk of `size` plain bytes may be uploaded through writer `wid`. Asked before the body is read.
    pub fn check_upload(
        &mut self,
        kind: IndexKind,
        wid: u16,
        size: u64,
    ) -> Result<(), SessionError> {
        self.check_active()?;
        self.writer(kind, wid)?.check_upload(size)
    }

    /// Registers a chunk that is stored now.
    pub fn register_upload(
        &mut self,
        kind: IndexKind,
        wid: u16,
        chunk: &UploadedChunk,
    ) -> Result<(), SessionError> {
        self.check_active()?;
        self.writer(kind, wid)?.register_upload(
            u64::from(chunk.size),
            chunk.stored,
            chunk.duplicate,
        )?;
        let encryption = if chunk.encrypted {
            Encryption::Encrypted
        } else {
            Encryption::Plain
        };
        self.known.insert(
            chunk.digest,
            KnownChunk {
                size: chunk.size,
                encryption,
            },
        );
        Ok(())
    }

    /// Registers the chunks at `positions` of an index of the previous snapshot. Callers pass large indexes in parts,
    /// so that they do not hold the lock for long.
    pub fn register_previous(
        &mut self,
        index: &dyn ChunkIndex,
        positions: Range<usize>,
    ) -> Result<(), SessionError> {
        self.check_active()?;
        for position in positions {
            let Some(span) = index.chunk(position) else {
                break;
            };
            let size = u32::try_from(span.end.saturating_sub(span.start)).unwrap_or(u32::MAX);
            self.known.insert(
                span.digest,
                KnownChunk {
                    size,
                    encryption: Encryption::Unseen,
                },
            );
        }
        Ok(())
    }

    /// Appends known chunks. Entries before a refused one stay appended. Calls `log` with a line per entry.
    pub fn append(
        &mut self,
        kind: IndexKind,
        wid: u16,
        digests: &[Digest],
        offsets: &[u64],
        mut log: impl FnMut(&dyn Fn() -> String),
    ) -> Result<(), SessionError> {
        self.check_active()?;
        if digests.len() != offsets.len() {
            return Err(SessionError::OffsetListLength {
                offsets: offsets.len(),
                digests: digests.len(),
            });
        }
        for (digest, offset) in digests.iter().zip(offsets) {
            let chunk = self
                .known
                .get(digest)
                .ok_or(SessionError::NoSuchChunk { digest: *digest })?;
            self.writer(kind, wid)?.append(*offset, digest, chunk)?;
            let size = chunk.size;
            log(&|| {
                format!(
                    "successfully added chunk {digest} to {kind} index {wid} (offset {offset}, size {size})"
                )
            });
        }
        Ok(())
    }

    /// Takes a writer out for closing, which can mean hashing a large index and so happens outside of the lock. The
    /// caller calls its `close`, stores the index and then calls [`Self::index_stored`]; until then, and for ever if
    /// closing fails, the writer counts as closed but open.
    pub fn begin_close(&mut self, kind: IndexKind, wid: u16) -> Result<IndexWriter, SessionError> {
        self.check_active()?;
        self.writer(kind, wid)?.take()
    }

    /// Forgets writer `wid` and counts its index as a file of the snapshot.
    pub fn index_stored(&mut self, wid: u16, index: &ClosedIndex) -> Result<(), SessionError> {
        self.check_active()?;
        self.writers.remove(&wid);
        self.statistics.merge(&index.statistics);
        let file = StoredFile {
            size: index.size,
            csum: index.csum,
            content: index.content,
        };
        self.files.insert(index.name.clone(), file);
        Ok(())
    }

    /// Whether a blob called `name` may be stored.
    pub fn check_blob(&self, name: &str) -> Result<(), SessionError> {
        self.check_active()?;
        if name.len() > ".blob".len() && name.ends_with(".blob") {
            return Ok(());
        }
        Err(SessionError::WrongBlobExtension {
            name: name.to_owned(),
        })
    }

    /// Keeps the manifest until `finish`; a later one replaces it.
    pub fn hold_manifest(&mut self, blob: DataBlob) -> Result<(), SessionError> {
        self.check_active()?;
        let file = blob_file(&blob);
        self.files.insert(MANIFEST_NAME.to_owned(), file);
        self.manifest = Some(blob);
        Ok(())
    }

    /// Counts a stored blob as a file of the snapshot.
    pub fn blob_stored(&mut self, name: &str, file: StoredFile) -> Result<(), SessionError> {
        self.check_active()?;
        self.files.insert(name.to_owned(), file);
        Ok(())
    }

    /// The checks of `finish` up to the manifest; on success nothing can be uploaded any more.
    ///
    /// `base_exists` tells whether the previous snapshot, if any, is still there.
    pub fn begin_finish(
        &mut self,
        base_exists: impl FnOnce() -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        self.check_active()?;
        if !self.writers.is_empty() {
            return Err(SessionError::OpenWriter);
        }
        if self.files.is_empty() {
            return Err(SessionError::NoFiles);
        }
        base_exists()?;
        self.phase = Phase::Finishing;
        Ok(())
    }

    /// The manifest to store, if the uploaded one is acceptable.
    pub fn final_manifest(&self) -> Result<Manifest, SessionError> {
        Ok(accept_manifest(
            self.manifest.as_ref(),
            &self.identity,
            &self.files,
            self.statistics,
        )?)
    }

    /// Marks the snapshot as complete. Only after the manifest is on disk.
    pub fn set_finished(&mut self) {
        self.phase = Phase::Finished;
    }
}

/// What the server computes about a blob.
pub fn blob_file(blob: &DataBlob) -> StoredFile {
    let encrypted = blob.is_encrypted();
    StoredFile {
        size: u64::try_from(blob.raw().len()).unwrap_or(u64::MAX),
        csum: Digest::of(blob.raw()),
        content: ContentKinds {
            plain: !encrypted,
            encrypted,
        },
    }
}

fn check_extension(name: &str, extension: &str) -> Result<(), SessionError> {
    if name.len() > extension.len() && name.ends_with(extension) {
        return Ok(());
    }
    Err(SessionError::WrongArchiveExtension {
        name: name.to_owned(),
    })
}
