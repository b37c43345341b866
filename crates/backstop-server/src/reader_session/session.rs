//! One running reader session: what its calls do.
//!
//! Memory of one session: at most [`MAX_CALLS`] chunks of at most 16 MiB (512 MiB; 128 MiB with the usual chunks of
//! 4 MiB), and the digests of the indexes that were downloaded.

use std::sync::Arc;

use backstop_datastore::FileLock;
use backstop_format::Digest;
use backstop_types::{ArchiveKind, ArchiveName, Namespace, Snapshot};
use bytes::Bytes;
use hyper::body::Incoming;

use super::calls::CALLS;
use super::file_body::file_body;
use super::readable_chunks::ReadableChunks;
use crate::datastores::{DatastoreHandle, Place};
use crate::http::ApiError;
use crate::http::body;
use crate::router::{Method, Params};
use crate::session_http2::calls::{Answer, Call, Session};
use crate::task::TaskContext;

/// Calls that one session carries out at once; further ones wait at the client.
pub const MAX_CALLS: u32 = 32;

/// Answer of the speed test.
static SPEEDTEST: [u8; 1 << 20] = [b'A'; 1 << 20];

/// What a session reads from.
pub struct ReaderSource {
    /// The datastore.
    pub datastore: DatastoreHandle,
    /// Namespace of the snapshot.
    pub ns: Namespace,
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Keeps the snapshot from being removed.
    pub lock: FileLock,
}

/// A running reader session.
pub struct ReaderSession {
    source: ReaderSource,
    readable: ReadableChunks,
    task: TaskContext,
    debug: bool,
}

impl ReaderSession {
    /// A session on `source`. `debug` asks for a detailed task log.
    pub fn new(source: ReaderSource, task: TaskContext, debug: bool) -> Self {
        Self {
            source,
            readable: ReadableChunks::default(),
            task,
            debug,
        }
    }

    /// Writes a line to the task log.
    pub fn log(&self, text: &str) {
        self.task.log(text);
    }

    /// Writes a line to the task log if the client asked for a detailed one.
    pub fn debug(&self, text: impl FnOnce() -> String) {
        if self.debug {
            self.task.log(text());
        }
    }

    fn place(&self) -> Arc<Place> {
        Arc::clone(self.source.datastore.place())
    }

    async fn blocking<T, F>(self: Arc<Self>, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    {
        let place = self.place();
        let done = place.work(move || work(&self)).await;
        done.map_err(|err| ApiError::bad_request(err.to_string()))?
    }

    fn download(&self, name: &ArchiveName) -> Result<std::fs::File, ApiError> {
        let ReaderSource {
            datastore,
            ns,
            snapshot,
            ..
        } = &self.source;
        let path = datastore.snapshot_path(ns, snapshot).join(name.as_str());
        self.log(&format!("download {path:?}"));
        if name.kind() != ArchiveKind::Blob {
            self.readable
                .add(&datastore.load_index(ns, snapshot, name)?);
            self.log(&format!("register chunks in '{name}' as downloadable."));
        }
        match datastore.open_file(ns, snapshot, name) {
            Ok(file) => Ok(file),
            Err(_) if !path.exists() => Err(ApiError::not_found(format!(
                "open file {path:?} failed - not found"
            ))),
            Err(err) => Err(err.into()),
        }
    }

    fn chunk(&self, digest: &Digest) -> Result<Bytes, ApiError> {
        if !self.readable.contains(digest) {
            self.log(&format!(
                "attempted to download chunk {digest} which is not in registered chunk list"
            ));
            return Err(ApiError::unauthorized(format!(
                "download chunk {digest} not allowed"
            )));
        }
        let chunks = self.source.datastore.chunks();
        let path = chunks.chunk_path(digest);
        self.debug(|| format!("download chunk {path:?}"));
        let raw = chunks.read_raw(digest).map_err(|err| {
            let err = crate::http::error::chain(&err);
            ApiError::bad_request(format!("reading file {path:?} failed: {err}"))
        })?;
        Ok(raw.into())
    }
}

impl Session for ReaderSession {
    const CALLS: &'static [Call] = CALLS;

    async fn call(
        self: Arc<Self>,
        call: &'static Call,
        params: Params,
        _body: Option<Incoming>,
    ) -> Result<Answer, ApiError> {
        match (call.method, call.name) {
            (Method::Get, "download") => {
                let name: ArchiveName = params.required_text("file-name")?.parse()?;
                let file = Arc::clone(&self)
                    .blocking(move |session| session.download(&name))
                    .await?;
                Ok(Answer::Bytes(file_body(file, self.place())))
            }
            (Method::Get, "chunk") => {
                let digest: Digest = params.required_text("digest")?.parse()?;
                let raw = self.blocking(move |session| session.chunk(&digest)).await?;
                Ok(Answer::Bytes(body::full(raw)))
            }
            (Method::Get, "speedtest") => {
                Ok(Answer::Bytes(body::full(Bytes::from_static(&SPEEDTEST))))
            }
            _ => Err(ApiError::not_found(format!(
                "Path '/{}' not found.",
                call.name
            ))),
        }
    }

    fn log_call(&self, text: &str) {
        self.debug(|| text.to_owned());
    }

    fn log_failure(&self, text: &str) {
        self.log(text);
    }
}
