//! `mount`: shows an archive of directories as a read-only file system, in the background unless asked otherwise.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use backstop_client::mount::{self, ArchiveTree, MountedArchive};
use backstop_client::reader::{ReaderSession, RemoteIndexReader};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use super::catalog::stored_names;
use super::parameters::{ARCHIVE, GROUP_OR_SNAPSHOT, KEY, NAMESPACE, REPOSITORY};
use super::restore;
use super::server;
use crate::background::{self, Half, Readiness};
use crate::command::{Arguments, Command, Parameter};
use crate::{event_log, output};

/// `mount`
pub fn command() -> Command {
    let command = Command::new(
        "Mount an archive of directories, to look at and copy from.",
        run,
    )
    .argument(GROUP_OR_SNAPSHOT)
    .argument(ARCHIVE)
    .argument(Parameter::path("target", "The directory to mount at."));
    with_options(command)
}

/// The options of commands that show an archive in the background.
pub fn with_options(command: Command) -> Command {
    let key_file = KEY.iter().copied().filter(|key| key.name == "keyfile");
    let key_file: Vec<Parameter> = key_file.collect();
    command
        .options(REPOSITORY)
        .option(NAMESPACE)
        .options(&key_file)
        .option(
            Parameter::flag("verbose", "Stay in the foreground until it is unmounted.")
                .default("false"),
        )
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let archive = arguments.required("archive-name")?;
    if [".img", ".img.fidx"]
        .iter()
        .any(|end| archive.ends_with(end))
    {
        bail!("use the 'map' command to map drive images");
    }
    super::parameters::archive_name(archive)?;
    let target = directory(arguments.required_path("target")?)?;
    mount::check_device()?;
    let readiness = if arguments.flag("verbose") {
        event_log::to_standard_error();
        None
    } else {
        match background::split()? {
            Half::Caller(status) => return Ok(status),
            Half::Background(readiness) => Some(readiness),
        }
    };
    server::block_on(serve(arguments, archive, target, readiness))?;
    Ok(ExitCode::SUCCESS)
}

/// The directory to mount at, by a path that holds everywhere.
fn directory(target: &Path) -> anyhow::Result<PathBuf> {
    let cannot = || format!("unable to mount at '{}'", target.display());
    let path = target.canonicalize().with_context(cannot)?;
    if !path.is_dir() {
        bail!("{}: it is not a directory", cannot());
    }
    Ok(path)
}

/// Mounts the archive and stays until it is unmounted or a signal comes.
async fn serve(
    arguments: &Arguments,
    archive: &str,
    target: PathBuf,
    readiness: Option<Readiness>,
) -> anyhow::Result<()> {
    let (server, access) = restore::open_quietly(arguments).await?;
    let session = ReaderSession::open(&server.client, &access, 1).await?;
    let manifest = session.manifest().await?;
    let (name, payload) = stored_names(archive, &manifest)?;
    let runtime = Handle::current();
    let main = RemoteIndexReader::new(session.archive(&name, &manifest).await?, runtime.clone());
    let payload = match payload {
        None => None,
        Some(name) => {
            let source = session.archive(&name, &manifest).await?;
            Some(RemoteIndexReader::new(source, runtime))
        }
    };
    let mut interrupt = signal(SignalKind::interrupt()).context("unable to listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("unable to listen for SIGTERM")?;
    let source = format!("{}:{}/{archive}", access.datastore, access.snapshot);
    let mut mounted = tokio::task::spawn_blocking(move || -> anyhow::Result<MountedArchive> {
        Ok(match payload {
            None => mount::mount(ArchiveTree::unified(main)?, &target, &source)?,
            Some(payload) => mount::mount(ArchiveTree::split(main, payload)?, &target, &source)?,
        })
    })
    .await
    .context("mounting broke off")??;
    match readiness {
        Some(readiness) => {
            event_log::to_system_log();
            readiness.ready()?;
        }
        None => output::err(&format!(
            "Mounted at {}; ends with umount, Ctrl-C or SIGTERM.\n",
            mounted.target().display()
        )),
    }
    tokio::select! {
        ended = mounted.ended() => ended?,
        _ = interrupt.recv() => mounted.unmount()?,
        _ = terminate.recv() => mounted.unmount()?,
    }
    Ok(())
}
