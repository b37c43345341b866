//! The files of a snapshot as lists show them: those of the manifest, the manifest itself, and what else is there.

use backstop_datastore::SnapshotInfo;
use backstop_format::CryptMode;
use backstop_format::manifest::Manifest;
use backstop_types::ArchiveName;
use backstop_types::record::FileItem;

use crate::datastores::DatastoreHandle;
use crate::http::ApiError;

use backstop_types::{Namespace, Snapshot};

/// Lists the files.
pub fn file_items(manifest: &Manifest, manifest_size: u64, names: &[String]) -> Vec<FileItem> {
    let mut items: Vec<FileItem> = manifest
        .files
        .iter()
        .map(|file| FileItem {
            filename: file.filename.clone(),
            crypt_mode: Some(file.crypt_mode),
            size: Some(file.size),
        })
        .collect();
    let signed = if manifest.signature.is_some() {
        CryptMode::SignOnly
    } else {
        CryptMode::None
    };
    items.push(FileItem {
        filename: ArchiveName::MANIFEST.to_owned(),
        crypt_mode: Some(signed),
        size: Some(manifest_size),
    });
    for name in names {
        if !items.iter().any(|item| item.filename == *name) {
            items.push(unlisted(name));
        }
    }
    items
}

/// A file that no manifest names.
pub fn unlisted(name: &str) -> FileItem {
    FileItem {
        filename: name.to_owned(),
        crypt_mode: None,
        size: None,
    }
}

/// The snapshot with its files.
pub fn find_snapshot(
    datastore: &DatastoreHandle,
    ns: &Namespace,
    snapshot: &Snapshot,
) -> Result<SnapshotInfo, ApiError> {
    datastore
        .snapshot_info(ns, snapshot)
        .map_err(super::not_found)
}

/// The manifest, for calls that need one.
pub fn manifest_of(
    datastore: &DatastoreHandle,
    ns: &Namespace,
    snapshot: &Snapshot,
) -> Result<Manifest, ApiError> {
    match datastore.load_manifest(ns, snapshot) {
        Ok((manifest, _)) => Ok(manifest),
        Err(err) if err.is_not_found() => Err(ApiError::bad_request(format!(
            "manifest not found for snapshot '{snapshot}'"
        ))),
        Err(err) => Err(err.into()),
    }
}

/// Fails if the manifest says that this file is encrypted.
pub fn check_readable(manifest: &Manifest, name: &str) -> Result<(), ApiError> {
    match manifest.file(name) {
        Some(file) if file.crypt_mode == CryptMode::Encrypt => Err(ApiError::bad_request(format!(
            "cannot decode '{name}' - is encrypted"
        ))),
        _ => Ok(()),
    }
}
