//! Writing an index whose chunks exist already in the form in which they are stored: what one server sends to another.
//!
//! Where chunks come from, and how many are under way, is for the caller to say. A chunk is sent once in a session, and named
//! in an index only after the server has confirmed it. One append is under way at a time, with everything that has become
//! ready meanwhile.

use backstop_format::Digest;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use tokio::sync::mpsc;

use super::index_sum::IndexSum;
use super::{BackupSession, IndexKind, IndexWriter};
use crate::error::{ClientError, Result};

/// Most entries of one append: about 200 KiB of JSON, below the server's limit of 512 KiB.
pub(crate) const MAX_APPEND: usize = 2048;

/// An index that is being written.
pub struct IndexCopy<'a> {
    session: &'a BackupSession,
    writer: IndexWriter,
}

/// An index that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedIndex {
    /// Size of the archive, in bytes.
    pub size: u64,
    /// Checksum over the entries, as the manifest lists it.
    pub checksum: Digest,
}

impl BackupSession {
    /// Opens an index. `name` ends in `.didx` or `.fidx`; `size` is that of the archive.
    ///
    /// # Errors
    /// Another name; refusals of the server and network failures.
    pub async fn copy_index(&self, name: &str, size: u64) -> Result<IndexCopy<'_>> {
        let (kind, size) = if name.ends_with(".didx") {
            (IndexKind::Dynamic, None)
        } else if name.ends_with(".fidx") {
            (IndexKind::Fixed, Some(size))
        } else {
            return Err(ClientError::Invalid(format!("'{name}' is not an index")));
        };
        let writer = self.create_index(kind, name, size).await?;
        Ok(IndexCopy {
            session: self,
            writer,
        })
    }
}

impl IndexCopy<'_> {
    /// Whether a chunk has to be [sent](Self::send): the previous snapshot has not got it, and nobody else sends it in this
    /// session. Who hears yes has to send it.
    pub fn wants(&self, digest: &Digest) -> bool {
        self.session.known.claim(digest)
    }

    /// Sends a chunk in its stored form; `size` is that of its plaintext.
    ///
    /// # Errors
    /// Refusals of the server and network failures.
    pub async fn send(&self, digest: &Digest, size: u64, blob: Bytes) -> Result<()> {
        self.session
            .upload_chunk(self.writer, digest, size, blob)
            .await?;
        self.session.known.confirm(digest);
        Ok(())
    }

    /// Waits until a chunk that somebody else sends in this session has arrived.
    ///
    /// # Errors
    /// The session is over.
    pub async fn arrived(&self, digest: &Digest) -> Result<()> {
        let known = &self.session.known;
        let mut confirmations = known.confirmations();
        loop {
            // Marks the present as seen before looking, so that no confirmation is missed.
            confirmations.borrow_and_update();
            if known.is_confirmed(digest) {
                return Ok(());
            }
            let changed = confirmations.changed().await;
            changed.map_err(|_| ClientError::Cancelled)?;
        }
    }

    /// Writes the entries in their order and closes the index. Digest and plaintext size of a chunk come out of `entries`
    /// after the chunk was sent, or has arrived.
    ///
    /// # Errors
    /// What `entries` says; refusals of the server and network failures.
    pub async fn write<E: From<ClientError>>(
        &self,
        entries: impl Stream<Item = std::result::Result<(Digest, u64), E>>,
    ) -> std::result::Result<CopiedIndex, E> {
        let (ready, mut waiting) = mpsc::channel(MAX_APPEND);
        let feed = async move {
            let feed = entries.try_for_each(|entry| {
                let ready = ready.clone();
                async move {
                    let sent = ready.send(entry).await;
                    sent.map_err(|_| E::from(ClientError::Cancelled))
                }
            });
            feed.await
        };
        let append = async {
            let mut sum = IndexSum::new(self.writer.kind());
            let mut batch = Vec::with_capacity(MAX_APPEND);
            while waiting.recv_many(&mut batch, MAX_APPEND).await > 0 {
                let entries: Vec<(u64, Digest)> = batch
                    .drain(..)
                    .map(|(digest, size)| (sum.add(&digest, size), digest))
                    .collect();
                self.session.append(self.writer, &entries).await?;
            }
            Ok::<_, E>(sum)
        };
        let ((), sum) = tokio::try_join!(feed, append)?;
        let (chunks, size, checksum) = (sum.chunks(), sum.size(), sum.finish());
        self.session
            .close_index(self.writer, chunks, size, &checksum)
            .await?;
        Ok(CopiedIndex { size, checksum })
    }
}
