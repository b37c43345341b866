//! The table at the end of each directory (`docs/formats/pxar.md`, section 5): children by name hash, stored as a complete binary
//! search tree in level order.

use super::item::{self, GOODBYE_TAIL_MARKER};

/// Bytes of one slot.
pub(crate) const SLOT_SIZE: u64 = 24;

/// One slot: a child, or the tail that ends the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub hash: u64,
    /// Distance from the GOODBYE header back to the child's FILENAME header
    /// (tail: to the first item of the directory).
    pub offset: u64,
    /// Bytes from the FILENAME header to the end of the child (tail: full size of the table item).
    pub size: u64,
}

impl Slot {
    pub fn parse(bytes: &[u8; 24]) -> Self {
        let word = |from: usize| {
            let mut word = [0u8; 8];
            for (to, &byte) in word.iter_mut().zip(bytes.iter().skip(from)) {
                *to = byte;
            }
            u64::from_le_bytes(word)
        };
        Self {
            hash: word(0),
            offset: word(8),
            size: word(16),
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        for word in [self.hash, self.offset, self.size] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
}

/// Number of items in the left subtree of a complete tree of `n` items.
fn left_size(n: usize) -> usize {
    match n.checked_ilog2() {
        None => 0,
        Some(log) => {
            let power = 1usize << log;
            (power - 1).min(n - power / 2)
        }
    }
}

/// Sorts `slots` by hash and calls `visit` on them in stored order.
fn in_stored_order(slots: &mut [Slot], mut visit: impl FnMut(&Slot)) {
    slots.sort_by_key(|slot| slot.hash);
    let mut queue = std::collections::VecDeque::from([&*slots]);
    while let Some(part) = queue.pop_front() {
        let (left, rest) = part.split_at(left_size(part.len()).min(part.len()));
        let Some((root, right)) = rest.split_first() else {
            continue;
        };
        visit(root);
        queue.push_back(left);
        queue.push_back(right);
    }
}

/// Appends the complete GOODBYE item. Slot offsets are given as absolute positions and turned into
/// distances from `position`, where the item will stand; `start` is the directory's first item.
pub(crate) fn put_table(out: &mut Vec<u8>, children: &mut [Slot], position: u64, start: u64) {
    let content = SLOT_SIZE * (children.len() as u64 + 1);
    item::put_header(out, item::GOODBYE, content);
    in_stored_order(children, |slot| {
        Slot {
            offset: position.saturating_sub(slot.offset),
            ..*slot
        }
        .put(out);
    });
    let tail = Slot {
        hash: GOODBYE_TAIL_MARKER,
        offset: position.saturating_sub(start),
        size: content + item::HEADER_SIZE,
    };
    tail.put(out);
}

/// The slots whose hash equals `hash`, found by descending the stored tree.
pub(crate) fn find(slots: &[Slot], hash: u64) -> Vec<&Slot> {
    let mut found = Vec::new();
    let mut pending = vec![0usize];
    while let Some(at) = pending.pop() {
        let Some(slot) = slots.get(at) else {
            continue;
        };
        let left = at.saturating_mul(2).saturating_add(1);
        let right = left.saturating_add(1);
        match hash.cmp(&slot.hash) {
            std::cmp::Ordering::Less => pending.push(left),
            std::cmp::Ordering::Greater => pending.push(right),
            std::cmp::Ordering::Equal => {
                found.push(slot);
                pending.extend([right, left]);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn stored(hashes: impl IntoIterator<Item = u64>) -> Vec<Slot> {
        let mut slots: Vec<_> = hashes
            .into_iter()
            .map(|hash| Slot {
                hash,
                offset: 0,
                size: 0,
            })
            .collect();
        let mut out = Vec::new();
        in_stored_order(&mut slots, |slot| out.push(*slot));
        out
    }

    #[test]
    fn tables_have_the_documented_order() {
        for order in [
            vec![0],
            vec![1, 0],
            vec![1, 0, 2],
            vec![2, 1, 3, 0],
            vec![3, 1, 4, 0, 2],
            vec![3, 1, 5, 0, 2, 4],
            vec![3, 1, 5, 0, 2, 4, 6],
            vec![4, 2, 6, 1, 3, 5, 7, 0],
            vec![5, 3, 7, 1, 4, 6, 8, 0, 2],
            vec![6, 3, 8, 1, 5, 7, 9, 0, 2, 4],
            vec![9, 5, 13, 3, 7, 11, 15, 1, 4, 6, 8, 10, 12, 14, 16, 0, 2],
        ] {
            let found: Vec<u64> = stored(0..order.len() as u64)
                .iter()
                .map(|s| s.hash)
                .collect();
            assert_eq!(found, order);
        }
    }

    proptest! {
        #[test]
        fn every_hash_is_found_as_often_as_it_occurs(hashes in proptest::collection::vec(0u64..40, 0..80)) {
            let slots = stored(hashes.clone());
            for hash in 0..40 {
                let expected = hashes.iter().filter(|&&h| h == hash).count();
                prop_assert_eq!(find(&slots, hash).len(), expected);
            }
        }
    }
}
