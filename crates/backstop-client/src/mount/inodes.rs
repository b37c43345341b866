//! The inodes that the kernel knows: where each stands in the archive, and how often the kernel was told of it.
//!
//! As large as the kernel's own memory of them, which shrinks when memory is short; about 60 bytes each.

use std::collections::HashMap;

use backstop_format::pxar::accessor::NodePlace;
use parking_lot::Mutex;

/// One inode.
#[derive(Clone, Copy)]
pub(super) struct Inode {
    /// Where it stands.
    pub place: NodePlace,
    /// The directory through which it was found first.
    pub parent: u64,
    /// How often the kernel was told of it and has not forgotten it.
    references: u64,
}

/// All but the root.
#[derive(Default)]
pub(super) struct Inodes {
    known: Mutex<HashMap<u64, Inode>>,
}

impl Inodes {
    pub(super) fn get(&self, number: u64) -> Option<Inode> {
        self.known.lock().get(&number).copied()
    }

    /// Counts that the kernel is told of an inode.
    pub(super) fn refer(&self, number: u64, place: NodePlace, parent: u64) {
        let mut known = self.known.lock();
        let inode = known.entry(number).or_insert(Inode {
            place,
            parent,
            references: 0,
        });
        inode.references = inode.references.saturating_add(1);
    }

    /// The kernel drops `count` of its references.
    pub(super) fn forget(&self, number: u64, count: u64) {
        let mut known = self.known.lock();
        if let Some(inode) = known.get_mut(&number) {
            inode.references = inode.references.saturating_sub(count);
            if inode.references == 0 {
                known.remove(&number);
            }
        }
    }

    /// How many are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.lock().len()
    }
}
