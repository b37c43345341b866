//! Files of settings that hold secrets: lines `NAME: VALUE`, as in `vzdump.conf`; what begins with `#` is a comment. Settings below a
//! line `[SECTION]` belong to that section, all others are common.
//!
//! A file that everybody could read is refused, and no error holds a value.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use backstop_outgoing::tls::TrustError;

/// Why a file cannot be used. Holds no value of it.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// There is none.
    #[error(
        "there is no configuration {0:?}; it has lines 'NAME: VALUE' and has to be readable by root alone"
    )]
    Absent(PathBuf),
    /// It cannot be read.
    #[error("unable to read {path:?} - {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others could read the secret in it.
    #[error(
        "{path:?} can be read by others (mode {mode:03o}) and holds a secret; run 'chmod 600' on it"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A line.
    #[error("{path:?}, line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Whom to trust makes no sense.
    #[error("{path:?}: {reason}")]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: TrustError,
    },
    /// Nobody is to be told.
    #[error("{0:?} names no url for this job")]
    NoUrl(PathBuf),
}

/// One line.
#[derive(Clone)]
pub struct Setting {
    /// Its number, from 1 on.
    pub line: usize,
    /// The name: small letters and dashes.
    pub name: String,
    /// The value, which may be a secret.
    pub value: String,
}

/// Settings below one line `[SECTION]`.
#[derive(Clone)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its settings, in their order.
    pub settings: Vec<Setting>,
}

/// A whole file.
#[derive(Clone)]
pub struct SettingsFile {
    /// Where it is.
    pub path: PathBuf,
    /// Settings before the first section.
    pub common: Vec<Setting>,
    /// The sections, in their order; several may have one name.
    pub sections: Vec<Section>,
}

impl SettingsFile {
    /// Reads a file.
    ///
    /// # Errors
    /// When it is absent, readable by others, or not made of such lines.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let failed = |source: std::io::Error| match source.kind() {
            ErrorKind::NotFound => SettingsError::Absent(path.to_owned()),
            _ => SettingsError::Read {
                path: path.to_owned(),
                source,
            },
        };
        let found = std::fs::metadata(path).map_err(failed)?;
        // A FIFO would be waited for.
        if !found.is_file() {
            return Err(failed(std::io::Error::other("it is no file")));
        }
        let mode = found.mode() & 0o777;
        if mode & 0o007 != 0 {
            return Err(SettingsError::Mode {
                path: path.to_owned(),
                mode,
            });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(failed)?, path)
    }

    /// Reads the text of a file that is, or would be, at `path`.
    ///
    /// # Errors
    /// When it is not made of such lines.
    pub fn parse(text: &str, path: &Path) -> Result<Self, SettingsError> {
        let mut file = Self {
            path: path.to_owned(),
            common: Vec::new(),
            sections: Vec::new(),
        };
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[') {
                let name = name.strip_suffix(']').map(str::trim);
                let name = name.ok_or_else(|| file.wrong(number, "expected [NAME]"))?;
                file.sections.push(Section {
                    name: name.to_owned(),
                    settings: Vec::new(),
                });
                continue;
            }
            let pair = line.split_once(':');
            let pair = pair.map(|(name, value)| (name.trim(), value.trim()));
            // What is no name may be part of a secret.
            let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            let Some((name, value)) = pair.filter(|(name, _)| is_name(name)) else {
                return Err(file.wrong(number, "expected NAME: VALUE"));
            };
            let setting = Setting {
                line: number,
                name: name.to_owned(),
                value: value.to_owned(),
            };
            match file.sections.last_mut() {
                None => file.common.push(setting),
                Some(section) => section.settings.push(setting),
            }
        }
        Ok(file)
    }

    /// That something is wrong in a line.
    pub fn wrong(&self, line: usize, reason: impl Into<String>) -> SettingsError {
        SettingsError::Line {
            path: self.path.clone(),
            line,
            reason: reason.into(),
        }
    }

    /// That a setting has none of these names.
    pub fn unknown(&self, setting: &Setting, names: &[&str]) -> SettingsError {
        let name = setting.name.escape_debug();
        let reason = format!("'{name}' is no setting; there are {}", names.join(", "));
        self.wrong(setting.line, reason)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn lines_belong_to_the_section_above_them() {
        let text = "# c\nurl: https://x\n\n [ a ]\nserver: b: c\n[a]\n";
        let file = SettingsFile::parse(text, Path::new("/x")).unwrap();
        let pairs = |settings: &[Setting]| -> Vec<(usize, String, String)> {
            let parts = |s: &Setting| (s.line, s.name.clone(), s.value.clone());
            settings.iter().map(parts).collect()
        };
        let expected = |line, name: &str, value: &str| vec![(line, name.into(), value.into())];
        assert_eq!(pairs(&file.common), expected(2, "url", "https://x"));
        assert_eq!(file.sections.len(), 2);
        assert_eq!(file.sections[0].name, "a");
        let own = pairs(&file.sections[0].settings);
        assert_eq!(own, expected(5, "server", "b: c"));
        assert!(file.sections[1].settings.is_empty());
    }

    #[test]
    fn a_file_that_everybody_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.conf");
        assert!(matches!(
            SettingsFile::read(&path),
            Err(SettingsError::Absent(_))
        ));
        std::fs::write(&path, "url: https://x/geheim\n").unwrap();
        for (mode, is_good) in [(0o600, true), (0o640, true), (0o644, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(SettingsFile::read(&path).is_ok(), is_good, "{mode:o}");
        }
        let folder = SettingsFile::read(folder.path()).err().unwrap();
        assert!(folder.to_string().contains("it is no file"), "{folder}");
    }

    #[test]
    fn errors_name_the_line_and_no_secret() {
        for (text, expected) in [
            ("url https://x/geheim", "line 1: expected NAME: VALUE"),
            ("\nGeheim: 1", "line 2: expected NAME: VALUE"),
            ("[geheim", "line 1: expected [NAME]"),
        ] {
            let error = SettingsFile::parse(text, Path::new("/x")).err().unwrap();
            let error = error.to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
