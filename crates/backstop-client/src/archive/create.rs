//! Archiving a directory tree: what the walk finds is written into an archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use backstop_format::catalog::{CatalogKind, CatalogWriter};
use backstop_format::index::DynamicIndex;
use backstop_format::pxar::accessor::Accessor;
use backstop_format::pxar::encoder::{Encoder, LinkOffset};
use backstop_format::pxar::entry::{MODE_BLOCK, MODE_FILE, Metadata, Stat};
use backstop_format::pxar::exclude_patterns_to_prelude;
use backstop_format::read_at::ReadAt;

use super::error::{ArchiveError, Result, display_path};
use super::options::CreateOptions;
use super::reuse::Reuse;
use super::sink::PayloadSink;
use super::walk::{EXCLUDE_CLI, FileHandle, Inode, Item, ItemKind, Source, Walk};
use crate::activity::Activity;

/// Bytes of file content read at once.
const READ_BUFFER: usize = 1 << 20;
/// Files from this size on are not kept in the page cache once they were read.
const LARGE_FILE: u64 = 64 << 20;
/// Batches of findings between the walk and the encoder.
const QUEUED_BATCHES: usize = 4;

/// What the previous snapshot offers for re-use.
pub struct Previous {
    /// The previous metadata archive (`.mpxar`).
    pub metadata: Arc<dyn ReadAt + Send + Sync>,
    /// The index of the previous payload archive (`.ppxar`).
    pub payload_index: Arc<DynamicIndex>,
}

/// What an archiving run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreateSummary {
    /// Files met, further names of files not counted.
    pub files: u64,
    /// Further names of files.
    pub hardlinks: u64,
    /// Files taken over from the previous archive.
    pub reused_files: u64,
    /// Bytes of these files, with the headers they have in the payload stream.
    pub reused_bytes: u64,
    /// Files that were read.
    pub encoded_files: u64,
    /// Bytes of these files, with headers.
    pub encoded_bytes: u64,
    /// Chunks taken over.
    pub injected_chunks: u64,
    /// Bytes of these chunks.
    pub injected_bytes: u64,
    /// Bytes of these chunks that nothing refers to.
    pub padding_bytes: u64,
    /// Chunks that hold such bytes.
    pub partial_chunks: u64,
}

/// Archives the directory `source` as one version 1 stream. Entries go into `catalog` too, which
/// must have the archive's directory open (see [`CatalogWriter::start_directory`]). Returns the
/// sink when the archive is complete.
///
/// # Errors
/// Failures of the sinks, of the source directory itself, and of anything below it except
/// denied access and vanished or changing files: those are warnings.
pub fn create_unified<W: Write, C: Write>(
    source: &Path,
    options: &CreateOptions,
    archive: W,
    catalog: Option<&mut CatalogWriter<C>>,
    activity: &dyn Activity,
) -> Result<(CreateSummary, W)> {
    super::raise_open_files();
    let source = Source::open(source, options)?;
    let encoder = Encoder::new(archive, &source.metadata)?;
    let mut packer = Packer::new(encoder, catalog, activity);
    packer.pack(source, options, None)?;
    packer.record_patterns(options)?;
    let (archive, _) = packer.encoder.finish()?;
    Ok((packer.summary, archive))
}

/// Archives the directory `source` as a split archive. With `previous`, files whose metadata did
/// not change are taken over from it without being read. Returns the sinks when both streams are
/// complete.
///
/// # Errors
/// As [`create_unified`].
pub fn create_split<W: Write, P: PayloadSink>(
    source: &Path,
    options: &CreateOptions,
    metadata: W,
    payload: P,
    previous: Option<Previous>,
    activity: &dyn Activity,
) -> Result<(CreateSummary, W, P)> {
    super::raise_open_files();
    let source = Source::open(source, options)?;
    let patterns = pattern_lines(options);
    let prelude = match patterns.is_empty() {
        true => None,
        false => {
            let problem = "exclude patterns of split archives must be UTF-8";
            let text = std::str::from_utf8(&patterns);
            let text = text.map_err(|_| ArchiveError::BadSource {
                path: "--exclude".into(),
                problem,
            })?;
            Some(exclude_patterns_to_prelude(text))
        }
    };
    let encoder = Encoder::split(metadata, payload, &source.metadata, prelude.as_deref())?;
    let accessor = match &previous {
        Some(previous) => match Accessor::new(previous.metadata.as_ref()) {
            Ok(accessor) => Some((accessor, &*previous.payload_index)),
            Err(err) => {
                activity.warn(&format!(
                    "previous archive cannot be read, continue without it: {err}"
                ));
                None
            }
        },
        None => None,
    };
    let reuse = accessor
        .as_ref()
        .and_then(|(accessor, index)| Reuse::new(accessor, index, options, activity));
    let mut packer = Packer::new(encoder, None::<&mut CatalogWriter<io::Sink>>, activity);
    packer.pack(source, options, reuse)?;
    let (metadata, payload) = packer.encoder.finish()?;
    match payload {
        Some(payload) => Ok((packer.summary, metadata, payload)),
        None => Err(ArchiveError::Reuse("the payload stream is lost")),
    }
}

/// The recorded form of the command line's patterns, one per line.
fn pattern_lines(options: &CreateOptions) -> Vec<u8> {
    let mut lines = Vec::new();
    for pattern in &options.exclude {
        lines.extend(pattern.to_line());
        lines.push(b'\n');
    }
    lines
}

/// Writes findings into the archive.
pub(crate) struct Packer<'a, W, P, C> {
    pub encoder: Encoder<W, P>,
    catalog: Option<&'a mut CatalogWriter<C>>,
    pub activity: &'a dyn Activity,
    pub summary: CreateSummary,
    links: HashMap<Inode, (Vec<u8>, LinkOffset)>,
    /// Path of the directory that is being written.
    path: Vec<u8>,
    buffer: Vec<u8>,
}

impl<'a, W: Write, P: PayloadSink, C: Write> Packer<'a, W, P, C> {
    fn new(
        encoder: Encoder<W, P>,
        catalog: Option<&'a mut CatalogWriter<C>>,
        activity: &'a dyn Activity,
    ) -> Self {
        Self {
            encoder,
            catalog,
            activity,
            summary: CreateSummary::default(),
            links: HashMap::new(),
            path: Vec::new(),
            buffer: vec![0; READ_BUFFER],
        }
    }

    /// Walks in a thread of its own, so that opening files and encoding them overlap.
    fn pack(
        &mut self,
        source: Source,
        options: &CreateOptions,
        mut reuse: Option<Reuse<'_>>,
    ) -> Result<()> {
        let activity = self.activity;
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel::<Vec<Item>>(QUEUED_BATCHES);
            // Re-used files are not read.
            let prefetch = reuse.is_none();
            let walk = scope.spawn(move || {
                Walk::run(source, options, activity, prefetch, &mut |batch| {
                    sender.send(batch).is_ok()
                })
            });
            for item in receiver.into_iter().flatten() {
                match &mut reuse {
                    Some(reuse) => reuse.take(self, item)?,
                    None => self.write(item, None)?,
                }
            }
            match walk.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
            match &mut reuse {
                Some(reuse) => reuse.finish(self),
                None => Ok(()),
            }
        })
    }

    /// Writes one finding. With `reference`, the content of a file already stands (or will stand)
    /// there in the payload stream.
    pub fn write(&mut self, item: Item, reference: Option<u64>) -> Result<()> {
        let Item {
            name,
            metadata,
            kind,
        } = item;
        match kind {
            ItemKind::Directory => {
                self.encoder.create_directory(&metadata, &name)?;
                self.enter(&name);
                match &mut self.catalog {
                    Some(catalog) => catalog.start_directory(&name)?,
                    None => return Ok(()),
                }
            }
            ItemKind::Leave => {
                self.encoder.finish_directory()?;
                let end = self
                    .path
                    .iter()
                    .rposition(|&byte| byte == b'/')
                    .unwrap_or(0);
                self.path.truncate(end);
                match &mut self.catalog {
                    Some(catalog) => catalog.end_directory()?,
                    None => return Ok(()),
                }
            }
            ItemKind::File { file, size, inode } => {
                return self.file(&name, &metadata, file, size, inode, reference);
            }
            ItemKind::Symlink(target) => {
                self.encoder.add_symlink(&metadata, &name, &target)?;
                self.list(CatalogKind::Symlink, &name)?;
            }
            ItemKind::Device(device) => {
                self.encoder.add_device(&metadata, &name, device)?;
                let is_block = metadata.stat.file_type() == MODE_BLOCK;
                self.list(
                    if is_block {
                        CatalogKind::BlockDevice
                    } else {
                        CatalogKind::CharDevice
                    },
                    &name,
                )?;
            }
            ItemKind::Fifo => {
                self.encoder.add_special(&metadata, &name)?;
                self.list(CatalogKind::Fifo, &name)?;
            }
            ItemKind::Socket => {
                self.encoder.add_special(&metadata, &name)?;
                self.list(CatalogKind::Socket, &name)?;
            }
        }
        Ok(())
    }

    /// The file was written before under another name.
    pub fn knows(&self, inode: &Inode) -> bool {
        self.links.contains_key(inode)
    }

    fn enter(&mut self, name: &[u8]) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    /// Path of an entry of the current directory.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        match self.path.is_empty() {
            true => name.to_vec(),
            false => [&self.path, name].join(&b'/'),
        }
    }

    fn list(&mut self, kind: CatalogKind, name: &[u8]) -> Result<()> {
        match &mut self.catalog {
            Some(catalog) => Ok(catalog.add_special(kind, name)?),
            None => Ok(()),
        }
    }

    fn file(
        &mut self,
        name: &[u8],
        metadata: &Metadata,
        file: FileHandle,
        size: u64,
        inode: Option<Inode>,
        reference: Option<u64>,
    ) -> Result<()> {
        if let Some((target, link)) = inode.and_then(|inode| self.links.get(&inode)) {
            self.encoder.add_hardlink(name, target, *link)?;
            self.summary.hardlinks += 1;
            return self.list(CatalogKind::Hardlink, name);
        }
        if let Some(catalog) = &mut self.catalog {
            catalog.add_file(name, size, metadata.stat.mtime.seconds)?;
        }
        self.summary.files += 1;
        let link = match reference {
            Some(offset) => {
                self.summary.reused_files += 1;
                self.summary.reused_bytes += size.saturating_add(16);
                self.encoder.add_payload_ref(metadata, name, size, offset)?
            }
            None => {
                self.summary.encoded_files += 1;
                self.summary.encoded_bytes += size.saturating_add(16);
                self.content(name, metadata, file, size)?
            }
        };
        if let Some(inode) = inode {
            self.links.insert(inode, (self.path_of(name), link));
        }
        Ok(())
    }

    fn content(
        &mut self,
        name: &[u8],
        metadata: &Metadata,
        file: FileHandle,
        size: u64,
    ) -> Result<LinkOffset> {
        let Some(mut file) = file.open else {
            let err = io::Error::other("it is not open");
            return Err(ArchiveError::file("read", &self.path_of(name), err));
        };
        if size >= LARGE_FILE {
            advise(&file, rustix::fs::Advice::Sequential);
        }
        if let Some(offset) = self.encoder.payload_position()
            && let Some(sink) = self.encoder.payload_sink()
        {
            sink.suggest_boundary(offset);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut writer = self.encoder.create_file(metadata, name, size)?;
        let copied = copy_content(&mut file, &mut writer, &mut buffer);
        let link = copied.map(|size_changed| (size_changed, writer.finish()));
        self.buffer = buffer;
        let (change, link) = match link {
            Ok((change, link)) => (change, link?),
            Err(CopyError::Read(err)) => {
                return Err(ArchiveError::file("read", &self.path_of(name), err));
            }
            Err(CopyError::Write(err)) => {
                return Err(ArchiveError::file("store", &self.path_of(name), err));
            }
        };
        let path = || display_path(&self.path_of(name));
        match change {
            SizeChange::None => {}
            SizeChange::Shrunk => self.activity.warn(&format!(
                "warning: file size shrunk while reading: {:?}, file will be padded with zeros!",
                path()
            )),
            SizeChange::Grown => self.activity.warn(&format!(
                "warning: file size increased while reading: {:?}, file will be truncated!",
                path()
            )),
        }
        if size >= LARGE_FILE {
            advise(&file, rustix::fs::Advice::DontNeed);
        }
        Ok(link)
    }

    /// Version 1: adds the file that records the command line's patterns.
    fn record_patterns(&mut self, options: &CreateOptions) -> Result<()> {
        let lines = pattern_lines(options);
        if lines.is_empty() {
            return Ok(());
        }
        let stat = Stat {
            mode: MODE_FILE | 0o600,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            ..Stat::default()
        };
        let size = lines.len() as u64;
        if let Some(catalog) = &mut self.catalog {
            catalog.add_file(EXCLUDE_CLI, size, 0)?;
        }
        let metadata = Metadata {
            stat,
            ..Metadata::default()
        };
        let mut file = self.encoder.create_file(&metadata, EXCLUDE_CLI, size)?;
        let stored = file.write_all(&lines);
        stored.map_err(|err| ArchiveError::file("store", EXCLUDE_CLI, err))?;
        file.finish()?;
        Ok(())
    }
}

fn advise(file: &File, advice: rustix::fs::Advice) {
    // Advice only: a file system that does not take it changes nothing.
    let _ = rustix::fs::fadvise(file, 0, None, advice);
}

enum SizeChange {
    None,
    Shrunk,
    Grown,
}

enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies exactly the announced size: cuts what is more, pads what is missing with zeros. Asks
/// for one byte more than expected, so that a file of the right size takes one read.
fn copy_content<W: Write, P: Write>(
    file: &mut File,
    writer: &mut backstop_format::pxar::encoder::FileWriter<'_, W, P>,
    buffer: &mut [u8],
) -> std::result::Result<SizeChange, CopyError> {
    while writer.left() > 0 {
        let left = usize::try_from(writer.left()).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left.saturating_add(1));
        let read = match file.read(buffer.get_mut(..wanted).unwrap_or_default()) {
            Ok(read) => read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(CopyError::Read(err)),
        };
        if read == 0 {
            buffer.fill(0);
            while writer.left() > 0 {
                let left = usize::try_from(writer.left()).unwrap_or(usize::MAX);
                let zeros = buffer.get(..buffer.len().min(left)).unwrap_or_default();
                writer.write_all(zeros).map_err(CopyError::Write)?;
            }
            return Ok(SizeChange::Shrunk);
        }
        let data = buffer.get(..read.min(left)).unwrap_or_default();
        writer.write_all(data).map_err(CopyError::Write)?;
        if read > left {
            return Ok(SizeChange::Grown);
        }
        if read == left && read == wanted {
            // The buffer was full to the brim: growth shows only now.
            let mut more = [0];
            let grown = matches!(file.read(&mut more), Ok(1));
            return Ok(if grown {
                SizeChange::Grown
            } else {
                SizeChange::None
            });
        }
    }
    Ok(SizeChange::None)
}
