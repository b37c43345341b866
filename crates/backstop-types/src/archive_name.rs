//! Names of the files of a snapshot, and how users name them.
//! Never accepts a name without a known extension.

use std::fmt;
use std::str::FromStr;

use crate::name::{NameError, PATTERN_MISMATCH, is_safe_id, text_impls};

/// How a file of a snapshot is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ArchiveKind {
    /// One data blob (`.blob`).
    Blob,
    /// An index of equally sized chunks (`.fidx`).
    Fixed,
    /// An index of chunks of any size (`.didx`).
    Dynamic,
}

impl ArchiveKind {
    /// The extension without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Fixed => "fidx",
            Self::Dynamic => "didx",
        }
    }

    fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "blob" => Some(Self::Blob),
            "fidx" => Some(Self::Fixed),
            "didx" => Some(Self::Dynamic),
            _ => None,
        }
    }
}

impl fmt::Display for ArchiveKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.extension())
    }
}

/// The name of a file in a snapshot as the server stores it: a safe id that ends in
/// `.blob`, `.fidx` or `.didx`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveName(Box<str>);

impl ArchiveName {
    /// The manifest of a snapshot.
    pub const MANIFEST: &'static str = "index.json.blob";
    /// The log that a client uploads after the backup.
    pub const CLIENT_LOG: &'static str = "client.log.blob";
    /// The file catalog of unsplit archives.
    pub const CATALOG: &'static str = "catalog.pcat1.didx";
    /// The encryption key, encrypted with the master key.
    pub const ENCRYPTED_KEY: &'static str = "rsa-encrypted.key.blob";

    /// Takes the name as users write it (`root.pxar`, `disk.img`, `etc.conf`) or as the server
    /// stores it.
    ///
    /// # Errors
    /// When it is not a safe id or has no known extension.
    pub fn from_user_name(text: &str) -> Result<Self, NameError> {
        let extension = text.rsplit_once('.').map_or("", |(_, extension)| extension);
        let kind = match extension {
            "didx" | "fidx" | "blob" => return text.parse(),
            "pxar" | "mpxar" | "ppxar" | "pcat1" => ArchiveKind::Dynamic,
            "img" => ArchiveKind::Fixed,
            "conf" | "log" | "json" | "key" => ArchiveKind::Blob,
            _ => {
                return Err(NameError::new(
                    "archive name",
                    text,
                    format!("failed to parse archive type for '{text}'"),
                ));
            }
        };
        format!("{text}.{kind}").parse()
    }

    /// The stored name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How the file is stored.
    #[must_use]
    pub fn kind(&self) -> ArchiveKind {
        // `FromStr` has let only known extensions in.
        ArchiveKind::of(&self.0).unwrap_or(ArchiveKind::Blob)
    }

    /// The name without the server's extension: `root.pxar`.
    #[must_use]
    pub fn user_name(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(name, _)| name)
    }

    /// Whether users' part of the name ends in `.extension`.
    #[must_use]
    pub fn has_user_extension(&self, extension: &str) -> bool {
        self.user_name()
            .rsplit_once('.')
            .is_some_and(|(_, own)| own == extension)
    }
}

impl FromStr for ArchiveName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !is_safe_id(text) {
            return Err(NameError::new("archive name", text, PATTERN_MISMATCH));
        }
        match ArchiveKind::of(text) {
            Some(_) => Ok(Self(text.into())),
            None => Err(NameError::new(
                "archive name",
                text,
                "expected the extension .blob, .fidx or .didx",
            )),
        }
    }
}

text_impls!(ArchiveName);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn user_names_map_to_stored_names() {
        for (user, stored, kind) in [
            ("root.pxar", "root.pxar.didx", ArchiveKind::Dynamic),
            ("root.mpxar", "root.mpxar.didx", ArchiveKind::Dynamic),
            ("root.ppxar", "root.ppxar.didx", ArchiveKind::Dynamic),
            ("catalog.pcat1", "catalog.pcat1.didx", ArchiveKind::Dynamic),
            (
                "drive-scsi0.img",
                "drive-scsi0.img.fidx",
                ArchiveKind::Fixed,
            ),
            ("etc.conf", "etc.conf.blob", ArchiveKind::Blob),
            ("client.log", "client.log.blob", ArchiveKind::Blob),
            ("index.json", "index.json.blob", ArchiveKind::Blob),
            (
                "rsa-encrypted.key",
                "rsa-encrypted.key.blob",
                ArchiveKind::Blob,
            ),
            ("root.pxar.didx", "root.pxar.didx", ArchiveKind::Dynamic),
        ] {
            let name = ArchiveName::from_user_name(user).unwrap();
            assert_eq!(name.as_str(), stored);
            assert_eq!(name.kind(), kind);
        }
        assert!(ArchiveName::from_user_name("root.txt").is_err());
        assert!(ArchiveName::from_user_name("root").is_err());
        assert!(ArchiveName::from_user_name("../root.pxar").is_err());
    }

    #[test]
    fn names_that_are_not_archives_are_refused() {
        for text in [
            ".didx", "a.txt", "a/b.didx", "..didx", "", "a.didx\n", "a.DIDX", "didx",
        ] {
            assert!(text.parse::<ArchiveName>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_stored_name_survives_its_text(stem in "[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", ext in "blob|fidx|didx") {
            let text = format!("{stem}.{ext}");
            let name: ArchiveName = text.parse().unwrap();
            prop_assert_eq!(name.to_string(), text);
            prop_assert_eq!(name.user_name(), stem);
            prop_assert_eq!(ArchiveName::from_user_name(name.as_str()).unwrap(), name);
        }
    }
}
