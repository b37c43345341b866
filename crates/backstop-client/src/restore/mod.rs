//! Restore of single archives of a snapshot.
//!
//! Nothing is written whose manifest, index, chunk or digest does not fit. A target is never replaced unless asked.

mod image;
mod progress;
mod request;
mod target;
mod tree;

pub use crate::reader::SnapshotAccess;
pub use request::{ExtractOptions, RestoreRequest, RestoreTarget, RestoredArchive};

use std::sync::Arc;

use backstop_format::manifest::Manifest;
use backstop_types::ArchiveName;

use crate::activity::Activity;
use crate::connection::HttpClient;
use crate::error::{ClientError, Result};
use crate::reader::ReaderSession;

/// Restores one archive.
///
/// # Errors
/// Missing archive, wrong or missing key, damaged data, and failures to write the target.
pub async fn run(
    client: &HttpClient,
    request: RestoreRequest,
    activity: Arc<dyn Activity>,
) -> Result<()> {
    let session = ReaderSession::open(client, &request.access, 1).await?;
    let manifest = session.manifest().await?;
    let archive = RestoredArchive::find(&request.archive, &manifest)?;
    let name = request.archive.clone();
    let work = Restore {
        session,
        manifest,
        request,
        activity,
    };
    work.archive(archive)
        .await
        .map_err(|error| error.in_archive("restore of", &name))
}

/// A restore under way.
struct Restore {
    session: Arc<ReaderSession>,
    manifest: Manifest,
    request: RestoreRequest,
    activity: Arc<dyn Activity>,
}

impl Restore {
    async fn archive(self, archive: RestoredArchive) -> Result<()> {
        match archive {
            RestoredArchive::Manifest => {
                let text = self.session.manifest_text().await?;
                target::write_file(self.request.target, text, true).await
            }
            RestoredArchive::Blob(name) => {
                if name == ArchiveName::ENCRYPTED_KEY && self.session.key().is_none() {
                    self.activity.info(
                        "Restoring encrypted key without key, the fingerprint check is skipped",
                    );
                }
                let content = if name == ArchiveName::CLIENT_LOG {
                    self.session.unlisted_blob(&name).await?
                } else {
                    self.session.blob(&name, &self.manifest).await?
                };
                target::write_file(self.request.target, content, false).await
            }
            RestoredArchive::Image(name) | RestoredArchive::Raw(name) => {
                let source = self.session.archive(&name, &self.manifest).await?;
                match &self.request.target {
                    RestoreTarget::Path(path) => {
                        image::to_file(source, path, &self.request.archive, &*self.activity).await
                    }
                    RestoreTarget::Stdout => {
                        target::stream_to_stdout(source, &self.request.archive, &self.activity)
                            .await
                    }
                }
            }
            RestoredArchive::Tree(name) => {
                let source = self.session.archive(&name, &self.manifest).await?;
                match &self.request.target {
                    RestoreTarget::Path(path) => {
                        tree::extract(source, None, path, &self.request, &self.activity).await
                    }
                    RestoreTarget::Stdout => {
                        target::stream_to_stdout(source, &self.request.archive, &self.activity)
                            .await
                    }
                }
            }
            RestoredArchive::SplitTree { metadata, payload } => match &self.request.target {
                RestoreTarget::Stdout => Err(ClientError::Invalid(
                    "unable to pipe split archive".to_owned(),
                )),
                RestoreTarget::Path(path) => {
                    let metadata = self.session.archive(&metadata, &self.manifest).await?;
                    let payload = self.session.archive(&payload, &self.manifest).await?;
                    tree::extract(metadata, Some(payload), path, &self.request, &self.activity)
                        .await
                }
            },
        }
    }
}
