//! Decrypting a snapshot while it is pulled: its chunks get other names, so that its indexes and its manifest are written anew.
//!
//! Nothing is stored that was not authentic: each chunk and blob carries a tag of the key, and the signature of the manifest,
//! which names them all, was verified before.

use std::collections::HashMap;
use std::sync::Arc;

use backstop_format::blob::{DataBlob, MAX_BLOB_SIZE, MAX_CHUNK_SIZE};
use backstop_format::index::{
    AnyIndex, ChunkIndex as _, ChunkSpan, DynamicIndexBuilder, FixedIndexBuilder,
};
use backstop_format::manifest::{FileEntry, Manifest};
use backstop_format::{CryptKey, CryptMode, Digest, FormatError};
use backstop_types::ArchiveName;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;

use super::chunks::fetch;
use super::error::{Result, SyncError};
use super::in_flight::CHUNKS_AT_ONCE;
use super::pull::Run;
use super::report::Moved;
use super::source::OpenSnapshot;
use super::treatment::{FORMER_NAME, SOURCE_SIGNATURE, signature};
use crate::http::error::chain;

/// The names that chunks of this run got when they were decrypted, by those that they have at the source.
#[derive(Default)]
pub(super) struct DecryptedChunks(Mutex<HashMap<Digest, Digest>>);

impl DecryptedChunks {
    fn get(&self, digest: &Digest) -> Option<Digest> {
        self.0.lock().get(digest).copied()
    }
}

/// An index or blob that was decrypted.
pub(super) struct DecryptedFile {
    pub raw: Vec<u8>,
    /// What the manifest says of it.
    pub entry: FileEntry,
    pub moved: Moved,
}

fn entry(name: &ArchiveName, size: u64, csum: Digest) -> FileEntry {
    FileEntry {
        filename: name.as_str().to_owned(),
        crypt_mode: CryptMode::None,
        size,
        csum,
    }
}

/// Sees to it that the target has all chunks of an index, decrypted, and writes the index that names them so.
pub(super) async fn decrypt_index(
    run: &Run,
    source: &OpenSnapshot,
    (name, index): (&ArchiveName, &AnyIndex),
    key: &Arc<CryptKey>,
) -> Result<DecryptedFile> {
    let chunks = stream::iter(0..index.chunk_count()).map(|position| async move {
        let span = index.chunk(position);
        let span = span.filter(|span| span.size() <= MAX_CHUNK_SIZE as u64);
        let span = span.ok_or_else(|| {
            SyncError::Content(format!("the index has no usable chunk {position}"))
        })?;
        let (name, bytes) = decrypt_chunk(run, source, span, key).await?;
        Ok::<_, SyncError>((span, name, bytes))
    });
    let decrypted: Vec<(ChunkSpan, Digest, Option<u64>)> =
        chunks.buffered(CHUNKS_AT_ONCE).try_collect().await?;
    let moved = Moved {
        chunks: decrypted
            .iter()
            .filter(|(_, _, bytes)| bytes.is_some())
            .count() as u64,
        bytes: decrypted.iter().filter_map(|(_, _, bytes)| *bytes).sum(),
    };
    let chunks = decrypted.iter().map(|(span, digest, _)| (*span, *digest));
    let (raw, csum, size) = rewritten(index, chunks)
        .map_err(|error| SyncError::Content(format!("its index: {}", chain(&error))))?;
    Ok(DecryptedFile {
        raw,
        entry: entry(name, size, csum),
        moved,
    })
}

/// An index of the same shape with other names.
fn rewritten(
    index: &AnyIndex,
    chunks: impl Iterator<Item = (ChunkSpan, Digest)>,
) -> std::result::Result<(Vec<u8>, Digest, u64), FormatError> {
    match index {
        AnyIndex::Dynamic(_) => {
            let mut builder = DynamicIndexBuilder::new();
            for (span, digest) in chunks {
                builder.append(span.size(), &digest)?;
            }
            builder.finish()
        }
        AnyIndex::Fixed(fixed) => {
            let mut builder = FixedIndexBuilder::new(Some(index.size()), fixed.chunk_size())?;
            for (span, digest) in chunks {
                builder.add(span.start, span.size(), &digest)?;
            }
            builder.finish()
        }
    }
}

/// Sees to it that the target has a chunk, decrypted. Returns its name there, and how many bytes were fetched for it.
async fn decrypt_chunk(
    run: &Run,
    source: &OpenSnapshot,
    span: ChunkSpan,
    key: &Arc<CryptKey>,
) -> Result<(Digest, Option<u64>)> {
    let (digest, size) = (span.digest, span.size());
    let _gate = run.fetched.gate(&digest).await;
    if let Some(name) = run.decrypted.get(&digest) {
        return Ok((name, None));
    }
    let Some(flight) = run.in_flight.begin(size).await else {
        return Err(SyncError::Broken("the server is shutting down".to_owned()));
    };
    let raw = fetch(source, &digest, size).await?;
    flight.arrived();
    let bytes = raw.len() as u64;
    let key = Arc::clone(key);
    let stored = run.target.store_chunk(move |store| {
        let decrypted = DataBlob::load(raw).and_then(|blob| {
            let plain = blob.decode_chunk(Some(&key), &digest, size)?;
            Ok((Digest::of(&plain), DataBlob::encode(&plain, None, true)?))
        });
        match decrypted {
            Ok((name, blob)) => {
                store.chunks().insert(&name, &blob)?;
                Ok(Ok(name))
            }
            Err(error) => Ok(Err(chain(&error))),
        }
    });
    let name = stored.await?.map_err(|reason| {
        SyncError::Content(format!(
            "chunk {digest} is damaged at the source - {reason}"
        ))
    })?;
    run.decrypted.0.lock().insert(digest, name);
    Ok((name, Some(bytes)))
}

/// Decrypts a blob. Blocking.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decrypt_blob(
    name: &ArchiveName,
    raw: Vec<u8>,
    key: &CryptKey,
) -> std::result::Result<DecryptedFile, String> {
    let decrypted = DataBlob::load(raw).and_then(|blob| {
        let plain = blob.decode(Some(key), MAX_BLOB_SIZE)?;
        DataBlob::encode(&plain, None, true)
    });
    let blob = decrypted.map_err(|error| format!("file '{name}': {}", chain(&error)))?;
    let raw = blob.into_raw();
    Ok(DecryptedFile {
        entry: entry(name, raw.len() as u64, Digest::of(&raw)),
        moved: Moved::default(),
        raw,
    })
}

/// The manifest of a decrypted snapshot. It is not signed, and says what it was made from.
pub(super) fn decrypted_manifest(source: &Manifest, files: Vec<FileEntry>) -> Manifest {
    let mut manifest = source.clone();
    for member in [
        "key-fingerprint",
        "verify_state",
        FORMER_NAME,
        SOURCE_SIGNATURE,
    ] {
        manifest.remove_unprotected(member);
    }
    if let Some(signature) = signature(source) {
        manifest.set_unprotected(SOURCE_SIGNATURE, signature.to_string().into());
    }
    manifest.signature = None;
    manifest.files = files;
    manifest
}
