//! Groups and datastores that somebody removes through this program, so that health can tell them from those that are gone without
//! anybody's doing.
//!
//! A line for each in `backstop-removals` in the state directory, written before the removal, under the file's lock: what another
//! process of this host removes counts, too. Health takes the lines each minute, so that the file stays small. It holds up no removal: a
//! line that cannot be written costs a false alarm.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use backstop_datastore::ownership;
use backstop_health::facts::group_object;
use backstop_types::{BackupGroup, DatastoreName, Namespace};
use rustix::fs::FlockOperation;

use crate::roots::Roots;

/// A file of this size is not added to, in bytes: nobody takes it.
const MOST: u64 = 16 << 20;

/// The file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Removals {
    file: PathBuf,
}

impl Removals {
    /// That of an installation.
    pub fn of(roots: &Roots) -> Self {
        Self {
            file: roots.var_lib().join("backstop-removals"),
        }
    }

    /// A group is about to be removed, or moved elsewhere. Blocks for a small file.
    pub fn note_group(
        &self,
        datastore: &DatastoreName,
        namespace: &Namespace,
        group: &BackupGroup,
    ) {
        self.note(&group_object(
            datastore.as_str(),
            namespace,
            &group.to_string(),
        ));
    }

    /// A datastore is about to be taken out of the configuration. Blocks for a small file.
    pub fn note_datastore(&self, name: &DatastoreName) {
        self.note(&format!("datastore/{name}"));
    }

    fn note(&self, object: &str) {
        let write = || {
            let mut file = open(&self.file)?;
            if file.metadata()?.len() >= MOST {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            file.write_all(format!("{object}\n").as_bytes())
        };
        if let Err(err) = write() {
            tracing::warn!(path = %self.file.display(), %err, object, "health will not know that this was removed on purpose");
        }
    }

    /// What was noted since it was taken last. Blocks for a small file.
    ///
    /// # Errors
    /// When it cannot be read; it is there still then.
    pub(crate) fn take(&self) -> io::Result<Vec<String>> {
        if !self.file.exists() {
            return Ok(Vec::new());
        }
        let mut file = open(&self.file)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        file.set_len(0)?;
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// Opens and locks it; it is unlocked when it is closed.
fn open(path: &Path) -> io::Result<File> {
    let is_new = !path.exists();
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    if is_new {
        ownership::inherit(&file, path)?;
    }
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_is_noted_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("backstop-removals");
        let removals = Removals { file };
        assert!(removals.take().unwrap().is_empty());
        let store: DatastoreName = "store1".parse().unwrap();
        let group = "vm/100".parse().unwrap();
        removals.note_group(&store, &"a/b".parse().unwrap(), &group);
        removals.note_datastore(&store);
        let noted = ["group/store1/ns/a/ns/b/vm/100", "datastore/store1"];
        assert_eq!(removals.take().unwrap(), noted);
        assert!(removals.take().unwrap().is_empty());
        removals.note_datastore(&store);
        assert_eq!(removals.take().unwrap(), ["datastore/store1"]);
    }
}
