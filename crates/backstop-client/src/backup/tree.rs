//! Backup of directory trees: the archiver on a thread, its streams through the pipeline.
//!
//! A legacy tree is one stream plus its part of the snapshot's catalog; otherwise metadata and payload are two streams that
//! are uploaded side by side.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use backstop_format::catalog::CatalogWriter;
use backstop_types::{ArchiveName, BackupTime};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::chunk_stage::Counters;
use super::chunk_stream::{ChunkSink, ChunkerThread, chunk_stream};
use super::index_upload::UploadedIndex;
use super::request::{ArchiveSpec, BackupRequest, ChangeDetection};
use super::{BackupRun, pipeline, report, sources, spawn};
use crate::archive::{
    CreateOptions, DeviceSet, MatchType, Pattern, Previous, create_split, create_unified,
};
use crate::error::{ClientError, Result};
use crate::reader::{ReaderSession, RemoteIndexReader, SnapshotAccess};
use crate::writer::{BackupSession, IndexKind, IndexWriter};

/// Average chunk size of catalogs, in bytes.
const CATALOG_CHUNK_SIZE: usize = 512 << 10;

/// The snapshot's catalog while it grows.
pub(crate) struct CatalogUpload {
    catalog: CatalogWriter<ChunkSink>,
    chunker: ChunkerThread,
    upload: JoinHandle<Result<UploadedIndex>>,
    writer: IndexWriter,
}

impl CatalogUpload {
    /// Completes the catalog and closes its index.
    pub async fn finish(self, session: &BackupSession) -> Result<UploadedIndex> {
        let Self {
            catalog,
            chunker,
            upload,
            writer,
        } = self;
        let written = spawn(move || {
            let sink = catalog
                .finish()
                .map_err(crate::archive::ArchiveError::from)?;
            sink.finish()?;
            chunker.join()
        })
        .await;
        let index = upload
            .await
            .map_err(|error| ClientError::Invalid(format!("internal error: {error}")))?;
        // The upload's failure explains that of the writer.
        let index = index?;
        written?;
        session
            .close_index(writer, index.chunks, index.size, &index.checksum)
            .await?;
        Ok(index)
    }
}

/// One stream of an archive on its way to the server.
struct Stream {
    sink: ChunkSink,
    chunker: ChunkerThread,
    counters: Arc<Counters>,
    prepared: tokio::sync::mpsc::UnboundedReceiver<Result<super::chunk_stage::Prepared>>,
    writer: IndexWriter,
}

impl BackupRun<'_> {
    pub(super) async fn tree(&mut self, spec: &ArchiveSpec, name: &ArchiveName) -> Result<()> {
        match self.request.change_detection {
            ChangeDetection::Legacy => self.unified_tree(spec, name.as_str()).await,
            ChangeDetection::Data => self.split_tree(spec, name, None).await,
            ChangeDetection::Metadata => {
                let previous = self.metadata_reference(name).await?;
                self.split_tree(spec, name, previous).await
            }
        }
    }

    async fn unified_tree(&mut self, spec: &ArchiveSpec, name: &str) -> Result<()> {
        let started = Instant::now();
        let options = create_options(self.request)?;
        let mut catalog = match self.catalog.take() {
            Some(catalog) => catalog,
            None => self.open_catalog().await?,
        };
        let stream = self.open_stream(name, self.request.chunk_size).await?;
        let (sink, chunker) = (stream.sink, stream.chunker);
        let (path, activity, archive) = (
            spec.path.clone(),
            Arc::clone(&self.activity),
            name.to_owned(),
        );
        let walk = spawn(move || {
            let writer = &mut catalog.catalog;
            writer
                .start_directory(archive.as_bytes())
                .map_err(crate::archive::ArchiveError::from)?;
            let (_, sink) = create_unified(&path, &options, sink, Some(&mut *writer), &*activity)?;
            writer
                .end_directory()
                .map_err(crate::archive::ArchiveError::from)?;
            sink.finish()?;
            chunker.join()?;
            Ok(catalog)
        });
        let upload = self.upload(stream.writer, stream.prepared, &stream.counters);
        let ticker = report::Ticker::new(
            &*self.activity,
            &spec.name,
            None,
            vec![Arc::clone(&stream.counters)],
        );
        let (catalog, index) = ticker
            .during(pipeline::join(&self.stage, walk, upload))
            .await?;
        self.catalog = Some(catalog);
        self.session
            .close_index(stream.writer, index.chunks, index.size, &index.checksum)
            .await?;
        self.add_index(name, &index, started)
    }

    async fn split_tree(
        &mut self,
        spec: &ArchiveSpec,
        name: &ArchiveName,
        previous: Option<Previous>,
    ) -> Result<()> {
        let started = Instant::now();
        let options = create_options(self.request)?;
        let compared = previous.is_some();
        let (metadata_name, payload_name) = sources::split_names(name)?;
        let metadata = self
            .open_stream(&metadata_name, self.request.chunk_size)
            .await?;
        let payload = self
            .open_stream(&payload_name, self.request.chunk_size)
            .await?;
        let (path, activity) = (spec.path.clone(), Arc::clone(&self.activity));
        let (metadata_sink, payload_sink) = (metadata.sink, payload.sink);
        let (metadata_chunker, payload_chunker) = (metadata.chunker, payload.chunker);
        let walk = spawn(move || {
            let (summary, metadata_sink, payload_sink) = create_split(
                &path,
                &options,
                metadata_sink,
                payload_sink,
                previous,
                &*activity,
            )?;
            metadata_sink.finish()?;
            payload_sink.finish()?;
            metadata_chunker.join()?;
            payload_chunker.join()?;
            Ok(summary)
        });
        let upload = async {
            tokio::try_join!(
                self.upload(payload.writer, payload.prepared, &payload.counters),
                self.upload(metadata.writer, metadata.prepared, &metadata.counters),
            )
        };
        let counters = vec![
            Arc::clone(&payload.counters),
            Arc::clone(&metadata.counters),
        ];
        let ticker = report::Ticker::new(&*self.activity, &spec.name, None, counters);
        let (summary, (payload_index, metadata_index)) = ticker
            .during(pipeline::join(&self.stage, walk, upload))
            .await?;
        if compared {
            for line in report::change_detection_lines(&summary) {
                self.activity.info(&line);
            }
        }
        for (writer, name, index) in [
            (payload.writer, &payload_name, &payload_index),
            (metadata.writer, &metadata_name, &metadata_index),
        ] {
            self.session
                .close_index(writer, index.chunks, index.size, &index.checksum)
                .await?;
            self.add_index(name, index, started)?;
        }
        Ok(())
    }

    async fn open_stream(&self, name: &str, average: usize) -> Result<Stream> {
        self.known_chunks_of(name, IndexKind::Dynamic).await;
        let writer = self
            .session
            .create_index(IndexKind::Dynamic, name, None)
            .await?;
        let (feeder, prepared) = self.stage.feeder();
        let counters = feeder.counters();
        let (sink, chunker) = chunk_stream(feeder, average)?;
        Ok(Stream {
            sink,
            chunker,
            counters,
            prepared,
            writer,
        })
    }

    async fn open_catalog(&self) -> Result<CatalogUpload> {
        let stream = self
            .open_stream(ArchiveName::CATALOG, CATALOG_CHUNK_SIZE)
            .await?;
        let (session, stage) = (Arc::clone(&self.session), self.stage.clone());
        let (writer, prepared, counters) = (stream.writer, stream.prepared, stream.counters);
        let target = super::index_upload::SessionIndex { session, writer };
        let upload = tokio::spawn(async move {
            let result =
                super::index_upload::upload_index(&target, writer.kind(), prepared, &counters)
                    .await;
            if result.is_err() {
                stage.cancel();
            }
            result
        });
        let catalog =
            CatalogWriter::new(stream.sink).map_err(crate::archive::ArchiveError::from)?;
        Ok(CatalogUpload {
            catalog,
            chunker: stream.chunker,
            upload,
            writer,
        })
    }

    /// The previous snapshot's metadata and payload index, if unchanged files can be taken over from it.
    async fn metadata_reference(&self, name: &ArchiveName) -> Result<Option<Previous>> {
        let Some(previous) = &self.previous else {
            return Ok(None);
        };
        let (metadata_name, payload_name) = sources::split_names(name)?;
        let without = |reason: &str| {
            self.activity
                .info(&format!("{reason}, continue without reference"));
            Ok(None)
        };
        let Some(metadata) = previous.manifest.file(&metadata_name) else {
            return without("No previous metadata index");
        };
        let Some(payload) = previous.manifest.file(&payload_name) else {
            return without("No previous payload index found in manifest");
        };
        let mode = self.request.mode();
        if metadata.crypt_mode != mode || payload.crypt_mode != mode {
            return without("Crypt mode mismatch");
        }
        match self
            .open_reference(previous.time, &metadata_name, &payload_name)
            .await
        {
            Ok(reference) => {
                self.activity.info(&format!(
                    "Using previous index as metadata reference for '{metadata_name}'"
                ));
                Ok(Some(reference))
            }
            // Everything is read then: slower, but complete.
            Err(error) => {
                self.activity.warn(&format!(
                    "Unable to use the previous snapshot as metadata reference, reading all files - {error}"
                ));
                Ok(None)
            }
        }
    }

    async fn open_reference(
        &self,
        time: i64,
        metadata_name: &str,
        payload_name: &str,
    ) -> Result<Previous> {
        let time =
            BackupTime::new(time).map_err(|error| ClientError::Invalid(error.to_string()))?;
        let access = SnapshotAccess {
            datastore: self.request.datastore.clone(),
            namespace: self.request.namespace.clone(),
            snapshot: self.request.snapshot.group.snapshot(time),
            key: self.request.key().cloned(),
        };
        let previous = self.previous.as_ref().ok_or(ClientError::Cancelled)?;
        let reader = ReaderSession::open(self.client, &access, 1).await?;
        let metadata = reader.archive(metadata_name, &previous.manifest).await?;
        let payload_index = self
            .session
            .previous_dynamic_index(payload_name, &previous.manifest)
            .await?;
        Ok(Previous {
            metadata: Arc::new(RemoteIndexReader::new(metadata, Handle::current())),
            payload_index: Arc::new(payload_index),
        })
    }
}

/// The archiver's options for a request.
fn create_options(request: &BackupRequest) -> Result<CreateOptions> {
    let tree = &request.tree;
    let mut exclude = Vec::new();
    for text in &tree.exclude {
        let pattern =
            Pattern::parse(text, MatchType::Exclude).map_err(crate::archive::ArchiveError::from)?;
        exclude.push(pattern);
    }
    if tree.skip_lost_and_found {
        let pattern = Pattern::parse("lost+found", MatchType::Exclude)
            .map_err(crate::archive::ArchiveError::from)?;
        exclude.push(pattern);
    }
    let include: Vec<PathBuf> = tree.include_dev.clone();
    Ok(CreateOptions {
        exclude,
        devices: if tree.all_file_systems {
            DeviceSet::All
        } else {
            DeviceSet::SourceAnd(include)
        },
        skip_e2big_xattr: tree.skip_e2big_xattr,
        entries_max: tree.entries_max,
        ..CreateOptions::default()
    })
}
