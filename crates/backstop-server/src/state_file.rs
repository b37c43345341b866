//! Small files of state that are replaced as a whole: whoever reads one sees the old content or the new one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use backstop_datastore::ownership;

/// Writes a file anew, and makes sure that it is on the disk. It belongs to whom its folder belongs to.
///
/// # Errors
/// The disk fails; the old file stays then.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension(format!("tmp_{}", uuid::Uuid::new_v4().simple()));
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        ownership::inherit(&file, &temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // Best effort: the failure to report is the first one.
        let _ = fs::remove_file(&temporary);
    })
}
