//! Chunk buffers that are used again, so that the kernel need not hand out fresh zeroed pages for every chunk.
//!
//! Keeps a bounded amount; what is beyond it is freed.

use std::sync::Arc;

use parking_lot::Mutex;

/// Most bytes that are kept for later use.
const MAX_KEPT: usize = 32 << 20;

/// A pool of byte buffers. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Buffers {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffers {
    /// A buffer with room for at least `capacity` bytes. It may hold old content: clear or overwrite it.
    pub fn take(&self, capacity: usize) -> Vec<u8> {
        let mut kept = self.kept.lock();
        let found = kept
            .buffers
            .iter()
            .rposition(|buffer| buffer.capacity() >= capacity);
        match found {
            Some(position) => {
                let buffer = kept.buffers.swap_remove(position);
                kept.bytes -= buffer.capacity();
                buffer
            }
            None => {
                drop(kept);
                Vec::with_capacity(capacity)
            }
        }
    }

    /// Gives a buffer back. Its content stays, so that the next user need not zero it before reading into it.
    pub fn put(&self, buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        let mut kept = self.kept.lock();
        if capacity > 0 && kept.bytes.saturating_add(capacity) <= MAX_KEPT {
            kept.bytes += capacity;
            kept.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_returned_buffer_is_used_again() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take(1000);
        buffer.extend_from_slice(b"content");
        let address = buffer.as_ptr();
        buffers.put(buffer);
        let again = buffers.take(500);
        assert_eq!(again.as_ptr(), address);
        assert!(buffers.take(10).capacity() >= 10);
    }

    #[test]
    fn the_pool_does_not_grow_without_bound() {
        let buffers = Buffers::default();
        for _ in 0..100 {
            buffers.put(Vec::with_capacity(16 << 20));
        }
        assert!(buffers.kept.lock().bytes <= MAX_KEPT);
        assert_eq!(buffers.kept.lock().buffers.len(), MAX_KEPT / (16 << 20));
    }
}
