//! A backup session: the protocol calls by which one snapshot is written.
//!
//! Knows the calls and their order, not where data comes from. Dropping a session without [`BackupSession::finish`] makes
//! the server discard the snapshot.

mod index_copy;
mod index_sum;
pub(crate) mod known_chunks;

pub(crate) use index_copy::MAX_APPEND;
pub use index_copy::{CopiedIndex, IndexCopy};
pub(crate) use index_sum::IndexSum;

use std::sync::Arc;

use backstop_format::blob::{DataBlob, MAX_BLOB_SIZE};
use backstop_format::index::{ChunkIndex, DynamicIndex, FixedIndex};
use backstop_format::manifest::Manifest;
use backstop_format::{CryptKey, Digest};
use backstop_types::{Namespace, Snapshot};
use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value, json};

use crate::connection::HttpClient;
use crate::connection::session::Session;
use crate::error::{ClientError, Result};
use known_chunks::KnownChunks;

const PROTOCOL: &str = "proxmox-backup-protocol-v1";

/// Name of the manifest on the server.
pub(crate) const MANIFEST_NAME: &str = "index.json.blob";

/// Largest index that is downloaded, in bytes: 2^25 chunks, 128 TiB of data.
pub(crate) const MAX_INDEX_SIZE: usize = 1 << 30;

/// Which snapshot a backup session writes.
#[derive(Debug, Clone)]
pub struct SessionTarget {
    /// Datastore on the server.
    pub datastore: String,
    /// Namespace in the datastore.
    pub namespace: Namespace,
    /// The new snapshot.
    pub snapshot: Snapshot,
    /// Ask the server to bypass its local cache of an object store.
    pub no_cache: bool,
    /// A speed test that leaves nothing behind; only for the group `host/benchmark`.
    pub benchmark: bool,
}

impl SessionTarget {
    /// Query parameters common to backup and reader sessions.
    pub(crate) fn params(
        datastore: &str,
        namespace: &Namespace,
        snapshot: &Snapshot,
    ) -> Map<String, Value> {
        let mut params = Map::new();
        params.insert("store".to_owned(), datastore.into());
        if !namespace.is_root() {
            params.insert("ns".to_owned(), namespace.to_string().into());
        }
        params.insert(
            "backup-type".to_owned(),
            snapshot.group.ty.to_string().into(),
        );
        params.insert("backup-id".to_owned(), snapshot.group.id.to_string().into());
        params.insert("backup-time".to_owned(), snapshot.time.epoch().into());
        params.insert("debug".to_owned(), true.into());
        params
    }
}

/// The two kinds of index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IndexKind {
    Fixed,
    Dynamic,
}

impl IndexKind {
    fn path(self, call: &str) -> String {
        match self {
            Self::Fixed => format!("fixed_{call}"),
            Self::Dynamic => format!("dynamic_{call}"),
        }
    }
}

/// An index that is being written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexWriter {
    kind: IndexKind,
    id: i64,
}

impl IndexWriter {
    pub fn kind(self) -> IndexKind {
        self.kind
    }
}

/// A running backup session.
pub struct BackupSession {
    session: Session,
    known: Arc<KnownChunks>,
}

impl BackupSession {
    /// Starts a session; the server creates the snapshot and locks its group.
    ///
    /// # Errors
    /// Refusals of the server (permission, lock, owner, older time) and network failures.
    pub async fn start(client: &HttpClient, target: &SessionTarget) -> Result<Self> {
        let mut params =
            SessionTarget::params(&target.datastore, &target.namespace, &target.snapshot);
        params.insert("benchmark".to_owned(), target.benchmark.into());
        if target.no_cache {
            params.insert("no-cache".to_owned(), true.into());
        }
        let session = Session::open(client, "backup", &Value::Object(params), PROTOCOL).await?;
        Ok(Self {
            session,
            known: Arc::default(),
        })
    }

    pub(crate) fn known(&self) -> &Arc<KnownChunks> {
        &self.known
    }

    /// Time of the snapshot that this one continues, if there is one.
    ///
    /// # Errors
    /// Refusals of the server and network failures.
    pub async fn previous_backup_time(&self) -> Result<Option<i64>> {
        let time = self
            .session
            .call(Method::GET, "previous_backup_time", &Value::Null, None)
            .await?;
        Ok(time.as_i64())
    }

    /// The manifest of the previous snapshot, its signature verified if a key is given.
    ///
    /// # Errors
    /// There is none, it is damaged, or it belongs to another key.
    pub async fn previous_manifest(&self, key: Option<&CryptKey>) -> Result<Manifest> {
        let raw = self.previous_file(MANIFEST_NAME, MAX_BLOB_SIZE).await?;
        crate::reader::open_manifest(raw, key, "previous manifest")
    }

    /// A dynamic index of the previous snapshot. All its chunks become usable in this session.
    ///
    /// # Errors
    /// It is absent, damaged, or not the one that the manifest describes.
    pub async fn previous_dynamic_index(
        &self,
        name: &str,
        manifest: &Manifest,
    ) -> Result<DynamicIndex> {
        let raw = self.previous_file(name, MAX_INDEX_SIZE).await?;
        let index =
            DynamicIndex::parse(raw).map_err(ClientError::data(format!("previous {name}")))?;
        crate::reader::check_index(&index, name, manifest)?;
        self.register(&index);
        Ok(index)
    }

    /// A fixed index of the previous snapshot. All its chunks become usable in this session.
    ///
    /// # Errors
    /// It is absent, damaged, or not the one that the manifest describes.
    pub async fn previous_fixed_index(
        &self,
        name: &str,
        manifest: &Manifest,
    ) -> Result<FixedIndex> {
        let raw = self.previous_file(name, MAX_INDEX_SIZE).await?;
        let index =
            FixedIndex::parse(raw).map_err(ClientError::data(format!("previous {name}")))?;
        crate::reader::check_index(&index, name, manifest)?;
        self.register(&index);
        Ok(index)
    }

    fn register(&self, index: &dyn ChunkIndex) {
        let digests =
            (0..index.chunk_count()).filter_map(|position| index.digest(position).copied());
        self.known.register(digests);
    }

    async fn previous_file(&self, name: &str, limit: usize) -> Result<Vec<u8>> {
        self.session
            .download(
                "previous",
                &json!({"archive-name": name}),
                Vec::new(),
                limit,
            )
            .await
    }

    /// Makes the chunks of an index of the previous snapshot usable in this session. `name` ends in `.didx` or `.fidx`.
    ///
    /// # Errors
    /// It is absent, damaged, or not the one that the manifest describes.
    pub async fn reuse_previous_index(&self, name: &str, manifest: &Manifest) -> Result<()> {
        if name.ends_with(".didx") {
            self.previous_dynamic_index(name, manifest).await?;
        } else {
            self.previous_fixed_index(name, manifest).await?;
        }
        Ok(())
    }

    /// Uploads a blob; `name` ends in `.blob`. Returns its encoded size and SHA-256, as the manifest lists them.
    ///
    /// # Errors
    /// Refusals of the server and network failures.
    pub async fn upload_blob(&self, name: &str, blob: DataBlob) -> Result<(u64, Digest)> {
        let raw = Bytes::from(blob.into_raw());
        let (size, checksum) = (raw.len() as u64, Digest::of(&raw));
        let query = json!({"file-name": name, "encoded-size": size});
        self.session.upload("blob", &query, raw).await?;
        Ok((size, checksum))
    }

    /// Opens an index for writing. `size` is that of an image, if it is known.
    pub(crate) async fn create_index(
        &self,
        kind: IndexKind,
        name: &str,
        size: Option<u64>,
    ) -> Result<IndexWriter> {
        let body = match size {
            Some(size) => json!({"archive-name": name, "size": size}),
            None => json!({"archive-name": name}),
        };
        let path = kind.path("index");
        // Parameters in the query, as for every call but the append.
        let answer = self.session.call(Method::POST, &path, &body, None).await?;
        let id = answer.as_i64().ok_or_else(|| ClientError::Protocol {
            request: format!("POST {path}"),
            reason: format!("expected a writer id, got {answer}"),
        })?;
        Ok(IndexWriter { kind, id })
    }

    /// Uploads a chunk for an index. It may be appended after this returns.
    pub(crate) async fn upload_chunk(
        &self,
        writer: IndexWriter,
        digest: &Digest,
        size: u64,
        blob: Bytes,
    ) -> Result<()> {
        let query = json!({
            "wid": writer.id,
            "digest": digest.to_string(),
            "size": size,
            "encoded-size": blob.len(),
        });
        self.session
            .upload(&writer.kind.path("chunk"), &query, blob)
            .await?;
        Ok(())
    }

    /// Appends chunks to an index: start offset and digest of each.
    pub(crate) async fn append(
        &self,
        writer: IndexWriter,
        entries: &[(u64, Digest)],
    ) -> Result<()> {
        let digests: Vec<String> = entries
            .iter()
            .map(|(_, digest)| digest.to_string())
            .collect();
        let offsets: Vec<u64> = entries.iter().map(|(offset, _)| *offset).collect();
        let body = json!({"wid": writer.id, "digest-list": digests, "offset-list": offsets});
        self.session
            .call(
                Method::PUT,
                &writer.kind.path("index"),
                &Value::Null,
                Some(&body),
            )
            .await?;
        Ok(())
    }

    /// Closes an index; the server compares the figures with its own.
    pub(crate) async fn close_index(
        &self,
        writer: IndexWriter,
        chunk_count: u64,
        size: u64,
        checksum: &Digest,
    ) -> Result<()> {
        let query = json!({
            "wid": writer.id,
            "chunk-count": chunk_count,
            "size": size,
            "csum": checksum.to_string(),
        });
        self.session
            .call(Method::POST, &writer.kind.path("close"), &query, None)
            .await?;
        Ok(())
    }

    /// Uploads the manifest and makes the snapshot permanent.
    ///
    /// # Errors
    /// The server finds the snapshot incomplete; then it keeps nothing of it.
    pub async fn finish(&self, manifest: &Manifest) -> Result<()> {
        let blob = manifest.to_blob().map_err(ClientError::data("manifest"))?;
        self.upload_blob(MANIFEST_NAME, blob).await?;
        self.session
            .call(Method::POST, "finish", &Value::Null, None)
            .await?;
        Ok(())
    }

    /// Uploads data that the server throws away, to measure the speed of the connection.
    ///
    /// # Errors
    /// Refusals of the server and network failures.
    pub async fn speed_test(&self, data: Bytes) -> Result<()> {
        self.session.upload("speedtest", &Value::Null, data).await?;
        Ok(())
    }
}
