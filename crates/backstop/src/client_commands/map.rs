//! `map` and `unmap`: an image of a snapshot as a read-only block device, in the background unless asked otherwise.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use backstop_client::mount::{self, MappedImage, Mappings};
use backstop_client::reader::{ReaderSession, RemoteIndexReader};
use backstop_types::ArchiveName;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use super::parameters::{ARCHIVE, GROUP_OR_SNAPSHOT};
use super::{mount as mount_command, restore, server};
use crate::background::{self, Half, Readiness};
use crate::command::{Arguments, Command, Parameter};
use crate::{event_log, installation, output};

/// `map`
pub fn map_command() -> Command {
    let command = Command::new(
        "Show an image as a block device, read-only, with its partitions.",
        map,
    )
    .argument(GROUP_OR_SNAPSHOT)
    .argument(ARCHIVE);
    mount_command::with_options(command)
}

/// `unmap`
pub fn unmap_command() -> Command {
    Command::new("Take a mapped image away, or list what is mapped.", unmap).optional_argument(
        Parameter::text(
            "name",
            "The number or path of the device, or what is mapped, or how that ends.",
        ),
    )
}

fn mappings() -> Mappings {
    Mappings::in_directory(installation::roots().prefix().join("run/pbs-loopdev"))
}

fn map(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let archive = arguments.required("archive-name")?;
    if archive.ends_with(".pxar") || archive.ends_with(".pxar.didx") {
        bail!("use the 'mount' command to mount pxar archives");
    }
    let name = ArchiveName::from_user_name(archive)?;
    if !name.as_str().ends_with(".img.fidx") {
        bail!("Can only mount/map pxar archives and drive images.");
    }
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
    server::block_on(serve(arguments, &name, readiness))?;
    Ok(ExitCode::SUCCESS)
}

/// Maps the image and stays until it is unmapped or a signal comes.
async fn serve(
    arguments: &Arguments,
    name: &ArchiveName,
    readiness: Option<Readiness>,
) -> anyhow::Result<()> {
    let (server, access) = restore::open_quietly(arguments).await?;
    let session = ReaderSession::open(&server.client, &access, 1).await?;
    let manifest = session.manifest().await?;
    let source = session.archive(name.as_str(), &manifest).await?;
    let image = RemoteIndexReader::new(source, Handle::current());
    let what = format!(
        "{}:{}/{}",
        server.repository,
        arguments.required("snapshot")?,
        name.as_str().trim_end_matches(".fidx")
    );
    let mut interrupt = signal(SignalKind::interrupt()).context("unable to listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("unable to listen for SIGTERM")?;
    let under = what.clone();
    let mut mapped: MappedImage =
        tokio::task::spawn_blocking(move || mappings().map(image, &under))
            .await
            .context("mapping broke off")??;
    if let Some(device) = mapped.device() {
        output::err(&format!(
            "Image '{what}' mapped on {}\n",
            device.path().display()
        ));
    }
    if let Some(readiness) = readiness {
        event_log::to_system_log();
        readiness.ready()?;
    }
    let ended = tokio::select! {
        ended = mapped.ended() => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    // The kernel may still read while the device is taken away, so this must not hold up who answers.
    tokio::task::spawn_blocking(move || drop(mapped))
        .await
        .context("unmapping broke off")?;
    ended?;
    output::err("Image unmapped\n");
    Ok(())
}

fn unmap(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mappings = mappings();
    if let Some(name) = arguments.text("name") {
        mappings.unmap(name)?;
        return Ok(ExitCode::SUCCESS);
    }
    for name in mappings.clean()? {
        output::err(&format!(
            "Cleaned up dangling mapping '{name}': its process is gone\n"
        ));
    }
    let all = mappings.list()?;
    for mapping in &all {
        let device = match mapping.device {
            Some(device) => device.path().display().to_string(),
            None => "(unmapped)".to_string(),
        };
        output::err(&format!("{device}:\t{}\n", mapping.name));
    }
    if all.is_empty() {
        output::err("Nothing mapped.\n");
    }
    Ok(ExitCode::SUCCESS)
}
