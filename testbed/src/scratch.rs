//! Where tests put what they make.

use std::path::Path;

use tempfile::TempDir;

/// Free memory that a scratch directory in memory needs, bytes.
const NEEDED: u64 = 2 << 30;

/// A temporary directory in memory where there is room, else on disk.
///
/// A datastore has 65 536 directories; making them for each test would keep a disk busy for minutes. What must be
/// tested on a real disk uses [`tempfile::tempdir`].
///
/// # Errors
///
/// When it cannot be created.
pub fn directory() -> std::io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
    if room >= NEEDED
        && let Ok(directory) = tempfile::tempdir_in(memory)
    {
        return Ok(directory);
    }
    tempfile::tempdir()
}
