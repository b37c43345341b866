//! The sources of a backup as they lie on disk: kinds, names, small files.

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use backstop_format::blob::MAX_CHUNK_SIZE;
use backstop_types::ArchiveName;

use super::request::{ArchiveSpec, BackupRequest, DEFAULT_CHUNK_SIZE, MIN_CHUNK_SIZE, SourceKind};
use crate::error::{ClientError, Result};

impl SourceKind {
    /// What log lines call it.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Tree => "directory",
            Self::Image => "image",
            Self::Config => "config file",
            Self::Log => "log file",
        }
    }

    /// Extension of the archive's name as the user gives it.
    fn extension(self) -> &'static str {
        match self {
            Self::Tree => "pxar",
            Self::Image => "img",
            Self::Config => "conf",
            Self::Log => "log",
        }
    }
}

/// Checks names, kinds and sizes of everything that a request wants to read; to be called before connecting, so that
/// mistakes leave no trace on the server. [`super::run`] calls it, too.
///
/// # Errors
/// The first source that cannot be backed up as asked.
pub fn check_sources(request: &BackupRequest) -> Result<()> {
    let size = request.chunk_size;
    if !size.is_power_of_two() || !(MIN_CHUNK_SIZE..=DEFAULT_CHUNK_SIZE).contains(&size) {
        return Err(ClientError::Invalid(format!(
            "chunk size {size} is not a power of two from {MIN_CHUNK_SIZE} to {DEFAULT_CHUNK_SIZE} bytes"
        )));
    }
    let mut names = HashSet::new();
    let mut pipes = HashSet::new();
    for spec in &request.archives {
        if !names.insert(&spec.name) {
            return Err(ClientError::Invalid(format!(
                "got target twice: '{}'",
                spec.name
            )));
        }
        let metadata = check_source(spec)?;
        if metadata.file_type().is_fifo() && !pipes.insert((metadata.dev(), metadata.ino())) {
            return Err(ClientError::Invalid(format!(
                "the pipe '{}' cannot be backed up twice",
                spec.path.display()
            )));
        }
    }
    Ok(())
}

fn check_source(spec: &ArchiveSpec) -> Result<Metadata> {
    let path = spec.path.display();
    let valid_name = ArchiveName::from_user_name(&spec.name)
        .is_ok_and(|name| name.has_user_extension(spec.kind.extension()));
    if !valid_name {
        return Err(ClientError::Invalid(format!(
            "'{}' is no valid name for a {} archive",
            spec.name,
            spec.kind.extension()
        )));
    }
    let metadata = std::fs::metadata(&spec.path).map_err(|source| ClientError::File {
        what: "reading the attributes of",
        path: spec.path.clone(),
        source,
    })?;
    let kind = metadata.file_type();
    let fits = match spec.kind {
        SourceKind::Tree => kind.is_dir(),
        SourceKind::Image => kind.is_file() || kind.is_block_device() || kind.is_fifo(),
        SourceKind::Config | SourceKind::Log => kind.is_file(),
    };
    if !fits {
        return Err(ClientError::Invalid(format!(
            "got unexpected file type for '{path}' (expected a {})",
            spec.kind.description()
        )));
    }
    if spec.kind == SourceKind::Image && kind.is_file() && metadata.len() == 0 {
        return Err(ClientError::Invalid(format!(
            "got zero-sized file '{path}'"
        )));
    }
    Ok(metadata)
}

/// Server names of the metadata and the payload archive of a split tree.
pub(crate) fn split_names(name: &ArchiveName) -> Result<(String, String)> {
    let base = name
        .as_str()
        .strip_suffix(".pxar.didx")
        .ok_or_else(|| ClientError::Invalid(format!("'{name}' is not a tree archive")))?;
    Ok((format!("{base}.mpxar.didx"), format!("{base}.ppxar.didx")))
}

/// Reads a file that is stored as one blob.
///
/// # Errors
/// It cannot be read, or is larger than the server accepts (16 MiB).
pub(crate) fn read_small_file(path: &Path) -> Result<Vec<u8>> {
    let failed = |source: io::Error| ClientError::File {
        what: "reading",
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    file.take(MAX_CHUNK_SIZE as u64 + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if content.len() > MAX_CHUNK_SIZE {
        return Err(ClientError::Invalid(format!(
            "'{}' is larger than {} MiB; back it up as an image or as part of a tree",
            path.display(),
            MAX_CHUNK_SIZE >> 20
        )));
    }
    Ok(content)
}
