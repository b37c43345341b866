//! `backstop cert …`: a server that others pull from tells them that its certificate has changed.
//!
//! Runs beside a stock server, too: it needs the certificate's file and a configuration of its own, and sends nothing but the
//! fingerprint, to servers whose own certificate it knows.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use backstop_client::{ClientOptions, HttpClient};
use backstop_format::{Digest, Fingerprint};
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
const NAMES: [&str; 6] = ["server", "port", "fingerprint", "token", "secret", "remote"];

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
    label: String,
    options: ClientOptions,
    /// What this server is called there.
    remote: String,
}

fn announce(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let roots = installation::roots();
    let path =
        |name, otherwise: PathBuf| arguments.given_path(name).map_or(otherwise, Path::to_owned);
    let config = path("config", roots.prefix().join(CONFIG));
    let certificate = path("certificate", roots.etc().join("proxy.pem"));
    let fingerprint = fingerprint_of(&certificate)?;
    let peers = peers(&config)?;
    let mut has_failed = false;
    for peer in peers {
        let path = format!("backstop/remote/{}/certificate", peer.remote);
        let told = block_on(async {
            let client = HttpClient::connect(peer.options).await?;
            let parameters = json!({ "fingerprint": fingerprint.to_string() });
            anyhow::Ok(client.post(&path, parameters).await?)
        });
        match told {
            Ok(answer) => output::out(&format!(
                "{}: {}\n",
                peer.label,
                answer["state"].as_str().unwrap_or("told")
            )),
            Err(error) => {
                output::err(&format!("{}: not told - {error:#}\n", peer.label));
                has_failed = true;
            }
        }
    }
    Ok(if has_failed {
        command::failure()
    } else {
        ExitCode::SUCCESS
    })
}

fn fingerprint_of(path: &Path) -> anyhow::Result<Fingerprint> {
    let text = std::fs::read(path).with_context(|| format!("unable to read {path:?}"))?;
    let first = Pem::iter_from_buffer(&text).next();
    let pem = first
        .ok_or_else(|| anyhow!("{path:?} holds no certificate"))?
        .with_context(|| format!("{path:?} holds no certificate"))?;
    Ok(Fingerprint(Digest::of(&pem.contents).0))
}

/// Sections `[LABEL]` with lines `NAME: VALUE`; errors hold no value.
fn peers(path: &Path) -> anyhow::Result<Vec<Peer>> {
    let unreadable = || format!("unable to read {path:?}");
    let mode = std::fs::metadata(path).with_context(unreadable)?.mode();
    if mode & 0o007 != 0 {
        bail!("{path:?} can be read by others and holds a secret; run 'chmod 600' on it");
    }
    let text = std::fs::read_to_string(path).with_context(unreadable)?;
    let mut sections: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(label) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            sections.push((label.trim().to_owned(), BTreeMap::new()));
            continue;
        }
        let pair = line
            .split_once(':')
            .map(|(name, value)| (name.trim(), value.trim()));
        match (pair, sections.last_mut()) {
            (Some((name, value)), Some((_, section))) if NAMES.contains(&name) => {
                section.insert(name.to_owned(), value.to_owned());
            }
            _ => bail!(
                "{path:?}, line {}: expected [LABEL], and below it NAME: VALUE with one of {}",
                number + 1,
                NAMES.join(", ")
            ),
        }
    }
    if sections.is_empty() {
        bail!("{path:?} names no server");
    }
    sections
        .into_iter()
        .map(|(label, section)| {
            peer(&label, &section).with_context(|| format!("{path:?}, [{label}]"))
        })
        .collect()
}

fn peer(label: &str, section: &BTreeMap<String, String>) -> anyhow::Result<Peer> {
    let get = |name: &str| section.get(name).map(String::as_str);
    let needed = |name: &str| get(name).ok_or_else(|| anyhow!("{name} is missing"));
    let malformed = |name: &'static str| move || format!("{name} is malformed");
    let port = get("port").unwrap_or("8007").parse::<u16>();
    let port = port.with_context(malformed("port"))?;
    let token = needed("token")?
        .parse::<AuthId>()
        .with_context(malformed("token"))?;
    let mut options = ClientOptions::new(needed("server")?.to_owned(), port, token);
    options.secret = Some(needed("secret")?.to_owned());
    let pin = get("fingerprint").map(str::parse::<Fingerprint>);
    options.fingerprint = pin.transpose().with_context(malformed("fingerprint"))?;
    let remote = needed("remote")?.to_owned();
    let is_name = remote
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !is_name {
        bail!("remote is malformed");
    }
    Ok(Peer {
        label: label.to_owned(),
        options,
        remote,
    })
}
