//! Files and standard output as targets of a restore.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use backstop_format::index::ChunkIndex as _;
use tokio::runtime::Handle;

use super::progress::ProgressReport;
use super::request::RestoreTarget;
use crate::activity::Activity;
use crate::error::{ClientError, Result};
use crate::fingerprint_store::replace_file;
use crate::reader::{ArchiveStream, ChunkSource};

/// Writes a whole file; an existing one is replaced only if `replace` says so.
pub(super) async fn write_file(
    target: RestoreTarget,
    content: Vec<u8>,
    replace: bool,
) -> Result<()> {
    blocking(move || match target {
        RestoreTarget::Stdout => {
            let mut stdout = stdout()?;
            stdout.write_all(&content)?;
            Ok(())
        }
        RestoreTarget::Path(path) if replace => {
            replace_file(&path, &content, 0o666).map_err(|source| failed("writing", &path, source))
        }
        RestoreTarget::Path(path) => {
            let mut file = create_new(&path)?;
            file.write_all(&content)
                .map_err(|source| failed("writing", &path, source))
        }
    })
    .await
}

/// Writes an archive to standard output as it is.
pub(super) async fn stream_to_stdout(
    source: ChunkSource,
    archive: &str,
    activity: &Arc<dyn Activity>,
) -> Result<()> {
    let size = source.index().size();
    let mut stream = ArchiveStream::start(source.clone(), &Handle::current());
    let report = ProgressReport::new(
        &**activity,
        archive,
        Some(size),
        stream.delivered(),
        &source,
    );
    let copy = blocking(move || {
        let mut stdout = stdout()?;
        while let Some(chunk) = stream.next_chunk()? {
            stdout.write_all(&chunk)?;
            stream.recycle(chunk);
        }
        Ok(())
    });
    report.during(copy).await
}

/// Standard output without the line buffering of the standard library.
fn stdout() -> io::Result<File> {
    let stdout = rustix::stdio::stdout();
    Ok(File::from(stdout.try_clone_to_owned()?))
}

/// Creates a file that must not exist.
pub(super) fn create_new(path: &Path) -> Result<File> {
    File::options()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|source| failed("creating", path, source))
}

pub(super) fn failed(what: &'static str, path: &Path, source: io::Error) -> ClientError {
    ClientError::File {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Runs blocking work on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ClientError::Invalid(format!("internal error: {error}"))),
    }
}
