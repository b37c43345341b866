//! Gives memory that is no longer used back to the system.
//!
//! A busy server handles chunks of several MiB on many threads. The allocator keeps what they have freed for the next ones; an
//! idle server would hold hundreds of MiB that others could use. So all threads share one heap, the only kind that the allocator
//! can give back entirely, and it is given back when nothing runs. Must never be called while requests wait for it.

/// Lets all threads share one heap. To be called before threads are started; without effect on those that have a heap already.
pub fn share_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: no pointers are involved; the allocator takes its own locks.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Returns the free memory of all threads to the system. Takes some milliseconds.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: no pointers are involved; the allocator takes its own locks.
    let _ = unsafe { libc::malloc_trim(0) };
}
