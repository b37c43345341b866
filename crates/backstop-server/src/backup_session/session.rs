//! One running backup session: what its calls do.
//!
//! Calls run concurrently. Everything that reads or writes disks, decodes or hashes runs on threads of the datastore. A call
//! holds the session's gate for reading from its check of the state until its effect is complete; `finish` and the end
//! of the session hold it for writing, so that neither ever overtakes an upload that was already accepted.
//!
//! Memory of one session: at most [`MAX_CALLS`] bodies of at most 16 MiB and 44 bytes (512 MiB; 128 MiB with the usual
//! chunks of 4 MiB), the HTTP/2 window, its indexes and its known chunks.

use std::sync::Arc;

use backstop_format::blob::DataBlob;
use backstop_format::index::{AnyIndex, ChunkIndex};
use backstop_format::{Digest, FormatError};
use backstop_types::ArchiveKind;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::acceptance::MANIFEST_NAME;
use super::chunk_gate::{ChunkGate, interrupted};
use super::error::SessionError;
use super::index_writer::{CloseClaim, IndexKind};
use super::state::{SessionState, UploadedChunk, blob_file};
use super::target::BackupTarget;
use super::upload::{ChunkAnnouncement, read_blob, read_chunk};
use crate::datastores::Place;
use crate::http::body;
use crate::session_http2::calls::Answer;
use crate::task::TaskContext;

/// Calls that one session carries out at once; further ones wait at the client.
pub const MAX_CALLS: u32 = 32;

/// Chunks of the previous snapshot that are registered without letting other calls at the state.
const REGISTER_BATCH: usize = 8192;

/// A running backup session.
pub struct BackupSession {
    state: Mutex<SessionState>,
    gate: Arc<RwLock<()>>,
    target: Arc<BackupTarget>,
    chunks: ChunkGate,
    task: TaskContext,
    debug: bool,
}

type Result<T> = std::result::Result<T, SessionError>;

impl BackupSession {
    /// A session that writes to `target`. `debug` asks for a detailed task log.
    pub fn new(
        target: Arc<BackupTarget>,
        chunks: ChunkGate,
        task: TaskContext,
        debug: bool,
    ) -> Self {
        let state = Mutex::new(SessionState::new(target.identity()));
        Self {
            state,
            gate: Arc::default(),
            target,
            chunks,
            task,
            debug,
        }
    }

    /// Where it writes to.
    pub fn target(&self) -> &BackupTarget {
        &self.target
    }

    fn place(&self) -> &Arc<Place> {
        self.target.datastore().place()
    }

    /// Writes a line to the task log.
    pub fn log(&self, text: impl Into<String>) {
        self.task.log(text.into());
    }

    /// Writes a line to the task log if the client asked for a detailed one.
    pub fn debug(&self, text: impl FnOnce() -> String) {
        if self.debug {
            self.log(text());
        }
    }

    /// Runs `work` on a thread of the datastore with the gate held for reading.
    async fn blocking<T, F>(self: &Arc<Self>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T> + Send + 'static,
    {
        let held = Arc::clone(&self.gate).read_owned().await;
        let session = Arc::clone(self);
        let done = self.place().work(move || {
            let result = work(&session);
            drop(held);
            result
        });
        done.await.map_err(interrupted)?
    }

    /// `POST blob`
    pub async fn upload_blob(
        self: &Arc<Self>,
        name: String,
        encoded_size: usize,
        body: Incoming,
    ) -> Result<()> {
        self.state.lock().check_blob(&name)?;
        let raw = read_blob(body, encoded_size).await?;
        self.blocking(move |session| {
            let blob = DataBlob::load(raw)?;
            session.state.lock().check_blob(&name)?;
            let path = session.target.path().join(&name);
            let length = blob.raw().len();
            if name == MANIFEST_NAME {
                session.state.lock().hold_manifest(blob)?;
            } else {
                let file = blob_file(&blob);
                session.target.store_blob(&name, &blob)?;
                session.state.lock().blob_stored(&name, file)?;
            }
            session.log(format!(
                "add blob {path:?} ({length} bytes, comp: {length})"
            ));
            Ok(())
        })
        .await
    }

    /// `POST dynamic_chunk` and `POST fixed_chunk`
    pub async fn upload_chunk(
        self: &Arc<Self>,
        kind: IndexKind,
        wid: u16,
        announced: ChunkAnnouncement,
        body: Incoming,
    ) -> Result<Digest> {
        self.state
            .lock()
            .check_upload(kind, wid, u64::from(announced.size))?;
        let raw = read_chunk(body, &announced).await?;
        let held = Arc::clone(&self.gate).read_owned().await;
        let session = Arc::clone(self);
        let blob = self.chunks.check(raw, announced).await?;
        self.chunks
            .store(self.place(), move || {
                let result = session.store_chunk(kind, wid, &announced, &blob);
                drop(held);
                result
            })
            .await
    }

    fn store_chunk(
        &self,
        kind: IndexKind,
        wid: u16,
        announced: &ChunkAnnouncement,
        blob: &DataBlob,
    ) -> Result<Digest> {
        self.state
            .lock()
            .check_upload(kind, wid, u64::from(announced.size))?;
        let inserted = self.target.insert_chunk(&announced.digest, blob)?;
        if inserted.healed {
            self.log(format!(
                "chunk {} was corrupt and is whole again: verify the snapshots that failed because of it",
                announced.digest
            ));
        }
        let chunk = UploadedChunk {
            digest: announced.digest,
            size: announced.size,
            stored: inserted.size,
            duplicate: inserted.duplicate,
            encrypted: blob.is_encrypted(),
        };
        self.state.lock().register_upload(kind, wid, &chunk)?;
        self.debug(|| {
            format!(
                "upload_chunk done: {} bytes, {}",
                announced.size, announced.digest
            )
        });
        Ok(announced.digest)
    }

    /// `POST dynamic_index`
    pub async fn create_dynamic(self: &Arc<Self>, name: String) -> Result<u16> {
        self.blocking(move |session| {
            let wid = session.state.lock().create_dynamic(&name)?;
            session.log_created(IndexKind::Dynamic, wid, &name);
            Ok(wid)
        })
        .await
    }

    /// `POST fixed_index`
    pub async fn create_fixed(
        self: &Arc<Self>,
        name: String,
        size: Option<u64>,
        reuse: Option<Digest>,
    ) -> Result<u16> {
        self.blocking(move |session| {
            let wid = match reuse {
                None => session.state.lock().create_fixed(&name, size)?,
                Some(csum) => {
                    let size = size.ok_or(SessionError::SizeRequired)?;
                    session.state.lock().check_active()?;
                    let previous = session.target.previous_fixed_index(&name)?;
                    session
                        .state
                        .lock()
                        .create_incremental(&name, size, &previous, &csum)?
                }
            };
            session.log_created(IndexKind::Fixed, wid, &name);
            Ok(wid)
        })
        .await
    }

    fn log_created(&self, kind: IndexKind, wid: u16, name: &str) {
        let path = self.target.relative_path().join(name);
        self.log(format!("created new {kind} index {wid} ({path:?})"));
    }

    /// `PUT dynamic_index` and `PUT fixed_index`
    pub async fn append(
        self: &Arc<Self>,
        kind: IndexKind,
        wid: u16,
        digests: Vec<Digest>,
        offsets: Vec<u64>,
    ) -> Result<()> {
        self.blocking(move |session| {
            session.debug(|| format!("{kind}_append {} chunks", digests.len()));
            let mut lines = Vec::new();
            let result = session
                .state
                .lock()
                .append(kind, wid, &digests, &offsets, |line| {
                    if session.debug {
                        lines.push(line());
                    }
                });
            lines.into_iter().for_each(|line| session.log(line));
            result
        })
        .await
    }

    /// `POST dynamic_close` and `POST fixed_close`
    pub async fn close(
        self: &Arc<Self>,
        kind: IndexKind,
        wid: u16,
        claim: CloseClaim,
    ) -> Result<()> {
        self.blocking(move |session| {
            let mut writer = session.state.lock().begin_close(kind, wid)?;
            let index = writer.close(&claim)?;
            session.target.store_index(&index.name, &index.bytes)?;
            session.state.lock().index_stored(wid, &index)?;
            index.log.iter().for_each(|line| session.log(line.clone()));
            session.log(format!("successfully closed {kind} index {wid}"));
            Ok(())
        })
        .await
    }

    /// `GET previous`
    pub async fn previous(self: &Arc<Self>, name: String) -> Result<Answer> {
        self.blocking(move |session| {
            let file = session.target.previous_file(&name)?;
            if file.kind != ArchiveKind::Blob {
                session.log(format!(
                    "register chunks in '{name}' from previous backup '{}'.",
                    file.snapshot
                ));
                session
                    .register(&AnyIndex::parse(&file.bytes).map_err(|err| broken(&name, &err))?)?;
            }
            session.log(format!(
                "download '{name}' from previous backup '{}'.",
                file.snapshot
            ));
            Ok(Answer::Bytes(body::full(file.bytes)))
        })
        .await
    }

    fn register(&self, index: &AnyIndex) -> Result<()> {
        let count = index.chunk_count();
        for start in (0..count).step_by(REGISTER_BATCH) {
            let end = count.min(start.saturating_add(REGISTER_BATCH));
            self.state.lock().register_previous(index, start..end)?;
        }
        Ok(())
    }

    /// `GET previous_backup_time`
    pub fn previous_backup_time(&self) -> Value {
        json!(self.target.previous_time())
    }

    /// `POST speedtest`: measures the way here, so the data is dropped as it comes.
    pub async fn speedtest(&self, mut body: Incoming) -> Result<()> {
        while let Some(frame) = body.frame().await {
            frame.map_err(|err| SessionError::Body(format!("speedtest body failed - {err}")))?;
        }
        Ok(())
    }

    /// `POST finish`
    pub async fn finish(self: &Arc<Self>) -> Result<()> {
        let held = Arc::clone(&self.gate).write_owned().await;
        let session = Arc::clone(self);
        let done = self.place().work(move || {
            let result = session.finish_blocking();
            drop(held);
            result
        });
        done.await.map_err(interrupted)?
    }

    fn finish_blocking(&self) -> Result<()> {
        self.state
            .lock()
            .begin_finish(|| self.target.check_base())?;
        let manifest = self.state.lock().final_manifest()?;
        self.target.complete(&manifest)?;
        self.state.lock().set_finished();
        // the client may start the next backup of the group as soon as it has our answer
        self.target.release();
        self.log("successfully finished backup");
        Ok(())
    }

    /// Whether `finish` has been answered.
    pub fn is_finished(&self) -> bool {
        self.state.lock().check_finished().is_ok()
    }

    /// The connection has ended: waits for what still runs, then decides. Without a `finish` all traces of the
    /// snapshot are removed when the caller says so with [`Self::remove`].
    pub async fn end(&self) -> Result<()> {
        let _held = self.gate.write().await;
        self.state.lock().end()
    }

    /// Removes the unfinished snapshot and frees its locks.
    pub async fn remove(self: &Arc<Self>) -> Result<()> {
        let session = Arc::clone(self);
        let removal = self.place().tidy(move || session.target.remove());
        removal.await.map_err(interrupted)?
    }
}

fn broken(name: &str, err: &FormatError) -> SessionError {
    SessionError::Datastore(format!(
        "unable to read index '{name}' of the previous backup - {err}"
    ))
}
