//! What the hardware allows: the costly steps of a backup on bytes that are already in memory.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use backstop_format::Digest;
use backstop_format::blob::{BlobEncoder, DataBlob, MAX_CHUNK_SIZE};
use backstop_format::chunker::Chunker;

/// Bytes of the sample on which the bound is measured.
const SAMPLE: usize = 256 << 20;
/// Size of the pieces, as an average chunk.
const PIECE: usize = 4 << 20;

/// Speeds in bytes per second.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// One core: SHA-256 and zstd.
    pub single_backup: f64,
    /// All cores: SHA-256 and zstd.
    pub backup: f64,
    /// All cores, which a server on the same machine shares: SHA-256 and zstd, and the check of what arrives.
    pub both_ends: f64,
    /// All cores: SHA-256 and, where the data is a stream, cutting.
    pub unchanged: f64,
    /// All cores: decompression and SHA-256.
    pub restore: f64,
    /// All cores: decompression, SHA-256 and writing to files in the directory of temporary files.
    pub written: f64,
}

/// At most `limit` bytes of the files below `path` (or of the file `path`), in pieces.
///
/// # Errors
///
/// When a file cannot be read.
fn load(path: &Path, limit: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    collect(path, limit, &mut all)?;
    Ok(all.chunks(PIECE).map(<[u8]>::to_vec).collect())
}

fn collect(path: &Path, limit: usize, all: &mut Vec<u8>) -> io::Result<()> {
    if all.len() >= limit {
        return Ok(());
    }
    let meta = fs::symlink_metadata(path)?;
    if meta.is_dir() {
        let mut names = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        names.sort_by_key(std::fs::DirEntry::file_name);
        for entry in names {
            collect(&entry.path(), limit, all)?;
        }
    } else if meta.is_file() {
        let room = limit - all.len();
        fs::File::open(path)?.take(room as u64).read_to_end(all)?;
    }
    Ok(())
}

impl Bound {
    /// Measures the data at `path` in a process of its own, so that this one stays small: the peak memory that the kernel
    /// tells of a child begins with that of its parent.
    ///
    /// # Errors
    ///
    /// When that process fails.
    pub fn in_own_process(path: &Path, cut: bool) -> Result<Self> {
        let kind = if cut { "stream" } else { "image" };
        let output = Command::new(std::env::current_exe()?)
            .arg("bound")
            .arg(path)
            .arg(kind)
            .output()?;
        let text = testbed::server::succeeded(&output)?;
        let numbers: Vec<f64> = text
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [
            single_backup,
            backup,
            both_ends,
            unchanged,
            restore,
            written,
        ] = numbers[..]
        else {
            bail!("no speeds in {text:?}")
        };
        Ok(Self {
            single_backup,
            backup,
            both_ends,
            unchanged,
            restore,
            written,
        })
    }

    /// The other side of [`Bound::in_own_process`].
    ///
    /// # Errors
    ///
    /// When the data cannot be read.
    pub fn print(path: &Path, kind: &str) -> Result<()> {
        let bound = Self::measure(&load(path, SAMPLE)?, kind == "stream")?;
        println!(
            "{} {} {} {} {} {}",
            bound.single_backup,
            bound.backup,
            bound.both_ends,
            bound.unchanged,
            bound.restore,
            bound.written
        );
        Ok(())
    }

    /// Measures on `pieces`; `cut` says whether a backup of this data has to find chunk boundaries.
    ///
    /// # Errors
    ///
    /// When a piece cannot be encoded.
    fn measure(pieces: &[Vec<u8>], cut: bool) -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let bytes: usize = pieces.iter().map(Vec::len).sum();
        let backup = |encoder: &mut BlobEncoder, piece: &Vec<u8>| {
            std::hint::black_box(Digest::of(piece));
            std::hint::black_box(encoder.encode(piece).is_ok());
        };
        let blobs: Vec<DataBlob> = pieces
            .iter()
            .map(|piece| DataBlob::encode(piece, None, true))
            .collect::<Result<_, _>>()
            .context("encoding the sample")?;
        Ok(Self {
            single_backup: speed(bytes, 1, pieces, || BlobEncoder::new(None, true), backup),
            backup: speed(
                bytes,
                cores,
                pieces,
                || BlobEncoder::new(None, true),
                backup,
            ),
            both_ends: speed(
                bytes,
                cores,
                pieces,
                || BlobEncoder::new(None, true),
                |encoder, piece| {
                    let digest = Digest::of(piece);
                    let sent = encoder.encode(piece);
                    let checked =
                        sent.and_then(|blob| blob.verify_plain_chunk(&digest, piece.len() as u64));
                    std::hint::black_box(checked.is_ok());
                },
            ),
            unchanged: speed(
                bytes,
                cores,
                pieces,
                || Chunker::new(PIECE),
                |chunker, piece| {
                    std::hint::black_box(Digest::of(piece));
                    if cut {
                        let mut rest = piece.as_slice();
                        while let Some(end) = chunker.scan(rest) {
                            rest = rest.get(end..).unwrap_or_default();
                        }
                        chunker.reset();
                    }
                },
            ),
            restore: speed(
                bytes,
                cores,
                &blobs,
                || (),
                |(), blob| {
                    let plain = blob.decode(None, MAX_CHUNK_SIZE).unwrap_or_default();
                    std::hint::black_box(Digest::of(&plain));
                },
            ),
            written: speed(
                bytes,
                cores,
                &blobs,
                || tempfile::tempfile().ok(),
                |file, blob| {
                    let plain = blob.decode(None, MAX_CHUNK_SIZE).unwrap_or_default();
                    std::hint::black_box(Digest::of(&plain));
                    if let Some(file) = file {
                        let _ = file.write_all(&plain);
                    }
                },
            ),
        })
    }
}

/// Bytes per second of `work` on all `items`, spread over `threads`.
fn speed<T: Sync, S>(
    bytes: usize,
    threads: usize,
    items: &[T],
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) + Sync,
) -> f64 {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut state = state();
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(&mut state, item);
                }
            });
        }
    });
    bytes as f64 / start.elapsed().as_secs_f64()
}
