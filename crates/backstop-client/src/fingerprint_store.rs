//! Fingerprints of servers that the user has confirmed: one `host fingerprint` per line.
//!
//! The file is shared with the stock client. Lines that are not understood are kept.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use backstop_format::Fingerprint;

/// The file of confirmed fingerprints, usually `~/.config/proxmox-backup/fingerprints`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FingerprintStore {
    path: PathBuf,
}

impl FingerprintStore {
    /// A store at the given path; neither file nor directory needs to exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The fingerprint confirmed for a host (without port), if any.
    ///
    /// # Errors
    /// Fails if the file exists and cannot be read.
    pub fn load(&self, host: &str) -> io::Result<Option<Fingerprint>> {
        Ok(self.read()?.lines().find_map(|line| {
            let (name, fingerprint) = entry(line)?;
            if name == host {
                fingerprint.parse().ok()
            } else {
                None
            }
        }))
    }

    /// Records the fingerprint of a host, replacing an earlier one.
    ///
    /// # Errors
    /// Fails if the file cannot be read or replaced.
    pub fn store(&self, host: &str, fingerprint: &Fingerprint) -> io::Result<()> {
        let mut text = String::new();
        for line in self.read()?.lines() {
            if entry(line).is_none_or(|(name, _)| name != host) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text.push_str(&format!("{host} {fingerprint}\n"));
        replace_file(&self.path, text.as_bytes(), 0o644)
    }

    fn read(&self) -> io::Result<String> {
        match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            other => other,
        }
    }
}

fn entry(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    Some((words.next()?, words.next()?))
}

/// Writes a file beside its final name and renames it, so that a crash leaves the old or the new content.
pub(crate) fn replace_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".tmp_{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let result = (|| {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_data()?;
        fs::rename(&temporary, path)
    })();
    if result.is_err() {
        // Best effort: the failure itself is what the caller has to hear of.
        let _ = fs::remove_file(&temporary);
    }
    result
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_confirmed_fingerprint_is_found_again_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let store = FingerprintStore::new(dir.path().join("sub/fingerprints"));
        assert_eq!(store.load("a").unwrap(), None);
        let (one, two) = (Fingerprint([1; 32]), Fingerprint([2; 32]));
        store.store("a", &one).unwrap();
        store.store("b", &one).unwrap();
        store.store("a", &two).unwrap();
        assert_eq!(store.load("a").unwrap(), Some(two));
        assert_eq!(store.load("b").unwrap(), Some(one));
        assert_eq!(fs::read_to_string(store.path()).unwrap().lines().count(), 2);
    }

    #[test]
    fn upper_case_entries_and_foreign_lines_are_tolerated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fingerprints");
        let fingerprint = Fingerprint([0xab; 32]);
        fs::write(
            &path,
            format!("# mine\nh {}\n", fingerprint.to_string().to_uppercase()),
        )
        .unwrap();
        let store = FingerprintStore::new(&path);
        assert_eq!(store.load("h").unwrap(), Some(fingerprint));
        store.store("i", &fingerprint).unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with("# mine\n"));
    }
}
