//! `backstop server`: runs the server in this process until it is told to end.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use backstop_server::http::real_ip::RealIp;
use backstop_server::privileged_helper::PrivilegedHelper;
use backstop_server::service_account::ServiceAccount;
use backstop_server::{Inherited, ServerOptions, listener};
use tokio::signal::unix::{SignalKind, signal};

use crate::command::{self, Arguments, Command, Parameter};
use crate::server_address::Published;
use crate::{installation, output, server_log};

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
        .option(Parameter::choice(
            "log-format",
            "How the log is written: lines of text or JSON on standard error, or fields in systemd's journal; without it in the \
             journal where standard error ends there, and text elsewhere.",
            server_log::FORMATS,
        ))
}

fn server(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(root) = arguments.text("root") {
        installation::choose(
            std::path::absolute(root).context("unable to find the root directory")?,
        );
    }
    let level = std::env::var("PBS_LOG").unwrap_or_else(|_| "info".to_string());
    let format = server_log::Format::of(arguments.text("log-format"));
    let log = server_log::start(format, &level)?;
    match serve(arguments, &log) {
        // Who asked for another form than that for people reads it by machine.
        Err(error) if format != server_log::Format::Text => {
            tracing::error!("the server ends: {error:#}");
            Ok(command::failure())
        }
        ended => ended,
    }
}

/// Runs it, with the log that has been started.
fn serve(arguments: &Arguments, log: &server_log::ServerLog) -> anyhow::Result<ExitCode> {
    let mut options = ServerOptions::new(installation::roots());
    let listen = arguments.list("listen");
    if !listen.is_empty() {
        options.listen = listen
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
            .context("unable to parse --listen")?;
    }
    options.real_ip = real_ip();
    let inherited = give_up_root(&options)?;
    log.tell_of_floods()
        .context("unable to start the thread of the log")?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("unable to start the runtime")?
        .block_on(run(options, inherited))?;
    Ok(ExitCode::SUCCESS)
}

/// How reverse proxies tell where requests come from, as the environment says.
fn real_ip() -> Option<RealIp> {
    let real_ip = RealIp::from_environment().unwrap_or_else(|error| {
        tracing::error!("{error}");
        None
    })?;
    if real_ip.trusts_this_host_alone() {
        tracing::warn!(
            "PROXY_REAL_IP_ALLOW_FROM does not name the proxies, so that the header in PROXY_REAL_IP_HEADER counts only for \
             connections from this host"
        );
    }
    Some(real_ip)
}

/// Started as root, the server leaves a helper behind that is root still, and becomes the owner of its configuration. There
/// are no threads yet.
fn give_up_root(options: &ServerOptions) -> anyhow::Result<Inherited> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Inherited::default());
    }
    // First, as another server that still runs would be in the way, and nothing has been touched yet.
    let sockets = options
        .listen
        .iter()
        .map(|address| listener::bind(*address))
        .collect::<Result<_, _>>()?;
    let account = ServiceAccount::of_installation(&options.roots)?;
    account.prepare(&options.roots)?;
    let (helper, mut process) = PrivilegedHelper::start(account.uid, account.gid)
        .context("unable to start the helper that does what only root may")?;
    if account.is_root() {
        let etc = options.roots.etc();
        tracing::info!(
            "running as root, because {} belongs to root; give it to an unprivileged user to run as that one",
            etc.display()
        );
    } else {
        account.become_it()?;
        tracing::info!("running as {account}");
    }
    // Its end is noticed, so that nobody wonders why log-ins of system users fail.
    std::thread::Builder::new()
        .name("helper-watch".into())
        .spawn(move || match process.wait() {
            Ok(status) => tracing::error!(%status, "the privileged helper has ended; system users cannot log in until the server is restarted"),
            Err(err) => tracing::error!(%err, "unable to watch the privileged helper"),
        })?;
    Ok(Inherited {
        helper: Some(helper),
        sockets,
    })
}

async fn run(options: ServerOptions, inherited: Inherited) -> anyhow::Result<()> {
    let roots = options.roots.clone();
    let password = roots.etc().join("initial-password");
    let first_start = !password.exists();
    let mut interrupt = signal(SignalKind::interrupt()).context("unable to listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("unable to listen for SIGTERM")?;
    let handle = backstop_server::run_inheriting(options, inherited).await?;
    let published = Published::new(&roots, handle.addr());
    if let Err(error) = &published {
        tracing::error!("unable to write down the server's address - {error}");
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
    tracing::info!("ending: no new requests, waiting for tasks");
    tokio::select! {
        () = handle.shutdown(PATIENCE) => {}
        _ = interrupt.recv() => tracing::warn!("ending at once"),
        _ = terminate.recv() => tracing::warn!("ending at once"),
    }
    Ok(())
}
