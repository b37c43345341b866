//! Trees to be extracted: a whole archive read from front to back, or a part found in it.

use std::io::Read;

use backstop_format::pxar::accessor::{Accessor, Children, Node};
use backstop_format::pxar::decoder::{Decoder, Event};
use backstop_format::pxar::entry::{Entry, EntryKind, Metadata};
use backstop_format::read_at::{ReadAt, SequentialReader};

use super::error::Result;

/// Gives the entries of a tree in archive order, beginning with its root directory.
pub(crate) trait TreeSource {
    /// The next entry or end of directory; `None` at the end.
    fn next_event(&mut self) -> Result<Option<Event>>;

    /// Calls `take` with the content of the file given last.
    fn with_content(&mut self, take: &mut dyn FnMut(&mut dyn Read) -> Result<()>) -> Result<()>;
}

impl<R: Read, P: Read> TreeSource for Decoder<R, P> {
    fn next_event(&mut self) -> Result<Option<Event>> {
        Ok(Decoder::next_event(self)?)
    }

    fn with_content(&mut self, take: &mut dyn FnMut(&mut dyn Read) -> Result<()>) -> Result<()> {
        take(&mut self.content()?)
    }
}

/// The part of an archive below one node. A directory is the tree itself; anything else is the
/// only entry of it.
pub(crate) struct SubTree<'a, R, P> {
    archive: &'a Accessor<R, P>,
    /// Path of the node in the archive, without slashes at its ends.
    path: &'a [u8],
    /// The node, until it was given.
    start: Option<Node>,
    begun: bool,
    ended: bool,
    open: Vec<Children<'a, R, P>>,
    file: Option<Node>,
}

impl<'a, R: ReadAt, P: ReadAt> SubTree<'a, R, P> {
    pub fn new(archive: &'a Accessor<R, P>, path: &'a [u8], node: Node) -> Self {
        let start = Some(node);
        Self {
            archive,
            path,
            start,
            begun: false,
            ended: false,
            open: Vec::new(),
            file: None,
        }
    }

    /// The first event: the node itself, or an empty directory around it.
    fn begin(&mut self) -> Result<Entry> {
        self.begun = true;
        match self
            .start
            .take_if(|node| node.entry.kind == EntryKind::Directory)
        {
            Some(node) => {
                self.open.push(self.archive.directory(&node)?.children()?);
                Ok(Entry {
                    name: Vec::new(),
                    ..node.entry
                })
            }
            None => Ok(Entry {
                name: Vec::new(),
                metadata: Metadata::default(),
                kind: EntryKind::Directory,
            }),
        }
    }

    /// Turns a node into the entry to be extracted. Hard links to files of the tree get paths
    /// relative to it; others become files.
    fn entry(&mut self, mut node: Node) -> Result<Entry> {
        if let EntryKind::Hardlink { target, offset } = &node.entry.kind {
            let inside = match self.path {
                b"" => Some(target.as_slice()),
                path => target
                    .strip_prefix(path)
                    .and_then(|rest| rest.strip_prefix(b"/")),
            };
            if let Some(inside) = inside {
                let kind = EntryKind::Hardlink {
                    offset: *offset,
                    target: inside.to_vec(),
                };
                return Ok(Entry { kind, ..node.entry });
            }
            let name = std::mem::take(&mut node.entry.name);
            node = self.archive.follow_hardlink(node)?;
            node.entry.name = name;
        }
        let entry = node.entry.clone();
        self.file = matches!(entry.kind, EntryKind::File { .. }).then_some(node);
        Ok(entry)
    }
}

impl<R: ReadAt, P: ReadAt> TreeSource for SubTree<'_, R, P> {
    fn next_event(&mut self) -> Result<Option<Event>> {
        self.file = None;
        if !self.begun {
            return Ok(Some(Event::Entry(self.begin()?)));
        }
        if let Some(node) = self.start.take() {
            return Ok(Some(Event::Entry(self.entry(node)?)));
        }
        if self.ended {
            return Ok(None);
        }
        let Some(node) = self.open.last_mut().and_then(Iterator::next) else {
            self.open.pop();
            self.ended = self.open.is_empty();
            return Ok(Some(Event::Leave));
        };
        let node = node?;
        if node.entry.kind == EntryKind::Directory {
            self.open.push(self.archive.directory(&node)?.children()?);
        }
        Ok(Some(Event::Entry(self.entry(node)?)))
    }

    fn with_content(&mut self, take: &mut dyn FnMut(&mut dyn Read) -> Result<()>) -> Result<()> {
        match &self.file {
            Some(node) => take(&mut SequentialReader::new(self.archive.content(node)?)),
            None => take(&mut std::io::empty()),
        }
    }
}
