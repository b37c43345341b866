//! A datastore on a local directory, byte for byte as stock servers keep it: layout, locks, owners, chunk store, garbage
//! collection, verification, retention. See `docs/formats/datastore.md`.
//!
//! Everything here blocks; call it from threads that may. It knows nothing of HTTP, and of users only the text of their ids.
//! It never opens a path that was not built from validated names.
//!
//! Everything starts at [`Datastore`]: [`Datastore::create`] and [`Datastore::open`]; its [`chunks`](Datastore::chunks);
//! namespaces, groups and snapshots by their names; [`Datastore::create_snapshot`] to write one,
//! [`Datastore::import_snapshot`] to take one over from elsewhere;
//! [`Datastore::prune_group`], [`Datastore::collect_garbage`] and [`Datastore::verify_snapshot`] to look after them.
//!
//! Who takes which locks: a backup holds its group ([`Datastore::create_group_locked`]), its new snapshot (inside
//! [`SnapshotWriter`]), its previous snapshot shared ([`Datastore::lock_snapshot`]) and counts as a writer
//! ([`Datastore::hold_writer`]). A reader holds its snapshot shared. A move holds its group at both places, and its snapshots. All other operations take and release what they need.

mod access_time;
mod atomic_file;
mod chunk_store;
mod clock;
mod datastore;
mod destruction;
mod digest_set;
mod dir_listing;
mod error;
#[cfg(test)]
mod fixture;
mod gc;
mod gc_status;
mod group;
mod leftovers;
mod lock_file;
mod manifest_file;
mod move_journal;
mod namespace;
pub mod ownership;
mod page_cache;
mod parallel;
mod process_lock;
mod progress;
mod prune;
mod relocation;
mod retention_lock;
mod snapshot;
mod snapshot_import;
mod snapshot_writer;
mod summary;
mod task_log;
mod verify;

pub use chunk_store::{ChunkStore, InsertResult};
pub use datastore::{CreateOptions, Datastore, Usage};
pub use digest_set::DigestSet;
pub use error::{DatastoreError, Result};
pub use leftovers::Leftovers;
pub use lock_file::{FileLock, LockMode};
pub use namespace::NamespaceRemoval;
pub use process_lock::WriterGuard;
pub use progress::Progress;
pub use prune::PrunedSnapshot;
pub use relocation::{MoveRefusal, NamespaceMove};
pub use retention_lock::{
    Attempt, Change, Clock, ClockRequest, DEFAULT_GRACE_HOURS, FILE as RETENTION_LOCK_FILE,
    Governing, Lock, Locks, MAX_DAYS, MAX_GRACE_HOURS, NamespaceLock, Request, RetentionLock,
    RetentionLockRefusal, RetentionLockStatus, RetentionLocked, SystemClock, TrustedTime, moment,
    place,
};
pub use snapshot::SnapshotInfo;
pub use snapshot_import::{SnapshotImport, check_file};
pub use snapshot_writer::SnapshotWriter;
pub use summary::Summarise;
pub use task_log::{Silent, TaskLog};
pub use verify::{VerifyAge, VerifyOutcome, VerifyRun, VerifyThreads};
