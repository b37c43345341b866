//! How often a user failed since the last success: one small file for each user, where stock servers keep it, so that neither a
//! restart nor a change of the program gives fresh tries. Must only be used under the lock of `tfa.json`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use backstop_datastore::ownership;
use backstop_types::UserId;
use serde_json::{Map, Value};

use crate::config::{ConfigError, ConfigStore};

/// Wrong one-time passwords in a row that lock them.
pub(super) const TOTP_LIMIT: u64 = 8;
/// Failures of any kind in a row that lock all factors for a while.
pub(super) const LIMIT: u64 = 100;
/// How long that is, in seconds.
pub(super) const LOCK_TIME: i64 = 3600;

const TOTP: &str = "totp_failures";
const ALL: &str = "tfa_failures";
/// Largest file that is read, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// The failures of a user, with whatever else a stock server left in the file.
#[derive(Debug)]
pub(super) struct Failures {
    path: PathBuf,
    content: Map<String, Value>,
    stored: Map<String, Value>,
}

impl Failures {
    /// Reads them. A file that cannot be understood counts as empty, as on stock servers: it holds nothing worth more.
    pub(super) fn read(config: &ConfigStore, user: &UserId) -> Result<Self, ConfigError> {
        let path = path(config, user);
        let text = match File::open(&path) {
            Ok(file) => {
                let mut text = Vec::new();
                io::Read::read_to_end(&mut io::Read::take(file, MAX_SIZE), &mut text)
                    .map_err(|source| failed("read", &path, source))?;
                text
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("read", &path, error)),
        };
        let content: Map<String, Value> = serde_json::from_slice(&text).unwrap_or_default();
        Ok(Self {
            path,
            stored: content.clone(),
            content,
        })
    }

    fn count(&self, key: &str) -> u64 {
        self.content.get(key).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Wrong one-time passwords in a row.
    pub(super) fn totp(&self) -> u64 {
        self.count(TOTP)
    }

    /// Failures of any kind in a row.
    pub(super) fn all(&self) -> u64 {
        self.count(ALL)
    }

    /// Counts one more, with `totp` a wrong one-time password.
    pub(super) fn add(&mut self, totp: bool) {
        for key in [Some(ALL), totp.then_some(TOTP)].into_iter().flatten() {
            let next = self.count(key).saturating_add(1);
            self.content.insert(key.to_owned(), next.into());
        }
    }

    /// Forgets those of all kinds, with `totp` also the wrong one-time passwords.
    pub(super) fn forget(&mut self, totp: bool) {
        self.content.remove(ALL);
        if totp {
            self.content.remove(TOTP);
        }
    }

    /// Writes what changed; it is on the disk afterwards.
    pub(super) fn save(&mut self) -> Result<(), ConfigError> {
        if self.content != self.stored {
            let content = Value::Object(self.content.clone()).to_string();
            replace(&self.path, content.as_bytes())
                .map_err(|source| failed("write", &self.path, source))?;
            self.stored.clone_from(&self.content);
        }
        Ok(())
    }
}

/// Removes the file of a user.
pub(super) fn remove(config: &ConfigStore, user: &UserId) -> Result<(), ConfigError> {
    let path = path(config, user);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", &path, error))
        }
        _ => Ok(()),
    }
}

/// A user id holds neither `/` nor control characters, and an `@`: it is a file name.
fn path(config: &ConfigStore, user: &UserId) -> PathBuf {
    config.run().join("tfa/challenges").join(user.as_str())
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> ConfigError {
    ConfigError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    ownership::create_dir_all(folder, 0o700)?;
    // Only one writer at a time, under the lock: the name may be the same each time.
    let temporary = folder.join(".new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(&temporary)?;
    ownership::inherit(&file, &temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}
