//! `backstop server`: runs the server in this process until it is told to end.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use backstop_server::ServerOptions;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::command::{Arguments, Command, Parameter};
use crate::server_address::Published;
use crate::{installation, output};

/// How long requests and tasks may take to end after a signal.
const PATIENCE: Duration = Duration::from_secs(10);

/// `server`
pub fn command() -> Command {
    Command::new("Run the backup server until it is told to end (Ctrl-C or SIGTERM).", server)
        .option(
            Parameter::text(
                "root",
                "A directory of one's own for configuration, state and logs, instead of the system's directories.",
            )
            .length(1, 4096)
            .file(),
        )
        .option(
            Parameter::text("listen", "Address and port to listen on; without it port 8007 of all addresses.")
                .checked(|text| match text.parse::<SocketAddr>() {
                    Ok(_) => Ok(()),
                    Err(_) => Err("expected ADDRESS:PORT, such as 127.0.0.1:8007 or [::]:8007".to_string()),
                })
                .repeated(),
        )
}

fn server(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(root) = arguments.text("root") {
        installation::choose(
            std::path::absolute(root).context("unable to find the root directory")?,
        );
    }
    let level = std::env::var("PBS_LOG").unwrap_or_else(|_| "info".to_string());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info")))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // a closed standard error must not end the server
        .log_internal_errors(false)
        .try_init();
    let mut options = ServerOptions::new(installation::roots());
    let listen = arguments.list("listen");
    if !listen.is_empty() {
        options.listen = listen
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
            .context("unable to parse --listen")?;
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("unable to start the runtime")?
        .block_on(run(options))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(options: ServerOptions) -> anyhow::Result<()> {
    let roots = options.roots.clone();
    let password = roots.etc().join("initial-password");
    let first_start = !password.exists();
    let mut interrupt = signal(SignalKind::interrupt()).context("unable to listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("unable to listen for SIGTERM")?;
    let handle = backstop_server::run(options).await?;
    let published = Published::new(&roots, handle.addr());
    if let Err(error) = &published {
        output::err(&format!(
            "unable to write down the server's address - {error}\n"
        ));
    }
    for address in handle.addresses() {
        output::out(&format!("Backstop listens at https://{address}\n"));
    }
    output::out(&format!(
        "Certificate fingerprint (sha256): {}\n",
        handle.fingerprint()
    ));
    if first_start && password.exists() {
        output::out(&format!(
            "The password of admin@pbs is in {}\n",
            password.display()
        ));
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    drop(published);
    output::err("Ending: no new requests, waiting for tasks.\n");
    tokio::select! {
        () = handle.shutdown(PATIENCE) => {}
        _ = interrupt.recv() => output::err("Ending at once.\n"),
        _ = terminate.recv() => output::err("Ending at once.\n"),
    }
    Ok(())
}
