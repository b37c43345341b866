//! Writing an archive's tree to disk.

use std::io::Read;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use backstop_format::pxar::accessor::Accessor;
use backstop_format::pxar::decoder::{Decoder, Event};
use backstop_format::pxar::entry::{Entry, EntryKind, Metadata};
use backstop_format::read_at::ReadAt;
use rustix::fs::FileType;

use super::apply::Applier;
use super::error::{ArchiveError, Result};
use super::options::ExtractOptions;
use super::pattern::{MatchType, evaluate};
use super::target::{self, OpenDirectory};
use super::tree_source::{SubTree, TreeSource};
use super::writers::{Failures, Job, SMALL_FILE, Writers};
use crate::activity::Activity;

const WRITE_BUFFER: usize = 1 << 20;
/// Hard links are made together, when the files they lead to have been written.
const MAX_WAITING_LINKS: usize = 1024;
const MAX_THREADS: usize = 4;

/// What an extraction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExtractSummary {
    /// Entries written, directories included.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Errors that were logged and passed over.
    pub errors: u64,
}

/// Extracts everything that `options` select from `archive` into the directory `target`, which is
/// created unless it exists and may. The decoder's prelude can be asked afterwards.
///
/// # Errors
/// The first error, or with `keep_going` [`ArchiveError::SomeFailed`] at the end.
/// Damage of the archive always ends the extraction.
pub fn extract<R: Read, P: Read>(
    archive: &mut Decoder<R, P>,
    target: &Path,
    options: &ExtractOptions,
    activity: &dyn Activity,
) -> Result<ExtractSummary> {
    run(archive, target, options, true, activity)
}

/// Extracts what stands at `path` in the archive: a directory's children into `target`, anything
/// else under its own name into it. Patterns see paths relative to `path`. Hard links whose target
/// lies outside become files of their own.
///
/// # Errors
/// As [`extract`]; also when nothing stands there.
pub fn extract_path<R: ReadAt, P: ReadAt>(
    archive: &Accessor<R, P>,
    path: &[u8],
    target: &Path,
    options: &ExtractOptions,
    activity: &dyn Activity,
) -> Result<ExtractSummary> {
    let missing = || ArchiveError::refused(path, "the archive has no such entry");
    let node = archive.lookup(path)?.ok_or_else(missing)?;
    let is_directory = node.entry.kind == EntryKind::Directory;
    let path: Vec<&[u8]> = path
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
        .collect();
    let path = path.join(&b'/');
    run(
        &mut SubTree::new(archive, &path, node),
        target,
        options,
        is_directory,
        activity,
    )
}

fn run<S: TreeSource + ?Sized>(
    source: &mut S,
    target: &Path,
    options: &ExtractOptions,
    apply_to_target: bool,
    activity: &dyn Activity,
) -> Result<ExtractSummary> {
    super::raise_open_files();
    let applier = Applier::new(options, activity);
    let failures = Failures::new(&applier);
    let threads = match options.threads {
        0 => std::thread::available_parallelism()
            .map_or(2, usize::from)
            .clamp(2, MAX_THREADS),
        threads => threads,
    };
    let summary = std::thread::scope(|scope| {
        let writers = Writers::start(scope, &failures, threads);
        Extractor::begin(source, target, apply_to_target, &failures, &writers)?.tree(source)
    });
    match failures.take() {
        Some(err) => Err(err),
        None => {
            let mut summary = summary?;
            summary.errors = failures.count();
            if summary.errors > 0 {
                Err(ArchiveError::SomeFailed)
            } else {
                Ok(summary)
            }
        }
    }
}

/// A directory of the archive along the current path.
struct Level {
    /// Length of its path.
    path: usize,
    name: Vec<u8>,
    metadata: Metadata,
    /// The directory on disk, once something in it was selected.
    open: Option<Arc<OpenDirectory>>,
    /// Entries in it are selected unless a pattern says otherwise.
    selected: bool,
    /// It could not be created; what is in it is passed over.
    failed: bool,
}

/// A hard link that waits for its target to be written.
struct Link {
    directory: Arc<OpenDirectory>,
    name: Vec<u8>,
    target: Vec<u8>,
    path: Vec<u8>,
}

struct Extractor<'a> {
    failures: &'a Failures<'a>,
    writers: &'a Writers,
    root: Arc<OpenDirectory>,
    levels: Vec<Level>,
    links: Vec<Link>,
    path: Vec<u8>,
    buffer: Vec<u8>,
    summary: ExtractSummary,
}

impl<'a> Extractor<'a> {
    /// Reads the root entry and makes the target directory.
    fn begin<S: TreeSource + ?Sized>(
        source: &mut S,
        target: &Path,
        apply: bool,
        failures: &'a Failures<'a>,
        writers: &'a Writers,
    ) -> Result<Self> {
        let options = failures.applier.options;
        let Some(Event::Entry(root)) = source.next_event()? else {
            return Err(ArchiveError::refused(
                b"/",
                "the archive does not begin with a directory",
            ));
        };
        let metadata = apply.then(|| root.metadata.clone());
        let open = OpenDirectory::target(target, options.allow_existing_dirs, metadata)?;
        let open = Arc::new(open);
        let level = Level {
            path: 0,
            name: Vec::new(),
            metadata: root.metadata,
            open: Some(open.clone()),
            selected: !options.only_matching,
            failed: false,
        };
        Ok(Self {
            failures,
            writers,
            root: open,
            levels: vec![level],
            links: Vec::new(),
            path: Vec::new(),
            buffer: Vec::new(),
            summary: ExtractSummary {
                entries: 1,
                ..ExtractSummary::default()
            },
        })
    }

    fn tree<S: TreeSource + ?Sized>(mut self, source: &mut S) -> Result<ExtractSummary> {
        let result = self.entries(source);
        if result.is_ok() && !self.failures.is_aborted() {
            self.make_links();
        }
        // Also after an error: what was extracted gets its metadata.
        self.writers.wait();
        for link in self.links {
            self.failures.release(link.directory);
        }
        for directory in self.levels.into_iter().rev().filter_map(|level| level.open) {
            self.failures.release(directory);
        }
        self.failures.release(self.root);
        result?;
        Ok(self.summary)
    }

    fn entries<S: TreeSource + ?Sized>(&mut self, source: &mut S) -> Result<()> {
        while !self.failures.is_aborted() {
            match source.next_event()? {
                None => return Ok(()),
                Some(Event::Leave) => {
                    if let Some(directory) = self.levels.pop().and_then(|level| level.open) {
                        self.failures.release(directory);
                    }
                }
                Some(Event::Entry(entry)) => self.entry(entry, source)?,
            }
        }
        Ok(())
    }

    fn entry<S: TreeSource + ?Sized>(&mut self, entry: Entry, source: &mut S) -> Result<()> {
        let Some(level) = self.levels.last() else {
            return Err(ArchiveError::refused(
                &entry.name,
                "it stands outside of all directories",
            ));
        };
        self.path.truncate(level.path);
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(&entry.name);
        let failed = level.failed;
        let selected = !failed && self.is_selected(&entry, level.selected);
        if entry.kind == EntryKind::Directory {
            self.levels.push(Level {
                path: self.path.len(),
                name: entry.name,
                metadata: entry.metadata,
                open: None,
                selected,
                failed,
            });
            if selected {
                self.directory();
            }
            return Ok(());
        }
        if !selected {
            return Ok(());
        }
        let Some(directory) = self.directory() else {
            return Ok(());
        };
        let result = self.object(&directory, entry, source);
        self.failures.release(directory);
        match result {
            // The archive cannot be read on.
            Err(err @ ArchiveError::Pxar(_)) => return Err(err),
            Err(err) => self.failures.add(err),
            Ok(true) => self.summary.entries += 1,
            Ok(false) => {}
        }
        Ok(())
    }

    fn is_selected(&self, entry: &Entry, inherited: bool) -> bool {
        let patterns = &self.failures.applier.options.patterns;
        if patterns.is_empty() {
            return inherited;
        }
        let path = [b"/", self.path.as_slice()].concat();
        let mode = match entry.kind {
            EntryKind::Hardlink { .. } => None,
            _ => Some(entry.metadata.stat.mode),
        };
        match evaluate(patterns, &path, || Ok::<_, std::convert::Infallible>(mode)) {
            Ok(Some(verdict)) => verdict == MatchType::Include,
            Ok(None) => inherited,
        }
    }

    /// The current directory on disk, made now together with its parents if it was not needed
    /// before. `None` when that failed.
    fn directory(&mut self) -> Option<Arc<OpenDirectory>> {
        let first = self.levels.iter().rposition(|level| level.open.is_some())?;
        let mut open = self.levels.get(first)?.open.clone()?;
        for level in self.levels.iter_mut().skip(first + 1) {
            let path = self.path.get(..level.path).unwrap_or_default();
            let made = match level.failed {
                true => return None,
                false => OpenDirectory::create(
                    &open,
                    &level.name,
                    &level.metadata,
                    path,
                    self.failures.applier,
                ),
            };
            self.failures.release(open);
            match made {
                Ok(directory) => {
                    open = Arc::new(directory);
                    level.open = Some(open.clone());
                    self.summary.entries += 1;
                }
                Err(err) => {
                    level.failed = true;
                    self.failures.add(err);
                    return None;
                }
            }
        }
        Some(open)
    }

    /// Makes one object that is no directory; false when the options leave it out.
    fn object<S: TreeSource + ?Sized>(
        &mut self,
        directory: &Arc<OpenDirectory>,
        entry: Entry,
        source: &mut S,
    ) -> Result<bool> {
        let applier = self.failures.applier;
        let features = &applier.options.features;
        let Entry {
            name,
            metadata,
            kind,
        } = entry;
        if metadata.stat.mode > u64::from(u32::MAX) {
            return Err(ArchiveError::refused(&self.path, "its mode is invalid"));
        }
        let special = |kind, device| {
            target::create_special(
                directory, &name, kind, device, &metadata, &self.path, applier,
            )
        };
        match kind {
            EntryKind::Directory => {}
            EntryKind::File { size, .. } => {
                return self.file(directory, name, metadata, size, source);
            }
            EntryKind::Symlink(target) => {
                target::create_symlink(directory, &name, &target, &metadata, &self.path, applier)?;
            }
            EntryKind::Hardlink { target, .. } => {
                let (directory, path) = (directory.clone(), self.path.clone());
                self.links.push(Link {
                    directory,
                    name,
                    target,
                    path,
                });
                if self.links.len() >= MAX_WAITING_LINKS {
                    self.make_links();
                }
            }
            EntryKind::Device(device) => {
                if !features.device_nodes {
                    return Ok(false);
                }
                match special(target::device_kind(&metadata, &self.path)?, Some(device)) {
                    Err(ArchiveError::File { .. }) if applier.options.ignore_device_errors => {
                        return Ok(false);
                    }
                    result => result?,
                }
            }
            EntryKind::Fifo if features.fifos => special(FileType::Fifo, None)?,
            EntryKind::Socket if features.sockets => special(FileType::Socket, None)?,
            EntryKind::Fifo | EntryKind::Socket => return Ok(false),
        }
        Ok(true)
    }

    fn file<S: TreeSource + ?Sized>(
        &mut self,
        directory: &Arc<OpenDirectory>,
        name: Vec<u8>,
        metadata: Metadata,
        size: u64,
        source: &mut S,
    ) -> Result<bool> {
        let path = &self.path;
        if size <= SMALL_FILE {
            let mut data = self.writers.buffer();
            data.resize(usize::try_from(size).unwrap_or(0), 0);
            if size > 0 {
                source.with_content(&mut |content| {
                    let read = content.read_exact(&mut data);
                    read.map_err(|err| ArchiveError::file("read archived content of", path, err))
                })?;
            }
            let (directory, path) = (directory.clone(), path.clone());
            self.writers.write(Job {
                directory,
                name,
                path,
                metadata,
                data,
            })?;
        } else {
            let applier = self.failures.applier;
            let overwrite = applier.options.overwrite_files;
            let file = target::create_file(directory, &name, path, overwrite)?;
            applier.before_data(file.as_fd(), &metadata, path)?;
            self.buffer.resize(WRITE_BUFFER, 0);
            let buffer = &mut self.buffer;
            source.with_content(&mut |content| {
                target::copy_content(&file, content, size, buffer, path)
            })?;
            let inherited = (!overwrite).then_some(directory.inherited);
            applier.finish(file.as_fd(), &metadata, inherited, path)?;
        }
        self.summary.bytes += size;
        Ok(true)
    }

    /// Makes the hard links that wait, when all files before them are written.
    fn make_links(&mut self) {
        if self.links.is_empty() {
            return;
        }
        self.writers.wait();
        let overwrite = self.failures.applier.options.overwrite_hardlinks;
        let root = self.root.fd.as_fd();
        for link in std::mem::take(&mut self.links) {
            let Link {
                directory,
                name,
                target,
                path,
            } = link;
            let made = target::create_hardlink(root, &directory, &name, &target, &path, overwrite);
            self.failures.release(directory);
            if let Err(err) = made {
                self.failures.add(err);
            }
        }
    }
}
