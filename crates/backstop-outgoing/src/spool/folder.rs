//! The folder of a spool: names, and files that are replaced as a whole.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};

use super::SpoolError;
use crate::durable_file;

const SUFFIX: &str = ".json";
const TEMPORARY: &str = ".tmp";
const SET_ASIDE: &str = ".unreadable";
const REFUSED: &str = ".refused";
const MODE: u32 = 0o600;
/// Largest file that is read; what this program writes is far smaller.
const MAX_SIZE: u64 = 16 << 20;

#[derive(Debug)]
pub(super) struct Folder(PathBuf);

/// The id after `last`, the greatest there is: a growing number, which keeps the order, and something that never comes again.
pub(super) fn next_id(last: Option<&str>) -> String {
    let last = last.and_then(|id| id.split('-').next());
    let number = last.and_then(|number| u64::from_str_radix(number, 16).ok());
    let number = number.map_or(1, |number| number.saturating_add(1));
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{number:016x}-{}", random.get(..12).unwrap_or_default())
}

impl Folder {
    pub fn create(path: &Path) -> Result<Self, SpoolError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(SpoolError::io("create the folder", path))?;
        Ok(Self(path.to_owned()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn file(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}{SUFFIX}"))
    }

    fn all(&self) -> Result<Vec<String>, SpoolError> {
        let failed = || SpoolError::io("list", &self.0);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.0).map_err(failed())? {
            // Other names are not ours.
            if let Ok(name) = entry.map_err(failed())?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The ids of all items, the oldest first.
    pub fn names(&self) -> Result<Vec<String>, SpoolError> {
        let names = self.all()?.into_iter();
        let ids = names.filter_map(|name| name.strip_suffix(SUFFIX).map(str::to_owned));
        Ok(ids.filter(|id| !id.starts_with('.')).collect())
    }

    /// The ids of items that their receivers refuse, the oldest first.
    pub fn refused(&self) -> Result<Vec<String>, SpoolError> {
        let names = self.all()?.into_iter();
        let ids = names.filter_map(|name| name.strip_suffix(REFUSED).map(str::to_owned));
        Ok(ids.filter(|id| !id.starts_with('.')).collect())
    }

    /// `None` when it is gone.
    pub fn read_refused(&self, id: &str) -> Result<Option<Vec<u8>>, SpoolError> {
        self.read_file(&format!("{id}{REFUSED}"))
    }

    pub fn remove_refused(&self, id: &str) -> Result<(), SpoolError> {
        remove(&self.0.join(format!("{id}{REFUSED}")))?;
        self.sync()
    }

    /// Renames an item to one that is refused.
    pub fn refuse(&self, id: &str) -> Result<(), SpoolError> {
        let from = self.file(id);
        match std::fs::rename(&from, self.0.join(format!("{id}{REFUSED}"))) {
            Err(err) if err.kind() != ErrorKind::NotFound => {
                Err(SpoolError::io("set aside", &from)(err))
            }
            _ => self.sync(),
        }
    }

    pub fn set_aside_files(&self) -> Result<Vec<PathBuf>, SpoolError> {
        let names = self.all()?.into_iter();
        let aside = names.filter(|name| name.ends_with(SET_ASIDE));
        Ok(aside.map(|name| self.0.join(name)).collect())
    }

    pub fn remove_temporaries(&self) -> Result<(), SpoolError> {
        for name in self.all()?.iter().filter(|name| name.ends_with(TEMPORARY)) {
            remove(&self.0.join(name))?;
        }
        Ok(())
    }

    pub fn exists(&self, id: &str) -> bool {
        self.file(id).exists()
    }

    /// `None` when it is gone.
    pub fn read(&self, id: &str) -> Result<Option<Vec<u8>>, SpoolError> {
        self.read_file(&format!("{id}{SUFFIX}"))
    }

    pub fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, SpoolError> {
        let path = self.0.join(name);
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(SpoolError::io("read", &path)(err)),
        };
        let mut text = Vec::new();
        let read = file.take(MAX_SIZE).read_to_end(&mut text);
        read.map_err(SpoolError::io("read", &path))?;
        if text.len() as u64 >= MAX_SIZE {
            return Err(SpoolError::io("read", &path)(
                ErrorKind::FileTooLarge.into(),
            ));
        }
        Ok(Some(text))
    }

    pub fn write(&self, id: &str, text: &[u8]) -> Result<(), SpoolError> {
        self.write_file(&format!("{id}{SUFFIX}"), text)
    }

    /// Readers see the old file or the new one, also after a crash. The caller holds the lock of entries.
    pub fn write_file(&self, name: &str, text: &[u8]) -> Result<(), SpoolError> {
        let temporary = self.0.join(format!(".{name}{TEMPORARY}"));
        let path = self.0.join(name);
        let written = durable_file::replace_by(&temporary, &path, text, None);
        written.map_err(SpoolError::io("write", &path))
    }

    pub fn remove(&self, id: &str) -> Result<(), SpoolError> {
        remove(&self.file(id))?;
        self.sync()
    }

    /// Renames an item so that it is none any more, and returns its new path. Of `most` such files the oldest go.
    pub fn set_aside(&self, id: &str, most: usize) -> Result<PathBuf, SpoolError> {
        let from = self.file(id);
        let to = self.0.join(format!("{id}{SET_ASIDE}"));
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            Err(err) if err.kind() == ErrorKind::NotFound => {}
            Err(err) => return Err(SpoolError::io("set aside", &from)(err)),
        }
        let aside = self.set_aside_files()?;
        for path in aside.iter().take(aside.len().saturating_sub(most)) {
            remove(path)?;
        }
        self.sync()?;
        Ok(to)
    }

    /// Waits for a lock, or tries it. Its file may be removed by who holds it, which then locks nothing any more.
    pub fn lock(&self, name: &str, how: FlockOperation) -> Result<File, SpoolError> {
        let path = self.0.join(name);
        loop {
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(MODE)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path);
            let file = opened.map_err(SpoolError::io("open the lock", &path))?;
            let locked = rustix::io::retry_on_intr(|| rustix::fs::flock(&file, how));
            locked.map_err(|err| SpoolError::io("lock", &path)(err.into()))?;
            let found = file.metadata().map_err(SpoolError::io("look at", &path))?;
            if found.nlink() > 0 {
                return Ok(file);
            }
        }
    }

    /// Removes the file of a lock that the caller holds.
    pub fn remove_lock(&self, name: &str) -> Result<(), SpoolError> {
        remove(&self.0.join(name))
    }

    /// `None` while somebody else holds the lock.
    pub fn try_lock(&self, name: &str) -> Result<Option<File>, SpoolError> {
        match self.lock(name, FlockOperation::NonBlockingLockExclusive) {
            Ok(file) => Ok(Some(file)),
            Err(SpoolError::Io { source, .. }) if source.kind() == ErrorKind::WouldBlock => {
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }

    fn sync(&self) -> Result<(), SpoolError> {
        let synced = File::open(&self.0).and_then(|folder| folder.sync_all());
        synced.map_err(SpoolError::io("sync", &self.0))
    }
}

fn remove(path: &Path) -> Result<(), SpoolError> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != ErrorKind::NotFound => Err(SpoolError::io("remove", path)(err)),
        _ => Ok(()),
    }
}
