//! Restore of a disk image to a file: chunks are fetched, checked and written many at a time, each at its place.
//!
//! Zero chunks are neither fetched nor written, so that the file has holes there.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstop_format::blob::is_zero;
use backstop_format::index::ChunkIndex as _;
use tokio::task::JoinSet;

use super::progress::ProgressReport;
use super::target::{blocking, create_new, failed};
use crate::activity::Activity;
use crate::error::{ClientError, Result};
use crate::reader::ChunkSource;

/// Chunks under way at most: 24 of 4 MiB are 96 MiB encoded; only those on worker threads are decoded.
const MAX_CHUNKS: usize = 24;

/// Writes an image into a new file.
pub(super) async fn to_file(
    source: ChunkSource,
    path: &Path,
    archive: &str,
    activity: &dyn Activity,
) -> Result<()> {
    let size = source.index().size();
    let file = {
        let path = path.to_owned();
        blocking(move || {
            let file = create_new(&path)?;
            file.set_len(size)
                .map_err(|source| failed("writing", &path, source))?;
            Ok(Arc::new(file))
        })
        .await?
    };
    let written = Arc::new(AtomicU64::new(0));
    let report = ProgressReport::new(activity, archive, Some(size), Arc::clone(&written), &source);
    let target: Arc<Path> = path.into();
    let work = async {
        let mut tasks = JoinSet::new();
        for position in 0..source.index().chunk_count() {
            let span = source.span(position)?;
            if source.is_zero_chunk(&span) {
                written.fetch_add(span.size(), Ordering::Relaxed);
                continue;
            }
            if tasks.len() >= MAX_CHUNKS {
                finished(tasks.join_next().await)?;
            }
            let (source, file) = (source.clone(), Arc::clone(&file));
            let (target, written) = (Arc::clone(&target), Arc::clone(&written));
            tasks.spawn(async move {
                let write = move |chunk: &[u8]| {
                    if !is_zero(chunk) {
                        file.write_all_at(chunk, span.start)
                            .map_err(|source| failed("writing", &target, source))?;
                    }
                    written.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                    Ok(())
                };
                source.fetch_with(position, write).await
            });
        }
        while let Some(result) = tasks.join_next().await {
            finished(Some(result))?;
        }
        Ok(())
    };
    report.during(work).await
}

fn finished(result: Option<std::result::Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match result {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(ClientError::Invalid(format!("internal error: {error}"))),
        None => Ok(()),
    }
}
