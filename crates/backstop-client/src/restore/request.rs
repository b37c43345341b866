//! What to restore, and where to.

use std::path::PathBuf;

use backstop_format::manifest::Manifest;
use backstop_types::{ArchiveKind, ArchiveName};

use crate::error::{ClientError, Result};
use crate::reader::SnapshotAccess;

/// Where an archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreTarget {
    /// A new file, or a directory for trees.
    Path(PathBuf),
    /// Standard output.
    Stdout,
}

/// How a tree is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtractOptions {
    /// Only entries that match one of these patterns; empty for all.
    pub patterns: Vec<String>,
    /// Whether directories, the target included, may exist.
    pub allow_existing_dirs: bool,
    /// Whether existing files are replaced.
    pub overwrite_files: bool,
    /// Whether existing symbolic links are replaced.
    pub overwrite_symlinks: bool,
    /// Whether existing hard links are replaced.
    pub overwrite_hardlinks: bool,
    /// Leave ACLs as they come.
    pub ignore_acls: bool,
    /// Leave extended attributes as they come.
    pub ignore_xattrs: bool,
    /// Leave owners as they come.
    pub ignore_ownership: bool,
    /// Leave modes as they come.
    pub ignore_permissions: bool,
    /// Go on when a device node cannot be made.
    pub ignore_extract_device_errors: bool,
    /// Where to write the prelude of a split archive.
    pub prelude_target: Option<PathBuf>,
}

/// One archive to be restored.
#[derive(Clone)]
pub struct RestoreRequest {
    /// The snapshot.
    pub access: SnapshotAccess,
    /// Name of the archive, as the user or as the server knows it; `index.json` for the manifest.
    pub archive: String,
    /// Where it goes.
    pub target: RestoreTarget,
    /// How a tree is written.
    pub extract: ExtractOptions,
}

/// What an archive name means in a certain snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoredArchive {
    /// The manifest itself.
    Manifest,
    /// A blob, by its name on the server.
    Blob(String),
    /// A disk image.
    Image(String),
    /// A self-contained tree.
    Tree(String),
    /// A tree in two parts.
    SplitTree {
        /// Name of the metadata archive on the server.
        metadata: String,
        /// Name of the payload archive on the server.
        payload: String,
    },
    /// Another stream, such as a catalog: restored as it is.
    Raw(String),
}

impl RestoredArchive {
    /// Finds an archive by the name that a user gives (`root.pxar`) or the server's (`root.pxar.didx`). The parts of a split
    /// tree may be named by either part or by the name that the whole tree has.
    ///
    /// # Errors
    /// The name is malformed, or the snapshot does not contain the archive.
    pub fn find(name: &str, manifest: &Manifest) -> Result<Self> {
        let parsed = name
            .parse::<ArchiveName>()
            .or_else(|_| ArchiveName::from_user_name(name))
            .map_err(|error| {
                ClientError::Invalid(format!("invalid archive name '{name}' - {error}"))
            })?;
        let stored = parsed.as_str();
        if stored == ArchiveName::MANIFEST {
            return Ok(Self::Manifest);
        }
        if stored == ArchiveName::CLIENT_LOG {
            return Ok(Self::Blob(stored.to_owned()));
        }
        let split = ["pxar", "mpxar", "ppxar"]
            .iter()
            .find_map(|extension| stored.strip_suffix(&format!(".{extension}.didx")));
        if let Some(base) = split {
            let metadata = format!("{base}.mpxar.didx");
            let payload = format!("{base}.ppxar.didx");
            let whole = parsed.has_user_extension("pxar");
            if whole && manifest.file(stored).is_some() {
                return Ok(Self::Tree(stored.to_owned()));
            }
            if manifest.file(&metadata).is_some() && manifest.file(&payload).is_some() {
                return Ok(Self::SplitTree { metadata, payload });
            }
        }
        if manifest.file(stored).is_none() {
            return Err(ClientError::NoSuchArchive {
                name: stored.to_owned(),
            });
        }
        Ok(match parsed.kind() {
            ArchiveKind::Blob => Self::Blob(stored.to_owned()),
            ArchiveKind::Fixed => Self::Image(stored.to_owned()),
            ArchiveKind::Dynamic => Self::Raw(stored.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use backstop_format::manifest::FileEntry;
    use backstop_format::{CryptMode, Digest};

    use super::*;

    fn manifest(names: &[&str]) -> Manifest {
        let mut manifest = Manifest::new("host", "h", 1);
        for name in names {
            let entry = FileEntry {
                filename: (*name).to_owned(),
                crypt_mode: CryptMode::None,
                size: 1,
                csum: Digest([0; 32]),
            };
            manifest.add_file(entry).unwrap();
        }
        manifest
    }

    #[test]
    fn short_and_full_names_find_the_same_archive() {
        let manifest = manifest(&[
            "root.pxar.didx",
            "disk.img.fidx",
            "a.conf.blob",
            "catalog.pcat1.didx",
        ]);
        for (name, expected) in [
            (
                "root.pxar",
                RestoredArchive::Tree("root.pxar.didx".to_owned()),
            ),
            (
                "root.pxar.didx",
                RestoredArchive::Tree("root.pxar.didx".to_owned()),
            ),
            (
                "disk.img",
                RestoredArchive::Image("disk.img.fidx".to_owned()),
            ),
            ("a.conf", RestoredArchive::Blob("a.conf.blob".to_owned())),
            (
                "catalog.pcat1",
                RestoredArchive::Raw("catalog.pcat1.didx".to_owned()),
            ),
            ("index.json", RestoredArchive::Manifest),
            (
                "client.log",
                RestoredArchive::Blob("client.log.blob".to_owned()),
            ),
        ] {
            assert_eq!(
                RestoredArchive::find(name, &manifest).unwrap(),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn a_split_tree_is_found_by_any_of_its_names() {
        let manifest = manifest(&["root.ppxar.didx", "root.mpxar.didx"]);
        for name in [
            "root.pxar",
            "root.mpxar",
            "root.ppxar",
            "root.pxar.didx",
            "root.mpxar.didx",
        ] {
            let found = RestoredArchive::find(name, &manifest).unwrap();
            assert!(
                matches!(found, RestoredArchive::SplitTree { .. }),
                "{name}: {found:?}"
            );
        }
    }

    #[test]
    fn a_missing_or_malformed_name_is_an_error_that_names_it() {
        let manifest = manifest(&["root.pxar.didx"]);
        for name in ["other.pxar", "../x.blob", "", "root"] {
            let error = RestoredArchive::find(name, &manifest)
                .unwrap_err()
                .to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
