//! What was measured since the files were written last: one line for each object and time.
//!
//! `TIME OBJECT NAME=VALUE NAME:VALUE …`, with `=` for a state and `:` for what grows. A line that cannot be understood
//! (the last one after a power cut) is skipped.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use backstop_datastore::ownership;

use crate::metrics::Kind;

/// Largest journal that is read, bytes; half an hour of a hundred datastores takes 4 MB.
const MAX_SIZE: u64 = 64 << 20;

/// One value as it was measured.
pub type Measured<'a> = (&'a str, Kind, f64);

/// The open journal.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(&path)?;
        ownership::inherit(&file, &path)?;
        Ok(Self { path, file })
    }

    pub(super) fn add(&mut self, time: i64, object: &str, values: &[Measured]) -> io::Result<()> {
        use std::fmt::Write as _;
        let mut line = format!("{time} {object}");
        for (name, kind, value) in values {
            let sign = if *kind == Kind::Gauge { '=' } else { ':' };
            // Writing to a string cannot fail.
            let _ = write!(line, " {name}{sign}{value}");
        }
        line.push('\n');
        self.file.write_all(line.as_bytes())
    }

    /// Forgets everything: it stands in the files now.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)
    }

    /// Shows every line that can be understood.
    pub(super) fn replay(&self, mut take: impl FnMut(i64, &str, &[Measured])) -> io::Result<()> {
        for line in read(&self.path)?.lines() {
            if let Some((time, object, values)) = parse(line) {
                take(time, object, &values);
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MAX_SIZE)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse(line: &str) -> Option<(i64, &str, Vec<Measured<'_>>)> {
    let mut words = line.split(' ');
    let (time, object) = (words.next()?.parse().ok()?, words.next()?);
    let values: Option<Vec<Measured>> = words
        .map(|word| {
            let (kind, sign) = if word.contains('=') {
                (Kind::Gauge, '=')
            } else {
                (Kind::Derive, ':')
            };
            let (name, value) = word.split_once(sign)?;
            Some((name, kind, value.parse().ok()?))
        })
        .collect();
    Some((time, object, values?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_journal_tells_what_was_added_and_skips_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(path.clone()).unwrap();
        let values = [("used", Kind::Gauge, 1.5), ("read_ios", Kind::Derive, 7.0)];
        journal.add(60, "datastore/store1", &values).unwrap();
        journal.add(70, "host", &values[..1]).unwrap();
        let torn = fs::OpenOptions::new().append(true).open(&path);
        torn.unwrap().write_all(b"80 host used").unwrap();
        let mut seen = Vec::new();
        let mut take = |time: i64, object: &str, values: &[Measured]| {
            seen.push((time, object.to_owned(), values.len()));
            if object != "host" {
                assert_eq!(
                    values,
                    [("used", Kind::Gauge, 1.5), ("read_ios", Kind::Derive, 7.0)]
                );
            }
        };
        journal.replay(&mut take).unwrap();
        assert_eq!(
            seen,
            [
                (60, "datastore/store1".to_owned(), 2),
                (70, "host".to_owned(), 1)
            ]
        );
        journal.clear().unwrap();
        journal.replay(|_, _, _| panic!("nothing is left")).unwrap();
    }
}
