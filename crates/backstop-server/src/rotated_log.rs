//! A log file and its older parts: `NAME`, `NAME.1`, then `NAME.2.zst` and so on, as a stock server keeps them.
//!
//! A crash in the middle can leave a part twice or leave a gap in the numbers; it never loses one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use backstop_datastore::ownership;

/// A log that is cut into parts. All methods block.
#[derive(Debug, Clone)]
pub struct RotatedLog {
    path: PathBuf,
}

/// One file of a rotated log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// 0 for the file that is written to, higher for older ones.
    pub number: u32,
    /// Where it is.
    pub path: PathBuf,
}

impl Part {
    /// Opens the part; what it gives is unpacked.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self) -> io::Result<Box<dyn Read>> {
        let file = File::open(&self.path)?;
        if self.is_packed() {
            Ok(Box::new(zstd::stream::read::Decoder::new(file)?))
        } else {
            Ok(Box::new(file))
        }
    }

    fn is_packed(&self) -> bool {
        self.path.extension().is_some_and(|end| end == "zst")
    }
}

impl RotatedLog {
    /// The log whose current part is `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// All parts, newest first.
    ///
    /// # Errors
    /// When the folder cannot be read. A folder that does not exist has no parts.
    pub fn parts(&self) -> io::Result<Vec<Part>> {
        let (Some(folder), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Ok(Vec::new());
        };
        let name = name.to_string_lossy();
        let entries = match fs::read_dir(folder) {
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut parts = Vec::new();
        for entry in entries {
            let found = entry?.file_name();
            let Some(rest) = found.to_str().and_then(|found| found.strip_prefix(&*name)) else {
                continue;
            };
            let number = match rest {
                "" => Some(0),
                rest => rest.strip_prefix('.').and_then(|rest| {
                    let digits = rest.strip_suffix(".zst").unwrap_or(rest);
                    digits.parse().ok().filter(|number| *number > 0)
                }),
            };
            if let Some(number) = number {
                parts.push(Part {
                    number,
                    path: folder.join(found),
                });
            }
        }
        parts.sort();
        Ok(parts)
    }

    /// Makes the current part an old one if it has more than `size` bytes, and deletes all parts from number `keep`
    /// on. Says whether it did.
    ///
    /// # Errors
    /// When a file cannot be renamed, packed or deleted.
    pub fn rotate(&self, size: u64, keep: Option<u32>) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() > size => {}
            Ok(_) => return Ok(false),
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(false),
            Err(err) => return Err(err),
        }
        let parts = self.parts()?;
        // Where a number is free, nothing above it has to move.
        let free = (1..u32::MAX)
            .find(|number| parts.iter().all(|part| part.number != *number))
            .unwrap_or(u32::MAX);
        for part in parts.iter().rev().filter(|part| part.number < free) {
            self.push_back(part)?;
        }
        if let Some(keep) = keep {
            for part in self.parts()? {
                if part.number >= keep {
                    fs::remove_file(&part.path)?;
                }
            }
        }
        Ok(true)
    }

    /// Gives a part the next number, and packs it unless it is now the first.
    fn push_back(&self, part: &Part) -> io::Result<()> {
        let number = part.number.saturating_add(1);
        if number == 1 {
            return fs::rename(&part.path, self.numbered(number, ""));
        }
        let target = self.numbered(number, ".zst");
        if part.is_packed() {
            return fs::rename(&part.path, target);
        }
        let temporary = self.numbered(number, ".zst.tmp");
        let packed = pack(&part.path, &temporary).and_then(|()| fs::rename(&temporary, &target));
        if packed.is_err() {
            // The reason of the first failure is the one that counts.
            let _ = fs::remove_file(&temporary);
        }
        packed?;
        fs::remove_file(&part.path)
    }

    fn numbered(&self, number: u32, end: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}{end}"));
        path.into()
    }
}

/// Writes a compressed copy with the same mode.
fn pack(source: &Path, target: &Path) -> io::Result<()> {
    let mut source = File::open(source)?;
    let mode = source.metadata()?.mode() & 0o777;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(target)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    ownership::inherit(&file, target)?;
    let mut encoder = zstd::stream::write::Encoder::new(file, 0)?;
    io::copy(&mut source, &mut encoder)?;
    encoder.finish()?.flush()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn contents(log: &RotatedLog) -> Vec<(String, String)> {
        let parts = log.parts().unwrap().into_iter();
        parts
            .map(|part| {
                let mut text = String::new();
                part.open().unwrap().read_to_string(&mut text).unwrap();
                let name = part.path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, text)
            })
            .collect()
    }

    fn expect(log: &RotatedLog, wanted: &[(&str, &str)]) {
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        assert_eq!(contents(log), wanted);
    }

    #[test]
    fn parts_move_back_are_packed_from_the_second_on_and_fall_off_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = RotatedLog::new(dir.path().join("archive"));
        assert!(!log.rotate(3, Some(4)).unwrap());
        for text in ["one1", "two2", "three", "four4"] {
            fs::write(dir.path().join("archive"), text).unwrap();
            assert!(log.rotate(3, Some(4)).unwrap());
        }
        fs::write(dir.path().join("archive"), "tiny").unwrap();
        assert!(
            !log.rotate(4, Some(4)).unwrap(),
            "not larger than the limit"
        );
        expect(
            &log,
            &[
                ("archive", "tiny"),
                ("archive.1", "four4"),
                ("archive.2.zst", "three"),
                ("archive.3.zst", "two2"),
            ],
        );
    }

    #[test]
    fn parts_of_a_stock_server_and_gaps_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        file("archive", "new");
        file("archive.1", "old");
        file("archive.5", "oldest");
        file("archive.bak", "not ours");
        file("archived.1", "not ours");
        let log = RotatedLog::new(dir.path().join("archive"));
        assert!(log.rotate(0, None).unwrap());
        expect(
            &log,
            &[
                ("archive.1", "new"),
                ("archive.2.zst", "old"),
                ("archive.5", "oldest"),
            ],
        );
    }
}
