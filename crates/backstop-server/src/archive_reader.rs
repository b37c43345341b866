//! The content of an archive of an unencrypted snapshot, put together from its chunks.
//!
//! The index is compared with the manifest first, every chunk with its digest; a mismatch is an error, never data.
//! Everything here blocks but for [`reader_body`].

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use backstop_format::index::{AnyIndex, ChunkIndex, ChunkSpan};
use backstop_format::manifest::Manifest;
use backstop_format::read_at::ReadAt;
use backstop_types::{ArchiveName, Namespace, Snapshot};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::datastores::{DatastoreHandle, Place};
use crate::http::ApiError;
use crate::http::body::{Body, streamed};

/// Decoded chunks that one reader keeps: at most 128 MiB, 32 MiB with the usual chunks of 4 MiB.
const CACHED_CHUNKS: usize = 8;

/// Random access to an archive. Cheap to clone; clones share their chunks.
#[derive(Clone)]
pub struct ArchiveReader {
    inner: Arc<Inner>,
}

struct Inner {
    datastore: DatastoreHandle,
    index: AnyIndex,
    cache: Mutex<VecDeque<(u64, Bytes)>>,
}

impl ArchiveReader {
    /// Opens the archive `name` of a snapshot whose manifest says that it is not encrypted.
    ///
    /// # Errors
    /// The index cannot be read, or is not the one that the manifest describes.
    pub fn open(
        datastore: DatastoreHandle,
        ns: &Namespace,
        snapshot: &Snapshot,
        name: &ArchiveName,
        manifest: &Manifest,
    ) -> Result<Self, ApiError> {
        let path = datastore.snapshot_path(ns, snapshot).join(name.as_str());
        let kind = name.kind().extension();
        let kind = if kind == "fidx" { "fixed" } else { "dynamic" };
        let index = datastore.load_index(ns, snapshot, name).map_err(|err| {
            let reason = if err.is_not_found() {
                format!(
                    "Unable to open {kind} index {path:?} - No such file or directory (os error 2)"
                )
            } else {
                crate::http::error::chain(&err)
            };
            ApiError::bad_request(format!("unable to read {kind} index '{path:?}' - {reason}"))
        })?;
        let listed = manifest.file(name.as_str());
        let listed = listed.ok_or_else(|| {
            ApiError::bad_request(format!("manifest does not list file '{name}'"))
        })?;
        if listed.csum != index.checksum() || listed.size != index.size() {
            let text = format!(
                "index {path:?} is not the one that the manifest describes; the snapshot is damaged"
            );
            return Err(ApiError::bad_request(text));
        }
        Ok(Self {
            inner: Arc::new(Inner {
                datastore,
                index,
                cache: Mutex::default(),
            }),
        })
    }

    /// The chunk that holds `offset`, decoded and checked, and where it starts.
    fn chunk_at(&self, offset: u64) -> io::Result<Option<(u64, Bytes)>> {
        let Inner {
            datastore,
            index,
            cache,
        } = &*self.inner;
        let Some(span) = index
            .locate(offset)
            .and_then(|position| index.chunk(position))
        else {
            return Ok(None);
        };
        let ChunkSpan { digest, start, .. } = span;
        let mut chunks = cache.lock();
        if let Some(position) = chunks.iter().position(|(at, _)| *at == start) {
            let hit = chunks.remove(position);
            if let Some(hit) = &hit {
                chunks.push_front(hit.clone());
            }
            return Ok(hit);
        }
        drop(chunks);
        let blob = datastore.chunks().load(&digest).map_err(io::Error::other)?;
        let data: Bytes = blob
            .decode_chunk(None, &digest, span.size())
            .map_err(io::Error::other)?
            .into();
        let mut chunks = cache.lock();
        chunks.push_front((start, data.clone()));
        chunks.truncate(CACHED_CHUNKS);
        Ok(Some((start, data)))
    }

    /// The bytes of `range` that lie in one chunk, from its start on; empty at the end.
    fn piece(&self, range: &Range<u64>) -> io::Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let Some((start, data)) = self.chunk_at(range.start)? else {
            return Ok(Bytes::new());
        };
        let from = usize::try_from(range.start.saturating_sub(start))
            .unwrap_or(usize::MAX)
            .min(data.len());
        let to = usize::try_from(range.end.saturating_sub(start))
            .unwrap_or(usize::MAX)
            .min(data.len());
        Ok(data.slice(from..to.max(from)))
    }
}

impl ReadAt for ArchiveReader {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let wanted = offset..offset.saturating_add(buf.len() as u64);
        let piece = self.piece(&wanted)?;
        if let Some(target) = buf.get_mut(..piece.len()) {
            target.copy_from_slice(&piece);
        }
        Ok(piece.len())
    }

    fn size(&self) -> u64 {
        self.inner.index.size()
    }
}

impl ArchiveReader {
    /// Where its datastore is.
    pub fn place(&self) -> &Arc<Place> {
        self.inner.datastore.place()
    }
}

/// The whole archive as the body of an answer. While a piece is sent, the next one is read; between pieces no thread
/// waits.
pub fn reader_body(archive: ArchiveReader) -> Body {
    let end = archive.size();
    section_body(archive, 0..end)
}

/// A part of the archive as the body of an answer.
pub fn section_body(archive: ArchiveReader, mut range: Range<u64>) -> Body {
    let (sender, body) = streamed(1);
    tokio::spawn(async move {
        while !range.is_empty() {
            let (reader, wanted) = (archive.clone(), range.clone());
            let place = archive.place();
            let read = place.work(move || reader.piece(&wanted)).await;
            let piece = match read.unwrap_or_else(|err| Err(io::Error::other(err.to_string()))) {
                Ok(piece) if piece.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other,
            };
            let length = piece.as_ref().map_or(0, |piece| piece.len() as u64);
            range.start = range.start.saturating_add(length);
            // a client that went away needs nothing more, and after an error there is nothing more
            if sender.send(piece).await.is_err() || length == 0 {
                return;
            }
        }
    });
    body
}
