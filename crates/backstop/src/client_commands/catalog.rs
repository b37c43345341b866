//! `catalog …`: looking into the archives of a snapshot without restoring them.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use backstop_client::reader::{ArchiveStream, ReaderSession, RemoteIndexReader};
use backstop_format::catalog::{CatalogKind, CatalogReader};
use backstop_format::manifest::Manifest;
use backstop_format::pxar::accessor::Accessor;
use backstop_format::pxar::decoder::{Decoder, Event};
use backstop_format::pxar::entry::EntryKind;
use backstop_types::ArchiveName;
use tokio::runtime::Handle;

use super::parameters::{ARCHIVE, GROUP_OR_SNAPSHOT, KEY, NAMESPACE, REPOSITORY, SNAPSHOT};
use super::restore;
use super::server;
use super::shell::Shell;
use super::snapshot::snapshot_argument;
use crate::archive_listing::{Lister, kind_letter, quoted};
use crate::command::{Arguments, Command, Group};
use crate::output::{self, time};

/// The commands below `catalog`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "dump",
            Command::new("List every file of a snapshot.", dump)
                .argument(SNAPSHOT)
                .options(REPOSITORY)
                .option(NAMESPACE)
                .options(KEY),
        )
        .command(
            "shell",
            Command::new("Look around in an archive, and restore parts of it.", shell)
                .argument(GROUP_OR_SNAPSHOT)
                .argument(ARCHIVE)
                .options(REPOSITORY)
                .option(NAMESPACE)
                .options(KEY),
        )
}

fn dump(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    snapshot_argument(arguments)?;
    server::block_on(async {
        let (server, access) = restore::open_quietly(arguments).await?;
        let session = ReaderSession::open(&server.client, &access, 1).await?;
        let manifest = session.manifest().await?;
        let runtime = Handle::current();
        if manifest
            .files
            .iter()
            .any(|file| file.filename == ArchiveName::CATALOG)
        {
            let source = session.archive(ArchiveName::CATALOG, &manifest).await?;
            let reader = RemoteIndexReader::new(source, runtime);
            return tokio::task::spawn_blocking(move || dump_catalog(reader)).await?;
        }
        for file in manifest
            .files
            .iter()
            .filter(|file| file.filename.ends_with(".mpxar.didx"))
        {
            let source = session.archive(&file.filename, &manifest).await?;
            let stream = ArchiveStream::start(source, &runtime);
            let name = file.filename.clone();
            tokio::task::spawn_blocking(move || dump_archive(&name, stream)).await??;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// One line of a listing.
fn line(letter: char, path: &[u8], file: Option<(u64, i64)>) -> String {
    let path = quoted(path);
    match file {
        Some((size, mtime)) => format!("{letter} {path} {size} {}\n", time::catalog(mtime)),
        None => format!("{letter} {path}\n"),
    }
}

fn dump_catalog(reader: RemoteIndexReader) -> anyhow::Result<()> {
    let catalog = CatalogReader::new(reader)?;
    catalog.walk(catalog.root(), |path, entry| {
        let path = [b"./", path].concat();
        let file = match entry.kind {
            CatalogKind::File { size, mtime } => Some((size, mtime)),
            _ => None,
        };
        output::out(&line(char::from(entry.kind.letter()), &path, file));
        Ok::<_, anyhow::Error>(true)
    })
}

/// Lists what the metadata of a split archive tells.
fn dump_archive(name: &str, stream: impl std::io::Read) -> anyhow::Result<()> {
    let mut decoder = Decoder::new(stream);
    let mut lister = Lister::new(false);
    while let Some(event) = decoder.next_event()? {
        let entry = match event {
            Event::Entry(entry) => entry,
            Event::Leave => {
                lister.leave();
                continue;
            }
        };
        let below = lister.path(&entry);
        if entry.name.is_empty() {
            continue;
        }
        let path = [b"./", name.as_bytes(), &below].concat();
        let file = match entry.kind {
            EntryKind::File { size, .. } => Some((size, entry.metadata.stat.mtime.seconds)),
            _ => None,
        };
        output::out(&line(kind_letter(&entry), &path, file));
    }
    Ok(())
}

/// The stored names that a user's name of a directory archive stands for: one, or metadata and contents.
///
/// # Errors
/// If it is no such archive, or the snapshot does not have it.
pub fn stored_names(
    archive: &str,
    manifest: &Manifest,
) -> anyhow::Result<(String, Option<String>)> {
    let name = ArchiveName::from_user_name(archive)?;
    let stem = ["pxar.didx", "mpxar.didx", "ppxar.didx"]
        .iter()
        .filter_map(|suffix| name.as_str().strip_suffix(suffix)?.strip_suffix('.'))
        .next();
    let Some(stem) = stem else {
        bail!("Can only mount/map pxar archives and drive images.");
    };
    let listed = |name: &str| manifest.files.iter().any(|file| file.filename == name);
    let metadata = format!("{stem}.mpxar.didx");
    if listed(name.as_str()) && name.as_str() == format!("{stem}.pxar.didx") {
        return Ok((name.as_str().to_string(), None));
    }
    if listed(&metadata) {
        return Ok((metadata, Some(format!("{stem}.ppxar.didx"))));
    }
    bail!("archive not found in manifest")
}

fn shell(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let archive = arguments.required("archive-name")?;
    server::block_on(async {
        let (server, access) = restore::open_quietly(arguments).await?;
        let session = ReaderSession::open(&server.client, &access, 1).await?;
        let manifest = session.manifest().await?;
        let (name, payload) = stored_names(archive, &manifest)?;
        let runtime = Handle::current();
        let reader =
            RemoteIndexReader::new(session.archive(&name, &manifest).await?, runtime.clone());
        let payload = match payload {
            None => None,
            Some(name) => Some(RemoteIndexReader::new(
                session.archive(&name, &manifest).await?,
                runtime,
            )),
        };
        output::err("Starting interactive shell\n");
        tokio::task::spawn_blocking(move || match payload {
            None => Shell::new(Accessor::new(reader)?).run(),
            Some(payload) => Shell::new(Accessor::split(reader, payload)?).run(),
        })
        .await
        .context("the shell broke off")?
    })?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn lines_of_files_have_size_and_time() {
        assert_eq!(
            line('d', b"./root.pxar.didx/a", None),
            "d \"./root.pxar.didx/a\"\n"
        );
        let line = line('f', b"./x/\xff\n", Some((5, 0)));
        assert!(
            line.starts_with("f \"./x/\\xFF\\n\" 5 1970-01-01T"),
            "{line}"
        );
    }
}
