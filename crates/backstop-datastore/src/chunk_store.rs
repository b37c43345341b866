//! The chunk store: one file per chunk, named by its digest, in 65 536 directories. See `docs/formats/datastore.md`.
//!
//! A chunk file is complete or absent. Looking at a chunk, replacing it and removing it happen under one lock per digest
//! prefix, so that garbage collection never removes a chunk between another thread's look and its use. No directory handle
//! is kept: a network file system that comes back is used again without a restart.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use backstop_format::Digest;
use backstop_format::blob::{BlobKind, DataBlob, ENCRYPTED_HEADER_SIZE, MAX_BLOB_SIZE};
use backstop_types::SyncLevel;
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::access_time;
use crate::atomic_file::AtomicFile;
use crate::clock;
use crate::error::{DatastoreError, Result};
use crate::page_cache::{ReadFiles, WrittenFiles};

/// Name of the directory below the datastore.
pub(crate) const CHUNKS: &str = ".chunks";
/// Mode of the chunk directories.
pub(crate) const DIR_MODE: u32 = 0o750;
/// Number of chunk directories.
pub(crate) const PREFIXES: u32 = 1 << 16;
/// Corrupt copies of a chunk that are kept: `.0.bad` to `.9.bad`.
const BAD_COPIES: u8 = 10;
const SHARDS: usize = 1024;
const MAX_FILE_SIZE: u64 = (MAX_BLOB_SIZE + ENCRYPTED_HEADER_SIZE) as u64;

/// What became of an inserted chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsertResult {
    /// Whether the store had it already.
    pub duplicate: bool,
    /// Size of the stored file, in bytes.
    pub size: u64,
    /// Whether the chunk had been found corrupt and set aside: all snapshots that need it are whole again.
    pub healed: bool,
}

/// The chunks of a datastore.
pub struct ChunkStore {
    base: PathBuf,
    shards: Box<[Mutex<()>]>,
    sync_level: RwLock<SyncLevel>,
    written: WrittenFiles,
}

impl ChunkStore {
    /// The chunks below the datastore's directory, which must exist.
    pub(crate) fn open(datastore: &Path, sync_level: SyncLevel) -> Result<Self> {
        let store = ChunkStore {
            base: datastore.join(CHUNKS),
            shards: (0..SHARDS).map(|_| Mutex::new(())).collect(),
            sync_level: RwLock::new(sync_level),
            written: WrittenFiles::default(),
        };
        store.check_present()?;
        Ok(store)
    }

    /// Fails when the chunk directory is not there.
    pub(crate) fn check_present(&self) -> Result<()> {
        match std::fs::metadata(&self.base) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(self.absent(io::ErrorKind::NotADirectory.into())),
            Err(source) => Err(self.absent(source)),
        }
    }

    fn absent(&self, source: io::Error) -> DatastoreError {
        DatastoreError::NoChunkStore {
            path: self.base.clone(),
            source,
        }
    }

    /// Creates the 65 536 directories. `progress` gets the percentage done.
    pub(crate) fn create(datastore: &Path, progress: &mut dyn FnMut(u32)) -> Result<()> {
        let base = datastore.join(CHUNKS);
        make_dir(&base)?;
        // One directory shows whether the process's mask lets the mode through; then one call per directory is enough.
        make_dir_as_mask_allows(&base.join(prefix_name(0)))?;
        let make = if dir_mode(&base.join(prefix_name(0)))? == DIR_MODE {
            make_dir_as_mask_allows
        } else {
            make_dir
        };
        for prefix in 0..PREFIXES {
            make(&base.join(prefix_name(prefix)))?;
            let percent = (prefix + 1) * 100 / PREFIXES;
            // The end is told by whoever called this.
            if percent != prefix * 100 / PREFIXES && percent < 100 {
                progress(percent);
            }
        }
        Ok(())
    }

    pub(crate) fn set_sync_level(&self, level: SyncLevel) {
        *self.sync_level.write() = level;
    }

    /// Closes the handles of recently written files.
    pub(crate) fn release(&self) {
        self.written.clear();
    }

    /// The directory of the chunk directories.
    pub(crate) fn path(&self) -> &Path {
        &self.base
    }

    pub(crate) fn prefix_dir(&self, prefix: u32) -> PathBuf {
        self.base.join(prefix_name(prefix))
    }

    /// Serialises everything that looks at a chunk in order to keep or to remove it.
    pub(crate) fn lock(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        let [first, second, ..] = digest.0;
        let shard = usize::from(u16::from_be_bytes([first, second])) % SHARDS;
        self.shards[shard].lock()
    }

    /// Where a chunk's file is, or would be.
    pub fn chunk_path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        let mut path = self.base.join(name.get(..4).unwrap_or_default());
        path.push(name);
        path
    }

    /// Stores a chunk, unless the store has it in an equal or better form. Either way its access time is renewed.
    ///
    /// The caller has checked the content of unencrypted chunks and the CRC of all.
    ///
    /// # Errors
    /// [`DatastoreError::ChunkConflict`] when an encrypted chunk meets one that cannot have the same content; the disk is
    /// full or fails; the chunk store is not there.
    pub fn insert(&self, digest: &Digest, blob: &DataBlob) -> Result<InsertResult> {
        let path = self.chunk_path(digest);
        let size = blob.raw().len() as u64;
        let _guard = self.lock(digest);
        if let Some(stored) = self.look(&path)? {
            let keep = stored.len() == size
                || (stored.len() > 0 && keeps_stored(digest, &path, stored.len(), blob)?);
            if keep && renew(&path)? {
                return Ok(InsertResult {
                    duplicate: true,
                    size: stored.len(),
                    healed: false,
                });
            }
            if stored.len() == 0 {
                tracing::warn!(chunk = %digest, "found empty chunk in store, overwriting");
            }
            self.write(&path, blob)?;
            return Ok(InsertResult {
                duplicate: false,
                size,
                healed: false,
            });
        }
        self.write(&path, blob)?;
        Ok(InsertResult {
            duplicate: false,
            size,
            // Copies are numbered from zero on.
            healed: self.look(&self.bad_path(digest, 0))?.is_some(),
        })
    }

    fn look(&self, path: &Path) -> Result<Option<Metadata>> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata)),
            Ok(_) => Err(DatastoreError::Invalid {
                path: path.to_owned(),
                reason: "it is not a regular file".into(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DatastoreError::io("look at chunk", path)(error)),
        }
    }

    fn write(&self, path: &Path, blob: &DataBlob) -> Result<()> {
        let mut file = match AtomicFile::create(path) {
            Err(error) if error.is_not_found() => {
                // A copied datastore may lack its empty directories.
                self.check_present()?;
                if let Some(dir) = path.parent() {
                    make_dir(dir)?;
                }
                AtomicFile::create(path)?
            }
            other => other?,
        };
        file.write(blob.raw())?;
        let size = blob.raw().len() as u64;
        if let Some(file) = file.handle() {
            WrittenFiles::start(file, size);
        }
        file.commit(*self.sync_level.read() == SyncLevel::File)?;
        self.written.add(path, size);
        Ok(())
    }

    /// Reads a chunk and checks its CRC.
    ///
    /// # Errors
    /// [`DatastoreError::NoSuchChunk`], [`DatastoreError::Damaged`], or the disk fails.
    pub fn load(&self, digest: &Digest) -> Result<DataBlob> {
        let raw = self.read_raw(digest)?;
        DataBlob::load(raw).map_err(|source| DatastoreError::Damaged {
            path: self.chunk_path(digest),
            source,
        })
    }

    /// Reads a chunk's file as it is.
    ///
    /// # Errors
    /// [`DatastoreError::NoSuchChunk`], or the disk fails.
    pub fn read_raw(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.read_file(digest, Vec::new()).map(|(raw, _)| raw)
    }

    /// As [`read_raw`](Self::read_raw) into a buffer that is used again, leaving no trace in the page cache.
    pub(crate) fn read_once(
        &self,
        digest: &Digest,
        buffer: Vec<u8>,
        read: &ReadFiles,
    ) -> Result<Vec<u8>> {
        let (raw, file) = self.read_file(digest, buffer)?;
        read.add(file);
        Ok(raw)
    }

    /// The inode number of a chunk's file, which tells roughly where it is on the disk. `None`: there is none.
    pub(crate) fn inode(&self, digest: &Digest) -> Option<u64> {
        let metadata = std::fs::symlink_metadata(self.chunk_path(digest)).ok()?;
        Some(metadata.ino())
    }

    fn read_file(&self, digest: &Digest, mut raw: Vec<u8>) -> Result<(Vec<u8>, File)> {
        let path = self.chunk_path(digest);
        let opened = File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.check_present()?;
                return Err(DatastoreError::NoSuchChunk { digest: *digest });
            }
            other => other.map_err(DatastoreError::io("open chunk", &path))?,
        };
        let size = file
            .metadata()
            .map_err(DatastoreError::io("look at chunk", &path))?
            .len();
        if size > MAX_FILE_SIZE {
            return Err(DatastoreError::Invalid {
                path,
                reason: format!("no chunk has {size} bytes"),
            });
        }
        raw.clear();
        // One more than there should be, so that the end is seen without growing.
        raw.reserve(usize::try_from(size).unwrap_or(0) + 1);
        loop {
            let count = rustix::io::retry_on_intr(|| {
                rustix::io::read(&file, rustix::buffer::spare_capacity(&mut raw))
            })
            .map_err(DatastoreError::sys("read chunk", &path))?;
            if count == 0 {
                break;
            }
        }
        Ok((raw, file))
    }

    /// Whether the store has a chunk.
    ///
    /// # Errors
    /// The disk fails.
    pub fn contains(&self, digest: &Digest) -> Result<bool> {
        Ok(self.look(&self.chunk_path(digest))?.is_some())
    }

    /// Renews the access time of a chunk, which protects it from garbage collection. `false`: the store has no such chunk.
    ///
    /// # Errors
    /// The disk fails.
    pub fn touch(&self, digest: &Digest) -> Result<bool> {
        let _guard = self.lock(digest);
        renew(&self.chunk_path(digest))
    }

    fn bad_path(&self, digest: &Digest, copy: u8) -> PathBuf {
        let mut path = self.chunk_path(digest).into_os_string();
        path.push(format!(".{copy}.bad"));
        path.into()
    }

    /// Sets a corrupt chunk aside, so that a later backup stores it anew. Returns its new place; `None`: it is gone already.
    ///
    /// # Errors
    /// [`DatastoreError::TooManyCorruptCopies`], or the disk fails.
    pub fn mark_corrupt(&self, digest: &Digest) -> Result<Option<PathBuf>> {
        let path = self.chunk_path(digest);
        let _guard = self.lock(digest);
        for copy in 0..BAD_COPIES {
            let bad = self.bad_path(digest, copy);
            if self.look(&bad)?.is_some() {
                continue;
            }
            return match std::fs::rename(&path, &bad) {
                Ok(()) => Ok(Some(bad)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(DatastoreError::io("set aside corrupt chunk", &path)(error)),
            };
        }
        Err(DatastoreError::TooManyCorruptCopies { digest: *digest })
    }
}

/// Whether a stored chunk of another size is kept instead of the new one.
fn keeps_stored(digest: &Digest, path: &Path, stored_size: u64, new: &DataBlob) -> Result<bool> {
    let Some(stored) = read_kind(path)? else {
        tracing::warn!(chunk = %digest, "found a file that is no chunk in the store, overwriting");
        return Ok(false);
    };
    if !new.is_encrypted() {
        return Ok(stored_size < new.raw().len() as u64);
    }
    let conflict = |reason| {
        Err(DatastoreError::ChunkConflict {
            digest: *digest,
            reason,
        })
    };
    if !stored.is_encrypted() {
        return conflict("it is encrypted, the stored one of the same digest is not");
    }
    if stored == BlobKind::Encrypted && new.kind() == BlobKind::Encrypted {
        return conflict(
            "it is not compressed, yet of another size than the stored one of the same digest",
        );
    }
    Ok(true)
}

fn read_kind(path: &Path) -> Result<Option<BlobKind>> {
    let mut magic = [0; 8];
    match File::open(path).and_then(|mut file| file.read_exact(&mut magic)) {
        Ok(()) => Ok(BlobKind::from_magic(&magic)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(DatastoreError::io("read chunk", path)(error)),
    }
}

/// Makes a file look as if it had been used just now, so that garbage collection leaves it alone. `false`: no such file.
///
/// Not every file system keeps access times, or keeps them exactly, or has the right time. So the result is looked at, and if
/// need be the modification time is set too.
fn renew(path: &Path) -> Result<bool> {
    let now = clock::now();
    if !access_time::touch(path)? {
        return Ok(false);
    }
    for attempt in 0.. {
        let found = match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(DatastoreError::io("look at chunk", path))?,
        };
        if found.atime().max(found.mtime()) >= now - access_time::EXACTNESS {
            break;
        }
        if attempt > 0 {
            return Err(DatastoreError::AccessTimes {
                path: path.to_owned(),
                reason: format!(
                    "its times stay {} and {} although they were renewed",
                    found.atime(),
                    found.mtime()
                ),
            });
        }
        access_time::set(path, now, now)?;
    }
    Ok(true)
}

fn prefix_name(prefix: u32) -> String {
    format!("{prefix:04x}")
}

/// A directory with the mode of chunk directories, whatever the process's mask is.
fn make_dir(path: &Path) -> Result<()> {
    make_dir_as_mask_allows(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(DIR_MODE))
        .map_err(DatastoreError::io("set the mode of", path))
}

fn make_dir_as_mask_allows(path: &Path) -> Result<()> {
    match crate::ownership::create_dir(path, DIR_MODE) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(DatastoreError::io("create directory", path)),
    }
}

fn dir_mode(path: &Path) -> Result<u32> {
    let metadata = std::fs::metadata(path).map_err(DatastoreError::io("look at", path))?;
    Ok(metadata.permissions().mode() & 0o777)
}

#[cfg(test)]
mod tests;
