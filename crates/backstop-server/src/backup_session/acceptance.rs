//! Which manifest a backup may be finished with.
//!
//! A manifest is accepted only if each of its entries names a file that this very session stored, with the
//! size and checksum that the server computed itself, and with a plausible encryption mode. So nobody can
//! make a snapshot claim data that it does not have, and no name from a manifest is ever used as a path.
//! Keys that the server does not know are tolerated and dropped; a missing `unprotected` counts as empty.

use std::collections::{BTreeMap, BTreeSet};

use backstop_format::blob::DataBlob;
use backstop_format::manifest::{FileEntry, Manifest};
use backstop_format::{CryptMode, Digest, FormatError};

use super::index_writer::ContentKinds;
use super::statistics::UploadStatistics;

/// The manifest's own file name.
pub const MANIFEST_NAME: &str = "index.json.blob";

/// The escrow copy of the key is never encrypted with that key, whatever its manifest entry says.
const KEY_BLOB_NAME: &str = "rsa-encrypted.key.blob";

/// A file that this session stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Archive size of an index, raw size of a blob, bytes.
    pub size: u64,
    /// Checksum over the entries of an index, SHA-256 over the raw bytes of a blob.
    pub csum: Digest,
    /// What an index refers to, or whether a blob is encrypted.
    pub content: ContentKinds,
}

/// The snapshot that a manifest has to describe.
#[derive(Clone, Debug)]
pub struct SnapshotIdentity {
    /// `vm`, `ct` or `host`.
    pub backup_type: String,
    /// Group id.
    pub backup_id: String,
    /// Epoch seconds.
    pub backup_time: i64,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestRefusal {
    /// `index.json.blob` was never uploaded.
    #[error("the manifest '{MANIFEST_NAME}' was not uploaded")]
    Missing,
    /// Not a readable, unencrypted manifest.
    #[error("{0}")]
    Unreadable(#[from] FormatError),
    /// It describes another snapshot.
    #[error("the manifest describes snapshot '{found}', but this backup is '{expected}'")]
    WrongSnapshot {
        /// `type/id/epoch` in the manifest.
        found: String,
        /// `type/id/epoch` of the session.
        expected: String,
    },
    /// An entry that no upload of this session stands behind.
    #[error("manifest entry '{name}' was not uploaded in this backup session")]
    NotUploaded {
        /// File name in the manifest.
        name: String,
    },
    /// One file, two entries.
    #[error("manifest lists '{name}' more than once")]
    Duplicate {
        /// File name in the manifest.
        name: String,
    },
    /// The size is not that of the stored file.
    #[error("manifest entry '{name}' has wrong size ({claimed} != {stored})")]
    Size {
        /// File name.
        name: String,
        /// According to the manifest, bytes.
        claimed: u64,
        /// As computed by the server, bytes.
        stored: u64,
    },
    /// The checksum is not that of the stored file.
    #[error("manifest entry '{name}' has wrong checksum ({claimed} != {stored})")]
    Checksum {
        /// File name.
        name: String,
        /// According to the manifest.
        claimed: Digest,
        /// As computed by the server.
        stored: Digest,
    },
    /// Claims to be encrypted but holds plain data, or the other way round.
    #[error("manifest entry '{name}' claims crypt mode '{claimed}', but {found} data was uploaded")]
    CryptMode {
        /// File name.
        name: String,
        /// According to the manifest.
        claimed: &'static str,
        /// `plain` or `encrypted`.
        found: &'static str,
    },
}

/// Checks the uploaded manifest and returns it as it will be stored, with the upload statistics added.
pub fn accept_manifest(
    uploaded: Option<&DataBlob>,
    identity: &SnapshotIdentity,
    stored: &BTreeMap<String, StoredFile>,
    statistics: UploadStatistics,
) -> Result<Manifest, ManifestRefusal> {
    let blob = uploaded.ok_or(ManifestRefusal::Missing)?;
    let mut manifest = Manifest::from_blob(blob)?;
    check_identity(&manifest, identity)?;
    let mut seen = BTreeSet::new();
    for entry in &manifest.files {
        let name = &entry.filename;
        if !seen.insert(name.as_str()) {
            return Err(ManifestRefusal::Duplicate { name: name.clone() });
        }
        let file = match stored.get(name) {
            Some(file) if name != MANIFEST_NAME => file,
            _ => return Err(ManifestRefusal::NotUploaded { name: name.clone() }),
        };
        check_entry(entry, file)?;
    }
    if !manifest.unprotected.is_object() {
        manifest.unprotected = serde_json::json!({});
    }
    if let Some(unprotected) = manifest.unprotected.as_object_mut() {
        unprotected.insert("chunk_upload_stats".to_owned(), statistics.to_json());
    }
    Ok(manifest)
}

fn check_identity(manifest: &Manifest, identity: &SnapshotIdentity) -> Result<(), ManifestRefusal> {
    if manifest.backup_type == identity.backup_type
        && manifest.backup_id == identity.backup_id
        && manifest.backup_time == identity.backup_time
    {
        return Ok(());
    }
    Err(ManifestRefusal::WrongSnapshot {
        found: format!(
            "{}/{}/{}",
            manifest.backup_type, manifest.backup_id, manifest.backup_time
        ),
        expected: format!(
            "{}/{}/{}",
            identity.backup_type, identity.backup_id, identity.backup_time
        ),
    })
}

fn check_entry(entry: &FileEntry, file: &StoredFile) -> Result<(), ManifestRefusal> {
    let name = || entry.filename.clone();
    if entry.size != file.size {
        return Err(ManifestRefusal::Size {
            name: name(),
            claimed: entry.size,
            stored: file.size,
        });
    }
    if entry.csum != file.csum {
        return Err(ManifestRefusal::Checksum {
            name: name(),
            claimed: entry.csum,
            stored: file.csum,
        });
    }
    if entry.filename == KEY_BLOB_NAME {
        return Ok(());
    }
    let found = match entry.crypt_mode {
        CryptMode::Encrypt if file.content.plain => "plain",
        CryptMode::None | CryptMode::SignOnly if file.content.encrypted => "encrypted",
        _ => return Ok(()),
    };
    let claimed = match entry.crypt_mode {
        CryptMode::Encrypt => "encrypt",
        CryptMode::SignOnly => "sign-only",
        CryptMode::None => "none",
    };
    Err(ManifestRefusal::CryptMode {
        name: name(),
        claimed,
        found,
    })
}
