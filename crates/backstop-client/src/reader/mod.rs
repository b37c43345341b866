//! A reader session: manifest, indexes, blobs and chunks of one snapshot.
//!
//! Nothing is handed out that was not checked: the manifest against its signature, files against the manifest, chunks
//! against the index.

mod chunk_source;
mod decoding;
mod index_reader;
mod stream;

pub use chunk_source::ChunkSource;
use decoding::Decoding;
pub use index_reader::RemoteIndexReader;
pub use stream::{ArchiveStream, ReadAhead};

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backstop_format::blob::{DataBlob, MAX_BLOB_SIZE, MAX_ENCODED_CHUNK_SIZE};
use backstop_format::index::{AnyIndex, ChunkIndex, DynamicIndex, FixedIndex};
use backstop_format::manifest::{FileEntry, Manifest};
use backstop_format::{CryptKey, CryptMode, Digest, FormatError};
use backstop_types::{Namespace, Snapshot};
use serde_json::{Value, json};

use crate::connection::HttpClient;
use crate::connection::session::Session;
use crate::error::{ClientError, Result};
use crate::workers::Workers;
use crate::writer::{MANIFEST_NAME, MAX_INDEX_SIZE, SessionTarget};

const PROTOCOL: &str = "proxmox-backup-reader-protocol-v1";

/// Name of the escrowed key on the server; readable without the key that it contains.
const ESCROW_NAME: &str = "rsa-encrypted.key.blob";

/// Which snapshot to read, and with which key.
#[derive(Clone)]
pub struct SnapshotAccess {
    /// Datastore on the server.
    pub datastore: String,
    /// Namespace in the datastore.
    pub namespace: Namespace,
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Key of an encrypted or signed snapshot.
    pub key: Option<Arc<CryptKey>>,
}

/// A running reader session, perhaps over several connections.
pub struct ReaderSession {
    sessions: Vec<Session>,
    next: AtomicUsize,
    key: Option<Arc<CryptKey>>,
    decoding: Decoding,
}

impl ReaderSession {
    /// Opens a session over `connections` connections, at least one. More than one pays on links with long round trips.
    ///
    /// # Errors
    /// Refusals of the server and network failures.
    pub async fn open(
        client: &HttpClient,
        access: &SnapshotAccess,
        connections: usize,
    ) -> Result<Arc<Self>> {
        let params = SessionTarget::params(&access.datastore, &access.namespace, &access.snapshot);
        let params = Value::Object(params);
        let mut sessions = Vec::new();
        for _ in 0..connections.max(1) {
            sessions.push(Session::open(client, "reader", &params, PROTOCOL).await?);
        }
        Ok(Arc::new(Self {
            sessions,
            next: AtomicUsize::new(0),
            key: access.key.clone(),
            decoding: Decoding::new(Workers::shared()?, access.key.clone()),
        }))
    }

    /// The key that this session decrypts with.
    pub fn key(&self) -> Option<&Arc<CryptKey>> {
        self.key.as_ref()
    }

    fn decoding(&self) -> &Decoding {
        &self.decoding
    }

    /// The manifest. With a key, its signature is verified.
    ///
    /// # Errors
    /// Damaged, signed by another key, or changed after it was signed.
    pub async fn manifest(&self) -> Result<Manifest> {
        let raw = self.file(MANIFEST_NAME, MAX_BLOB_SIZE).await?;
        open_manifest(raw, self.key.as_deref(), "manifest")
    }

    /// The text of the manifest, which has been read and verified before.
    pub(crate) async fn manifest_text(&self) -> Result<Vec<u8>> {
        let raw = self.file(MANIFEST_NAME, MAX_BLOB_SIZE).await?;
        open_manifest(raw.clone(), self.key.as_deref(), "manifest")?;
        DataBlob::load(raw)
            .and_then(|blob| blob.decode(None, MAX_BLOB_SIZE))
            .map_err(ClientError::data("manifest"))
    }

    /// The content of a blob that the manifest lists.
    ///
    /// # Errors
    /// Not listed, not the one that the manifest describes, or not readable with the key.
    pub async fn blob(&self, name: &str, manifest: &Manifest) -> Result<Vec<u8>> {
        let entry = manifest_entry(name, manifest)?;
        if name != ESCROW_NAME {
            self.check_key(manifest, entry)?;
        }
        let raw = self.file(name, MAX_BLOB_SIZE + (1 << 10)).await?;
        let (size, checksum) = (raw.len() as u64, Digest::of(&raw));
        compare(name, size, &checksum, entry)?;
        let blob = DataBlob::load(raw).map_err(ClientError::data(name))?;
        if name != ESCROW_NAME {
            check_mode(&blob, entry.crypt_mode).map_err(ClientError::data(name))?;
        }
        blob.decode(self.key.as_deref(), MAX_BLOB_SIZE)
            .map_err(ClientError::data(name))
    }

    /// A blob that no manifest lists, such as the client's log.
    ///
    /// # Errors
    /// Absent, damaged, or not readable with the key.
    pub async fn unlisted_blob(&self, name: &str) -> Result<Vec<u8>> {
        let raw = self.file(name, MAX_BLOB_SIZE + (1 << 10)).await?;
        DataBlob::load(raw)
            .and_then(|blob| blob.decode(self.key.as_deref(), MAX_BLOB_SIZE))
            .map_err(ClientError::data(name))
    }

    /// The chunks of an archive, fixed or dynamic, that the manifest lists.
    ///
    /// # Errors
    /// Not listed, damaged, or not the index that the manifest describes; missing or wrong key.
    pub async fn archive(self: &Arc<Self>, name: &str, manifest: &Manifest) -> Result<ChunkSource> {
        let entry = manifest_entry(name, manifest)?;
        self.check_key(manifest, entry)?;
        let raw = self.file(name, MAX_INDEX_SIZE).await?;
        let index = parse_index(name, raw)?;
        check_index(&index, name, manifest)?;
        // Each connection may fetch only the chunks of indexes that were downloaded over it.
        for session in self.sessions.iter().skip(1) {
            download(session, name, MAX_INDEX_SIZE).await?;
        }
        Ok(ChunkSource::new(
            Arc::clone(self),
            name,
            index,
            entry.crypt_mode,
        ))
    }

    /// A file of the snapshot as the server stores it, at most `limit` bytes. Nothing of it is checked. For a session with
    /// one connection the chunks of an index can be had from then on.
    ///
    /// # Errors
    /// The server has no such file, or a network failure.
    pub async fn stored_file(&self, name: &str, limit: usize) -> Result<Vec<u8>> {
        self.file(name, limit).await
    }

    /// A chunk as the server stores it, at most `limit` bytes, unchecked; `expected` is a guess of its length. An index that
    /// was fetched before must name it.
    ///
    /// # Errors
    /// The server does not give it, or a network failure.
    pub async fn stored_chunk(
        &self,
        digest: &Digest,
        expected: usize,
        limit: usize,
    ) -> Result<Vec<u8>> {
        self.raw_chunk(digest, expected, limit.min(MAX_ENCODED_CHUNK_SIZE))
            .await
    }

    /// A raw file of the snapshot.
    async fn file(&self, name: &str, limit: usize) -> Result<Vec<u8>> {
        match self.sessions.first() {
            Some(session) => download(session, name, limit).await,
            None => Err(ClientError::Cancelled),
        }
    }

    /// The stored form of a chunk, at most `limit` bytes; `expected` is a guess of its length.
    async fn raw_chunk(&self, digest: &Digest, expected: usize, limit: usize) -> Result<Vec<u8>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let position = turn.checked_rem(self.sessions.len()).unwrap_or(0);
        let session = self.sessions.get(position).ok_or(ClientError::Cancelled)?;
        let query = json!({"digest": digest.to_string()});
        let buffer = self.decoding.buffers().take(expected);
        session.download("chunk", &query, buffer, limit).await
    }

    /// Whether the key fits an encrypted file of this snapshot.
    fn check_key(&self, manifest: &Manifest, entry: &FileEntry) -> Result<()> {
        let recorded = manifest
            .fingerprint()
            .map_err(ClientError::data("manifest"))?;
        match (&self.key, recorded) {
            (Some(key), Some(expected)) if expected != key.fingerprint() => {
                Err(ClientError::WrongKey {
                    expected: expected.short_id(),
                    given: key.fingerprint().short_id(),
                })
            }
            (None, expected) if entry.crypt_mode == CryptMode::Encrypt => {
                Err(ClientError::MissingKey {
                    expected: expected
                        .map_or_else(|| "of unknown fingerprint".to_owned(), |f| f.short_id()),
                })
            }
            _ => Ok(()),
        }
    }
}

async fn download(session: &Session, name: &str, limit: usize) -> Result<Vec<u8>> {
    session
        .download("download", &json!({"file-name": name}), Vec::new(), limit)
        .await
}

fn parse_index(name: &str, raw: Vec<u8>) -> Result<AnyIndex> {
    let parsed = if name.ends_with(".didx") {
        DynamicIndex::parse(raw).map(AnyIndex::Dynamic)
    } else if name.ends_with(".fidx") {
        FixedIndex::parse(raw).map(AnyIndex::Fixed)
    } else {
        return Err(ClientError::Invalid(format!("'{name}' is not an index")));
    };
    parsed.map_err(ClientError::data(name))
}

/// Reads a manifest blob and, with a key, verifies its signature.
pub(crate) fn open_manifest(raw: Vec<u8>, key: Option<&CryptKey>, what: &str) -> Result<Manifest> {
    let manifest = DataBlob::load(raw)
        .and_then(|blob| Manifest::from_blob(&blob))
        .map_err(ClientError::data(what))?;
    if let Some(key) = key {
        manifest.verify(key).map_err(ClientError::data(what))?;
    }
    Ok(manifest)
}

/// The manifest's entry of a file.
pub(crate) fn manifest_entry<'a>(name: &str, manifest: &'a Manifest) -> Result<&'a FileEntry> {
    manifest
        .file(name)
        .ok_or_else(|| ClientError::NoSuchArchive {
            name: name.to_owned(),
        })
}

/// Compares an index with what the manifest says of it.
pub(crate) fn check_index(index: &dyn ChunkIndex, name: &str, manifest: &Manifest) -> Result<()> {
    let entry = manifest_entry(name, manifest)?;
    compare(name, index.size(), &index.checksum(), entry)
}

fn compare(name: &str, size: u64, checksum: &Digest, entry: &FileEntry) -> Result<()> {
    if size != entry.size {
        return Err(ClientError::mismatch(
            name,
            format!(
                "wrong size: the manifest says {}, it has {size}",
                entry.size
            ),
        ));
    }
    if *checksum != entry.csum {
        return Err(ClientError::mismatch(
            name,
            format!(
                "wrong checksum: the manifest says {}, it has {checksum}",
                entry.csum
            ),
        ));
    }
    Ok(())
}

/// Whether a blob is encrypted exactly if its file is said to be.
pub(crate) fn check_mode(blob: &DataBlob, mode: CryptMode) -> std::result::Result<(), FormatError> {
    let name = |encrypted: bool| {
        if encrypted {
            "encrypted"
        } else {
            "not encrypted"
        }
    };
    let expected = mode == CryptMode::Encrypt;
    if blob.is_encrypted() == expected {
        Ok(())
    } else {
        Err(FormatError::WrongEncryption {
            expected: name(expected),
            found: name(!expected),
        })
    }
}
