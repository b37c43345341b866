//! `backstop`: the commands that are no other tool's, and the way to the tools.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::calendar_command;
use crate::command::{Arguments, Command, Group, Parameter, Program};
use crate::manager_commands::{
    audit, cert_announce, health, heartbeat, metrics, notification, retention_lock, sessions, token,
};
use crate::output;
use crate::prune_simulator_command;
use crate::pve_commands;
use crate::server_command;

/// The names under which the executable is another tool.
pub const TOOLS: [&str; 3] = ["proxmox-backup-client", "proxmox-backup-manager", "pxar"];

/// What `backstop` alone and `backstop help` print.
pub const OVERVIEW: &str = "\
Usage: backstop COMMAND

  server           run the backup server
  demo             show everything once, in a throw-away directory
  client           back up and restore (the commands of proxmox-backup-client)
  manager          set up datastores, users and permissions (the commands of proxmox-backup-manager)
  pxar             work with archives of directories (the commands of pxar)
  health           show what is wrong, and what to do
  cert             tell servers that pull from this one that its certificate has changed
  heartbeat        tell Uptime Kuma or Healthchecks of each finished job and backup
  calendar         explain a calendar event, as schedules are written
  notification     ready-made web hooks for notifications, and what has not arrived
  prune-simulator  show what retention rules would keep
  metrics          who may scrape metrics for Prometheus
  pve-hook         tell a push receiver how each backup job of a Proxmox VE node went (called by vzdump)
  pve-guard        keep that hook in the configuration of all backup jobs
  retention-lock   keep young snapshots from being removed by anybody
  token            API tokens that can only add backups
  sessions         how long people stay logged in
  install-links    make links, so that this program is found under the names of these tools
  version          show the version

`backstop COMMAND help` explains each. BACKSTOP_ROOT=DIR, or --root DIR as the first words after
server, client or manager, uses DIR instead of the system's directories.
";

/// The program itself.
pub fn program(name: String) -> Program {
    Program {
        name,
        root: Group::new()
            .command("calendar", calendar_command::command())
            .group("notification", notification::own_commands())
            .group("cert", cert_announce::commands())
            .command("prune-simulator", prune_simulator_command::command())
            .group("metrics", metrics::commands())
            .group("health", health::commands())
            .group("heartbeat", heartbeat::commands())
            .command("pve-guard", pve_commands::guard())
            .group("retention-lock", retention_lock::commands())
            .command("server", server_command::command())
            .group("sessions", sessions::commands())
            .group("token", token::commands())
            .command(
                "install-links",
                Command::new(
                    "Make links to this program under the names of the stock tools.",
                    install_links,
                )
                .argument(
                    Parameter::text(
                        "directory",
                        "Where to make the links, such as /usr/local/bin.",
                    )
                    .file(),
                ),
            )
            .command("version", Command::new("Show the version.", version)),
        aliases: &[],
        observer: Some(audit::note),
    }
}

fn version(_: &Arguments) -> anyhow::Result<ExitCode> {
    output::out(&format!("backstop {}\n", env!("CARGO_PKG_VERSION")));
    Ok(ExitCode::SUCCESS)
}

fn install_links(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let directory = Path::new(arguments.required("directory")?);
    let program = std::env::current_exe().context("unable to find this program")?;
    std::fs::create_dir_all(directory)
        .with_context(|| format!("unable to create {directory:?}"))?;
    for tool in TOOLS {
        make_link(&program, &directory.join(tool))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a link; one that already leads to the program is left, anything else is an error.
fn make_link(program: &Path, link: &Path) -> anyhow::Result<()> {
    match symlink(program, link) {
        Ok(()) => {
            output::out(&format!("{} -> {}\n", link.display(), program.display()));
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            if std::fs::read_link(link).is_ok_and(|target| target == program) {
                return Ok(());
            }
            bail!("{link:?} exists already and is something else; remove it first");
        }
        Err(error) => Err(error).with_context(|| format!("unable to make link {link:?}")),
    }
}
