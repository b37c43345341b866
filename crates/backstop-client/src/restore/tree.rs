//! Restore of a directory tree: the extractor on a thread, fed by chunks that are fetched ahead.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use backstop_format::index::ChunkIndex as _;
use backstop_format::pxar::decoder::Decoder;
use tokio::runtime::Handle;

use super::progress::ProgressReport;
use super::request::{ExtractOptions, RestoreRequest};
use super::target::{blocking, failed};
use crate::activity::Activity;
use crate::archive::{self, ArchiveError, Features, MatchType, Pattern};
use crate::error::Result;
use crate::reader::{ArchiveStream, ChunkSource, ReadAhead};

/// Extracts a tree; `payload` is the second part of a split one.
pub(super) async fn extract(
    archive: ChunkSource,
    payload: Option<ChunkSource>,
    target: &Path,
    request: &RestoreRequest,
    activity: &Arc<dyn Activity>,
) -> Result<()> {
    let options = archive_options(&request.extract)?;
    // With a selection, contents that are not wanted are not fetched either.
    let selective = options.only_matching;
    let read_ahead = if selective {
        ReadAhead::Growing
    } else {
        ReadAhead::Full
    };
    let runtime = Handle::current();
    let stream = ArchiveStream::with_read_ahead(archive.clone(), &runtime, read_ahead);
    let payload_stream = payload
        .as_ref()
        .map(|payload| ArchiveStream::with_read_ahead(payload.clone(), &runtime, read_ahead));
    let main = payload.as_ref().unwrap_or(&archive);
    let delivered = payload_stream.as_ref().unwrap_or(&stream).delivered();
    let total = (!selective).then(|| main.index().size());
    let report = ProgressReport::new(&**activity, &request.archive, total, delivered, main);
    let (target, extracting) = (target.to_owned(), Arc::clone(activity));
    let prelude_target = request.extract.prelude_target.clone();
    let work = blocking(move || {
        let prelude = match payload_stream {
            Some(payload) => {
                let mut decoder = Decoder::split_seekable(stream, payload);
                archive::extract(&mut decoder, &target, &options, &*extracting)?;
                decoder.prelude().map(<[u8]>::to_vec)
            }
            None => {
                let mut decoder = Decoder::new(stream).seek_over_contents();
                archive::extract(&mut decoder, &target, &options, &*extracting)?;
                None
            }
        };
        if let (Some(prelude), Some(path)) = (prelude, prelude_target) {
            let mut file = super::target::create_new(&path)?;
            file.write_all(&prelude)
                .map_err(|source| failed("writing", &path, source))?;
        }
        Ok(())
    });
    report.during(work).await
}

/// The extractor's options for a request.
fn archive_options(options: &ExtractOptions) -> Result<archive::ExtractOptions> {
    let mut patterns = Vec::new();
    for text in &options.patterns {
        patterns.push(Pattern::parse(text, MatchType::Include).map_err(ArchiveError::from)?);
    }
    Ok(archive::ExtractOptions {
        only_matching: !patterns.is_empty(),
        patterns,
        allow_existing_dirs: options.allow_existing_dirs,
        overwrite_files: options.overwrite_files,
        overwrite_symlinks: options.overwrite_symlinks,
        overwrite_hardlinks: options.overwrite_hardlinks,
        ignore_ownership: options.ignore_ownership,
        ignore_permissions: options.ignore_permissions,
        ignore_device_errors: options.ignore_extract_device_errors,
        features: Features {
            acls: !options.ignore_acls,
            xattrs: !options.ignore_xattrs,
            ..Features::default()
        },
        ..archive::ExtractOptions::default()
    })
}
