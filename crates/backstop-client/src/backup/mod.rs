//! A complete backup: every archive of a request, key escrow, manifest, finish.
//!
//! Any failure ends the session without `finish`, so that the server discards the snapshot.

mod budget;
mod chunk_stage;
mod chunk_stream;
mod image;
mod index_upload;
mod pipeline;
mod previous;
pub(crate) mod report;
mod request;
mod sources;
#[cfg(test)]
mod tests;
mod tree;

pub use request::{
    ArchiveSpec, ArchiveSummary, BackupRequest, BackupSummary, ChangeDetection, CryptConfig,
    DEFAULT_CHUNK_SIZE, MIN_CHUNK_SIZE, SourceKind, TreeOptions,
};
pub use sources::check_sources;

use std::sync::Arc;
use std::time::Instant;

use backstop_format::blob::DataBlob;
use backstop_format::manifest::{FileEntry, Manifest};
use backstop_format::{CryptKey, CryptMode, Digest};
use backstop_types::ArchiveName;

use crate::activity::Activity;
use crate::connection::HttpClient;
use crate::error::{ClientError, Result};
use crate::workers::Workers;
use crate::writer::{BackupSession, IndexKind, SessionTarget};
use chunk_stage::Stage;
use index_upload::UploadedIndex;
use previous::PreviousSnapshot;
use tree::CatalogUpload;

/// Makes a backup. Tells, from "previous manifest" to the last archive, every line that users know from such a
/// backup; the lines about start, key, duration and end belong to the caller.
///
/// # Errors
/// Any failure of any archive; then the server keeps nothing of the snapshot.
pub async fn run(
    client: &HttpClient,
    request: BackupRequest,
    activity: Arc<dyn Activity>,
) -> Result<BackupSummary> {
    check_sources(&request)?;
    let target = SessionTarget {
        datastore: request.datastore.clone(),
        namespace: request.namespace.clone(),
        snapshot: request.snapshot.clone(),
        no_cache: request.no_cache,
        benchmark: false,
    };
    let session = Arc::new(BackupSession::start(client, &target).await?);
    let previous = PreviousSnapshot::find(&session, request.key(), &*activity).await?;
    let group = &request.snapshot.group;
    let mut run = BackupRun {
        client,
        stage: Stage::new(
            Workers::shared()?,
            request.mode(),
            request.key(),
            Arc::clone(session.known()),
        ),
        manifest: Manifest::new(
            group.ty.to_string(),
            group.id.to_string(),
            request.snapshot.time.epoch(),
        ),
        session,
        previous,
        request: &request,
        activity,
        summary: BackupSummary::default(),
        catalog: None,
    };
    let result = run.all().await;
    // Wakes whatever may still be working on a backup that failed.
    run.stage.cancel();
    result?;
    run.finish().await
}

/// A backup that is being made.
struct BackupRun<'a> {
    client: &'a HttpClient,
    request: &'a BackupRequest,
    session: Arc<BackupSession>,
    stage: Stage,
    previous: Option<PreviousSnapshot>,
    manifest: Manifest,
    activity: Arc<dyn Activity>,
    summary: BackupSummary,
    catalog: Option<CatalogUpload>,
}

impl BackupRequest {
    fn mode(&self) -> CryptMode {
        self.crypt
            .as_ref()
            .map_or(CryptMode::None, |crypt| crypt.mode)
    }

    fn key(&self) -> Option<&Arc<CryptKey>> {
        self.crypt.as_ref().map(|crypt| &crypt.key)
    }
}

impl BackupRun<'_> {
    async fn all(&mut self) -> Result<()> {
        for spec in &self.request.archives {
            self.archive(spec)
                .await
                .map_err(|error| error.in_archive("backup of", &spec.name))?;
        }
        if let Some(catalog) = self.catalog.take() {
            let started = Instant::now();
            let index = catalog.finish(&self.session).await?;
            let name = ArchiveName::CATALOG;
            self.activity.info(&format!(
                "Uploaded backup catalog ({})",
                report::size(index.size)
            ));
            self.add_index(name, &index, started)?;
        }
        Ok(())
    }

    async fn archive(&mut self, spec: &ArchiveSpec) -> Result<()> {
        let name = ArchiveName::from_user_name(&spec.name)
            .map_err(|error| ClientError::Invalid(format!("'{}': {error}", spec.name)))?;
        let stored = match (spec.kind, self.request.change_detection) {
            (SourceKind::Tree, ChangeDetection::Data | ChangeDetection::Metadata) => {
                sources::split_names(&name)?.0
            }
            _ => name.as_str().to_owned(),
        };
        let verb = if self.request.dry_run {
            "Would upload"
        } else {
            "Upload"
        };
        self.activity.info(&format!(
            "{verb} {} '{}' to '{}' as {stored}",
            spec.kind.description(),
            spec.path.display(),
            self.request.repository,
        ));
        if self.request.dry_run {
            return Ok(());
        }
        match spec.kind {
            SourceKind::Config | SourceKind::Log => self.blob(spec, name.as_str()).await,
            SourceKind::Image => self.image(spec, name.as_str()).await,
            SourceKind::Tree => self.tree(spec, &name).await,
        }
    }

    async fn blob(&mut self, spec: &ArchiveSpec, name: &str) -> Result<()> {
        let started = Instant::now();
        let path = spec.path.clone();
        let content = spawn(move || sources::read_small_file(&path)).await?;
        let key = match self.request.mode() {
            CryptMode::Encrypt => self.request.key().cloned(),
            _ => None,
        };
        let size = content.len() as u64;
        let blob = spawn(move || {
            DataBlob::encode(&content, key.as_deref(), true).map_err(ClientError::data("blob"))
        })
        .await?;
        let (encoded, checksum) = self.session.upload_blob(name, blob).await?;
        self.add_file(name, encoded, checksum)?;
        self.summary.archives.push(ArchiveSummary {
            name: name.to_owned(),
            size,
            uploaded: size,
            compressed: encoded,
            milliseconds: report::milliseconds(started),
            ..ArchiveSummary::default()
        });
        Ok(())
    }

    async fn image(&mut self, spec: &ArchiveSpec, name: &str) -> Result<()> {
        let started = Instant::now();
        let path = spec.path.clone();
        let source = spawn(move || image::ImageSource::open(&path)).await?;
        self.known_chunks_of(name, IndexKind::Fixed).await;
        let writer = self
            .session
            .create_index(IndexKind::Fixed, name, source.size())
            .await?;
        let (mut feeder, prepared) = self.stage.feeder();
        let counters = feeder.counters();
        let total = source.size();
        let chunk_size = self.request.chunk_size;
        let reading = spawn(move || source.feed(&mut feeder, chunk_size));
        let upload = self.upload(writer, prepared, &counters);
        let ticker = report::Ticker::new(
            &*self.activity,
            &spec.name,
            total,
            vec![Arc::clone(&counters)],
        );
        let pipeline = pipeline::join(&self.stage, reading, upload);
        let (_, index) = ticker.during(pipeline).await?;
        self.session
            .close_index(writer, index.chunks, index.size, &index.checksum)
            .await?;
        self.add_index(name, &index, started)
    }

    /// Makes the chunks of the archive's previous version usable. Without them, all is uploaded again; so a failure is told,
    /// not fatal.
    async fn known_chunks_of(&self, name: &str, kind: IndexKind) {
        if let Some(previous) = &self.previous {
            previous
                .register_chunks(
                    &self.session,
                    name,
                    kind,
                    self.request.mode(),
                    &*self.activity,
                )
                .await;
        }
    }

    fn upload<'a>(
        &self,
        writer: crate::writer::IndexWriter,
        prepared: tokio::sync::mpsc::UnboundedReceiver<Result<chunk_stage::Prepared>>,
        counters: &'a chunk_stage::Counters,
    ) -> impl Future<Output = Result<UploadedIndex>> + use<'a> {
        let target = index_upload::SessionIndex {
            session: Arc::clone(&self.session),
            writer,
        };
        async move { index_upload::upload_index(&target, writer.kind(), prepared, counters).await }
    }

    /// Lists an index in the manifest and tells its figures.
    fn add_index(&mut self, name: &str, index: &UploadedIndex, started: Instant) -> Result<()> {
        self.add_file(name, index.size, index.checksum)?;
        let summary = ArchiveSummary {
            name: name.to_owned(),
            size: index.size,
            uploaded: index.uploaded,
            compressed: index.compressed,
            reused: index.size.saturating_sub(index.uploaded),
            injected: index.injected,
            injected_chunks: index.injected_chunks,
            chunks: index.chunks,
            milliseconds: report::milliseconds(started),
        };
        if name != ArchiveName::CATALOG {
            for line in report::archive_lines(&summary) {
                self.activity.info(&line);
            }
        }
        self.summary.archives.push(summary);
        Ok(())
    }

    fn add_file(&mut self, name: &str, size: u64, checksum: Digest) -> Result<()> {
        self.manifest
            .add_file(FileEntry {
                filename: name.to_owned(),
                crypt_mode: self.request.mode(),
                size,
                csum: checksum,
            })
            .map_err(ClientError::data("manifest"))
    }

    /// Key escrow, manifest, finish. Consumes the run: nothing can be added afterwards.
    async fn finish(mut self) -> Result<BackupSummary> {
        if self.request.dry_run {
            return Ok(self.summary);
        }
        if let Some(crypt) = &self.request.crypt {
            if let Some(escrow) = &crypt.escrow {
                let name = ArchiveName::ENCRYPTED_KEY;
                self.activity.info(&format!(
                    "Upload RSA encoded key to '{}' as {name}",
                    self.request.repository
                ));
                let blob =
                    DataBlob::encode(escrow, None, false).map_err(ClientError::data(name))?;
                let (size, checksum) = self.session.upload_blob(name, blob).await?;
                self.add_file(name, size, checksum)?;
            }
            self.manifest
                .sign(&crypt.key)
                .map_err(ClientError::data("manifest"))?;
        }
        self.session.finish(&self.manifest).await?;
        Ok(self.summary)
    }
}

/// Runs blocking work on a thread of its own.
async fn spawn<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ClientError::Invalid(format!("internal error: {error}"))),
    }
}
