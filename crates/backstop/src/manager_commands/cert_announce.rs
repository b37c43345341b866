//! `backstop cert …`: a server that others pull from tells them that its certificate has changed.
//!
//! Runs beside a stock server, too: it needs the certificate's file and a configuration of its own, and sends nothing but the
//! fingerprint, to servers whose own certificate it knows. Where the configuration names a monitor, that is told how it went: a failure
//! in nothing but the exit code of a unit would be seen by nobody before the next pull fails.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use backstop_client::{ClientOptions, HttpClient};
use backstop_format::{Digest, Fingerprint};
use backstop_heartbeat::{Push, Signal};
use backstop_outgoing::tls::{Judge, Trust};
use backstop_push::receiver::Settings;
use backstop_push::settings_file::{Section, SettingsError, SettingsFile};
use backstop_push::{deliver, host_name};
use backstop_server::config::remote;
use backstop_types::AuthId;
use backstop_types::config_schema::value;
use serde_json::json;
use x509_parser::pem::Pem;

use super::configuration;
use crate::client_commands::server::block_on;
use crate::command::{self, Arguments, Command, Group, Parameter};
use crate::{installation, output};

/// Where the peers are listed, below the root.
const CONFIG: &str = "etc/backstop/cert-announce.conf";
const NAMES: [&str; 8] = [
    "server",
    "port",
    "fingerprint",
    "tls-server-name",
    "ca-file",
    "token",
    "secret",
    "remote",
];
/// Most characters of what a monitor is told.
const LONGEST_MESSAGE: usize = 500;

/// The commands below `backstop cert`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "announce",
            Command::new(
                "Tell the servers in cert-announce.conf, which pull from this one, which certificate it shows from now on.",
                announce,
            )
            .option(Parameter::path(
                "config",
                "The file that lists them, instead of /etc/backstop/cert-announce.conf.",
            ))
            .option(Parameter::path(
                "certificate",
                "The certificate (PEM), instead of /etc/proxmox-backup/proxy.pem.",
            )),
        )
        .command(
            "announcer",
            Command::new(
                "Let an API token announce the certificate of a remote here, and nothing else; without a token, let none.",
                announcer,
            )
            .argument(Parameter::of(
                "remote",
                "The name of the remote.",
                &value::CONFIG_ID,
            ))
            .optional_argument(Parameter::of(
                "tokenid",
                "The API token, which needs no permissions.",
                &value::AUTH_ID,
            )),
        )
}

fn announcer(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let token = arguments.given("tokenid").map(str::parse::<AuthId>);
    let name = arguments.required("remote")?;
    remote::set_announcer(&configuration(), name, token.transpose()?)?;
    Ok(ExitCode::SUCCESS)
}

/// A server that pulls from this one.
struct Peer {
    options: ClientOptions,
    /// What this server is called there.
    remote: String,
}

fn announce(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let roots = installation::roots();
    let path =
        |name, otherwise: PathBuf| arguments.given_path(name).map_or(otherwise, Path::to_owned);
    let file = SettingsFile::read(&path("config", roots.prefix().join(CONFIG)))?;
    let monitor = Settings::of(&file, &file.common)?;
    if monitor.is_none() && !file.common.is_empty() {
        return Err(SettingsError::NoUrl(file.path).into());
    }
    let untold = match fingerprint_of(&path("certificate", roots.etc().join("proxy.pem"))) {
        Ok(fingerprint) => tell_all(&file, fingerprint),
        Err(error) => vec![format!("{error:#}")],
    };
    for reason in &untold {
        output::err(&format!("{reason}\n"));
    }
    let mut has_failed = !untold.is_empty();
    if let Some(monitor) = monitor
        && let Err(reason) = deliver(&monitor, &push(&untold, file.sections.len()))
    {
        output::err(&format!("{}: {reason}\n", monitor.server()));
        has_failed = true;
    }
    Ok(if has_failed {
        command::failure()
    } else {
        ExitCode::SUCCESS
    })
}

/// What the monitor is told.
fn push(untold: &[String], servers: usize) -> Push {
    let host = host_name();
    let (signal, text) = match untold {
        [] => (
            Signal::Up,
            format!("the certificate is known to {servers} servers"),
        ),
        reasons => (Signal::Down, reasons.join("; ")),
    };
    let message = format!("{host}: {text}").replace('\n', " ");
    Push {
        signal,
        message: message.chars().take(LONGEST_MESSAGE).collect(),
        duration: None,
        run: None,
    }
}

/// Tells every server that is named; why some were not told. One that cannot be told keeps nobody from telling the others.
fn tell_all(file: &SettingsFile, fingerprint: Fingerprint) -> Vec<String> {
    if file.sections.is_empty() {
        return vec![format!("{:?} names no server", file.path)];
    }
    let mut untold = Vec::new();
    for section in &file.sections {
        let label = &section.name;
        match peer(file, section).and_then(|peer| tell(peer, fingerprint)) {
            Ok(state) => output::out(&format!("{label}: {state}\n")),
            Err(error) => untold.push(format!("{label}: not told - {error:#}")),
        }
    }
    untold
}

fn tell(peer: Peer, fingerprint: Fingerprint) -> anyhow::Result<String> {
    let path = format!("backstop/remote/{}/certificate", peer.remote);
    let answer = block_on(async {
        let client = HttpClient::connect(peer.options).await?;
        let parameters = json!({ "fingerprint": fingerprint.to_string() });
        anyhow::Ok(client.post(&path, parameters).await?)
    })?;
    Ok(answer["state"].as_str().unwrap_or("told").to_owned())
}

fn fingerprint_of(path: &Path) -> anyhow::Result<Fingerprint> {
    let text = std::fs::read(path).with_context(|| format!("unable to read {path:?}"))?;
    let first = Pem::iter_from_buffer(&text).next();
    let pem = first
        .ok_or_else(|| anyhow!("{path:?} holds no certificate"))?
        .with_context(|| format!("{path:?} holds no certificate"))?;
    Ok(Fingerprint(Digest::of(&pem.contents).0))
}

/// Errors hold no value.
fn peer(file: &SettingsFile, section: &Section) -> anyhow::Result<Peer> {
    for setting in &section.settings {
        if !NAMES.contains(&setting.name.as_str()) {
            return Err(file.unknown(setting, &NAMES).into());
        }
    }
    let get = |name: &str| {
        let mut settings = section.settings.iter().rev();
        let setting = settings.find(|setting| setting.name == name)?;
        Some(setting.value.as_str())
    };
    let needed = |name: &str| get(name).ok_or_else(|| anyhow!("{name} is missing"));
    let malformed = |name: &'static str| move || format!("{name} is malformed");
    let port = get("port").unwrap_or("8007").parse::<u16>();
    let port = port.with_context(malformed("port"))?;
    let token = needed("token")?
        .parse::<AuthId>()
        .with_context(malformed("token"))?;
    let server = needed("server")?;
    let mut options = ClientOptions::new(server.to_owned(), port, token);
    options.secret = Some(needed("secret")?.to_owned());
    let pin = get("fingerprint").map(str::parse::<Fingerprint>);
    options.fingerprint = pin.transpose().with_context(malformed("fingerprint"))?;
    options.server_name = get("tls-server-name").map(str::to_owned);
    if let Some(authorities) = get("ca-file") {
        let name = options.server_name.as_deref().unwrap_or(server);
        let judge = Judge::new(name, Trust::Path(Path::new(authorities)))?;
        options.judge = Some(Arc::new(judge));
    }
    let remote = needed("remote")?.to_owned();
    let is_name = remote
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !is_name {
        bail!("remote is malformed");
    }
    Ok(Peer { options, remote })
}
