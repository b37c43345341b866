//! Key files on disk: read with a limit, written for the owner alone, never half.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use zeroize::Zeroizing;

/// Largest file that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// The content of a file.
pub fn read(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::new());
    let reading =
        std::fs::File::open(path).and_then(|file| file.take(LIMIT).read_to_end(&mut content));
    match reading {
        Ok(_) => Ok(content),
        Err(error) => anyhow::bail!("unable to read {path:?} - {error}"),
    }
}

/// Writes a new file that only the owner may read; one that exists is left as it is.
pub fn create(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    create_with_mode(path, content, 0o600)
}

/// Writes a new file that everybody may read.
pub fn create_public(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    create_with_mode(path, content, 0o644)
}

fn create_with_mode(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    make_directory(path)?;
    let writing = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
    match writing {
        Ok(()) => Ok(()),
        Err(error) => anyhow::bail!("Unable to store key file {path:?} - {error}"),
    }
}

/// Replaces a file, so that at every moment it holds the old or the new content.
pub fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    make_directory(path)?;
    let directory = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)
        .with_context(|| format!("Unable to store key file {path:?}"))?;
    file.write_all(content)
        .and_then(|()| file.as_file().sync_all())
        .with_context(|| format!("Unable to store key file {path:?}"))?;
    file.persist(path)
        .with_context(|| format!("Unable to store key file {path:?}"))?;
    Ok(())
}

fn make_directory(path: &Path) -> anyhow::Result<()> {
    match path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        Some(parent) => std::fs::create_dir_all(parent)
            .with_context(|| format!("unable to create directory {parent:?}")),
        None => Ok(()),
    }
}
