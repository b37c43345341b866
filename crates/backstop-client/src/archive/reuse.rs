//! Taking files over from the previous archive without reading them (`docs/formats/pxar.md`, section 9).
//!
//! A file whose metadata did not change is held back as long as the files before it lie directly
//! in front of it in the previous payload stream. The range so collected is taken over with whole
//! chunks, unless too much of them would be padding; then its files are read after all. Between
//! two ranges the last chunk is held back, so that a chunk at the seam is not put in twice.

use std::collections::HashSet;
use std::io::Write;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use backstop_format::index::{ChunkIndex, ChunkSpan, DynamicIndex};
use backstop_format::pxar::PxarError;
use backstop_format::pxar::accessor::{Accessor, Directory};
use backstop_format::pxar::entry::{EntryKind, Metadata, PayloadPlace};
use backstop_format::pxar::item::HEADER_SIZE;
use backstop_format::read_at::ReadAt;
use rustix::process::{Resource, getrlimit};

use super::create::Packer;
use super::error::{ArchiveError, Result};
use super::metadata::MetadataReader;
use super::options::CreateOptions;
use super::sink::{PayloadSink, ReusedChunk};
use super::walk::{Inode, Item, ItemKind, warn_left_out};
use crate::activity::Activity;

/// Most entries held back; their files are closed meanwhile.
const MAX_HELD_ITEMS: usize = 16_384;
/// Most directories kept open for them, in part of the limit of open files.
const OPEN_FILES_DIVISOR: u64 = 4;
const MAX_HELD_DIRECTORIES: u64 = 4096;
/// Most chunks handed over at once.
const MAX_INJECTED: usize = 128;

/// The previous metadata archive.
pub(crate) type PreviousTree<'a> = Accessor<&'a (dyn ReadAt + Send + Sync)>;
type PreviousDirectory<'a> = Directory<'a, &'a (dyn ReadAt + Send + Sync), Vec<u8>>;

/// The last chunk of a range that was taken over, not put into the stream yet.
struct HeldChunk {
    span: ChunkSpan,
    /// End of what is referred to, as position in the previous stream.
    used: u64,
    /// Bytes before `used` that nothing refers to.
    padding: u64,
}

/// What follows the queued range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The file right behind it in the previous payload stream.
    Continuation,
    /// Another range, which may begin in the same chunk.
    Range,
    /// Something that is not taken over, or nothing.
    Else,
}

pub(crate) struct Reuse<'a> {
    tree: &'a PreviousTree<'a>,
    index: &'a DynamicIndex,
    activity: &'a dyn Activity,
    /// Previous directories along the current path; `None` where there was none.
    directories: Vec<Option<PreviousDirectory<'a>>>,
    /// Entries held back, with the previous payload position of the files to be taken over.
    queue: Vec<(Item, Option<u64>)>,
    /// Number of directories kept open by the queue, and the one of the file queued last.
    queued_directories: u64,
    last_directory: Option<Arc<OwnedFd>>,
    max_directories: u64,
    /// For files that changed while they were held back.
    metadata: MetadataReader,
    /// What the queued files cover in the previous payload stream.
    range: Option<Range<u64>>,
    held: Option<HeldChunk>,
    /// Previous payload position of the file accepted last.
    last_accepted: u64,
    links: HashSet<Inode>,
}

impl<'a> Reuse<'a> {
    /// `None`, with a warning, when the previous archive cannot be read.
    pub fn new(
        tree: &'a PreviousTree<'a>,
        index: &'a DynamicIndex,
        options: &CreateOptions,
        activity: &'a dyn Activity,
    ) -> Option<Self> {
        let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let mut reuse = Self {
            tree,
            index,
            activity,
            directories: Vec::new(),
            queue: Vec::new(),
            queued_directories: 0,
            last_directory: None,
            max_directories: (open_files / OPEN_FILES_DIVISOR).min(MAX_HELD_DIRECTORIES),
            metadata: MetadataReader::new(options.features, options.skip_e2big_xattr),
            range: None,
            held: None,
            last_accepted: 0,
            links: HashSet::new(),
        };
        let root = reuse.usable(tree.directory(tree.root()))?;
        reuse.directories.push(Some(root));
        Some(reuse)
    }

    /// Takes the next finding and writes whatever is decided.
    pub fn take<W: Write, P: PayloadSink, C: Write>(
        &mut self,
        packer: &mut Packer<'_, W, P, C>,
        mut item: Item,
    ) -> Result<()> {
        let mut reference = None;
        match &item.kind {
            ItemKind::Directory => self.enter(&item.name),
            ItemKind::Leave => {
                self.directories.pop();
            }
            ItemKind::File {
                inode: Some(inode), ..
            } if self.links.contains(inode) => {}
            ItemKind::File { size, inode, .. } => {
                self.links.extend(inode);
                let Some(range) = self.previous_range(&item, *size) else {
                    self.flush(packer, Next::Else)?;
                    return packer.write(item, None);
                };
                reference = Some(range.start);
                self.last_accepted = range.start;
                let is_full = self.is_full();
                match &mut self.range {
                    Some(queued) if queued.end != range.start => {
                        self.flush(packer, Next::Range)?;
                        self.range = Some(range);
                    }
                    Some(_) if is_full => {
                        self.flush(packer, Next::Continuation)?;
                        self.range = Some(range);
                    }
                    Some(queued) => queued.end = range.end,
                    None => self.range = Some(range),
                }
            }
            _ => {}
        }
        if self.range.is_none() {
            return packer.write(item, None);
        }
        if let ItemKind::File { file, .. } = &item.kind
            && !self
                .last_directory
                .as_ref()
                .is_some_and(|last| Arc::ptr_eq(last, &file.directory))
        {
            self.last_directory = Some(file.directory.clone());
            self.queued_directories += 1;
        }
        item.close();
        self.queue.push((item, reference));
        if self.queue.len() >= 2 * MAX_HELD_ITEMS {
            self.flush(packer, Next::Continuation)?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.queue.len() >= MAX_HELD_ITEMS || self.queued_directories >= self.max_directories
    }

    /// Writes everything that is still held back.
    pub fn finish<W: Write, P: PayloadSink, C: Write>(
        &mut self,
        packer: &mut Packer<'_, W, P, C>,
    ) -> Result<()> {
        self.flush(packer, Next::Else)
    }

    fn enter(&mut self, name: &[u8]) {
        let child = match self.directories.last() {
            Some(Some(parent)) => parent.lookup(name).and_then(|node| match node {
                Some(node) if node.entry.kind == EntryKind::Directory => {
                    self.tree.directory(&node).map(Some)
                }
                _ => Ok(None),
            }),
            _ => Ok(None),
        };
        let child = self.usable(child).flatten();
        self.directories.push(child);
    }

    /// A previous archive that cannot be read any more is not used any more.
    fn usable<T>(&mut self, result: std::result::Result<T, PxarError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(err) => {
                self.activity.warn(&format!(
                    "previous archive cannot be read, files are read instead: {err}"
                ));
                self.directories
                    .iter_mut()
                    .for_each(|directory| *directory = None);
                None
            }
        }
    }

    /// Where the unchanged file lies in the previous payload stream, header included.
    fn previous_range(&mut self, item: &Item, size: u64) -> Option<Range<u64>> {
        let found = match self.directories.last() {
            Some(Some(directory)) => directory.lookup(&item.name),
            _ => return None,
        };
        let node = self.usable(found)??;
        let EntryKind::File {
            size: previous,
            place: PayloadPlace::Referenced(start),
        } = node.entry.kind
        else {
            return None;
        };
        let end = start.checked_add(HEADER_SIZE)?.checked_add(size)?;
        let usable = previous == size
            && start > self.last_accepted
            && end <= self.index.size()
            && is_unchanged(&item.metadata, &node.entry.metadata);
        usable.then_some(start..end)
    }

    /// Decides about the queued range and writes the queue.
    fn flush<W: Write, P: PayloadSink, C: Write>(
        &mut self,
        packer: &mut Packer<'_, W, P, C>,
        next: Next,
    ) -> Result<()> {
        let range = self.range.take();
        let queue = std::mem::take(&mut self.queue);
        self.queued_directories = 0;
        self.last_directory = None;
        let base = match range {
            Some(range) => self.take_over(packer, range, next)?,
            None => None,
        };
        if next == Next::Else || base.is_none() {
            // Either something else follows in the stream, or the files of the queue do.
            self.inject_held(packer)?;
        }
        for (mut item, reference) in queue {
            if let (Some(start), Some((from, to))) = (reference, base) {
                let position = to.checked_add(start.saturating_sub(from));
                let position = position.ok_or(ArchiveError::Reuse("positions overflow"))?;
                packer.write(item, Some(position))?;
                continue;
            }
            let is_link = match &item.kind {
                ItemKind::File { inode, .. } => inode.is_some_and(|inode| packer.knows(&inode)),
                _ => false,
            };
            match if is_link {
                Ok(())
            } else {
                item.reopen(&mut self.metadata)
            } {
                Ok(()) => packer.write(item, None)?,
                Err(err) => {
                    let path = packer.path_of(&item.name);
                    warn_left_out(self.activity, &path, &item.name, err)?;
                }
            }
        }
        Ok(())
    }

    /// Puts the chunks of `range` into the stream, the last one held back. Returns a position of
    /// the previous stream and the same one in the new stream, or `None` when the padding is too
    /// much.
    fn take_over<W: Write, P: PayloadSink, C: Write>(
        &mut self,
        packer: &mut Packer<'_, W, P, C>,
        range: Range<u64>,
        next: Next,
    ) -> Result<Option<(u64, u64)>> {
        let Some(spans) = self.spans(&range) else {
            return Ok(None);
        };
        let (Some(first), Some(last)) = (spans.first().copied(), spans.last().copied()) else {
            return Ok(None);
        };
        let seam = match &self.held {
            Some(held) if held.span == first && held.used <= range.start => Some(held.used),
            _ => None,
        };
        let before = range.start - seam.unwrap_or(first.start);
        // What follows may use the rest of the last chunk.
        let after = if next == Next::Continuation {
            0
        } else {
            last.end - range.end
        };
        let padding = before.saturating_add(after);
        let used = range.end - range.start;
        // More than a tenth of padding is not worth it.
        if u128::from(padding) * 10 > u128::from(used) + u128::from(padding) {
            return Ok(None);
        }
        if seam.is_none() {
            self.inject_held(packer)?;
        }
        let position = packer
            .encoder
            .payload_position()
            .ok_or(ArchiveError::Reuse("no payload stream"))?;
        let mut held = self.held.take().unwrap_or(HeldChunk {
            span: first,
            used: first.start,
            padding: 0,
        });
        held.padding += before;
        let mut chunks = Vec::new();
        for span in spans.into_iter().skip(1) {
            chunks.push(reused(&held.span, held.padding));
            held = HeldChunk {
                span,
                used: span.start,
                padding: 0,
            };
        }
        held.used = range.end;
        inject(packer, &chunks)?;
        self.held = Some(held);
        Ok(Some((first.start, position)))
    }

    /// The chunks that cover `range`.
    fn spans(&self, range: &Range<u64>) -> Option<Vec<ChunkSpan>> {
        let mut spans = Vec::new();
        let mut at = self.index.locate(range.start)?;
        loop {
            let span = self.index.chunk(at)?;
            spans.push(span);
            if span.end >= range.end {
                return Some(spans);
            }
            at += 1;
        }
    }

    fn inject_held<W: Write, P: PayloadSink, C: Write>(
        &mut self,
        packer: &mut Packer<'_, W, P, C>,
    ) -> Result<()> {
        match self.held.take() {
            Some(held) => {
                let padding = held.padding + (held.span.end - held.used);
                inject(packer, &[reused(&held.span, padding)])
            }
            None => Ok(()),
        }
    }
}

fn reused(span: &ChunkSpan, padding: u64) -> ReusedChunk {
    ReusedChunk {
        digest: span.digest,
        size: span.end - span.start,
        padding,
    }
}

fn inject<W: Write, P: PayloadSink, C: Write>(
    packer: &mut Packer<'_, W, P, C>,
    chunks: &[ReusedChunk],
) -> Result<()> {
    if chunks.is_empty() {
        return Ok(());
    }
    packer.encoder.flush()?;
    for run in chunks.chunks(MAX_INJECTED) {
        if let Some(sink) = packer.encoder.payload_sink() {
            sink.inject(run)
                .map_err(|err| ArchiveError::file("re-use chunks for", b"payload archive", err))?;
        }
    }
    let bytes = chunks.iter().map(|chunk| chunk.size).sum();
    packer.encoder.advance_payload(bytes)?;
    packer.summary.injected_chunks += chunks.len() as u64;
    packer.summary.injected_bytes += bytes;
    packer.summary.padding_bytes += chunks.iter().map(|chunk| chunk.padding).sum::<u64>();
    packer.summary.partial_chunks += chunks.iter().filter(|chunk| chunk.padding > 0).count() as u64;
    Ok(())
}

/// Equal metadata, except the values of extended attributes.
fn is_unchanged(now: &Metadata, previous: &Metadata) -> bool {
    now.stat == previous.stat
        && now.acl == previous.acl
        && now.fcaps == previous.fcaps
        && now.quota_project_id == previous.quota_project_id
        && now.xattrs.len() == previous.xattrs.len()
        && now
            .xattrs
            .iter()
            .zip(&previous.xattrs)
            .all(|(a, b)| a.name == b.name)
}
