//! The connection of a command to the server: which repository, as whom, with which secrets.

use std::future::Future;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use backstop_client::api::{DatastoreApi, TaskApi};
use backstop_client::connection::proxy::ProxyAddress;
use backstop_client::fingerprint_store::FingerprintStore;
use backstop_client::ticket_cache::TicketCache;
use backstop_client::{ClientError, ClientOptions, HttpClient, RateLimit};
use backstop_types::Repository;
use serde_json::{Map, Value, json};

use crate::command::Arguments;
use crate::output::{Format, size};
use crate::task_follow::{self, OnInterrupt};
use crate::{output, secret, terminal, user_files};

const COMPONENTS: [(&str, &str); 4] = [
    ("server", "PBS_SERVER"),
    ("port", "PBS_PORT"),
    ("datastore", "PBS_DATASTORE"),
    ("auth-id", "PBS_AUTH_ID"),
];

/// Runs a command's asynchronous part to its end.
///
/// # Errors
/// What the future returns, or that no runtime can be started.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("unable to start the runtime")?
        .block_on(future)
}

/// The server that a command talks to.
pub struct Server {
    /// The repository.
    pub repository: Repository,
    /// The connection.
    pub client: HttpClient,
    /// Calls on the repository's datastore.
    pub api: DatastoreApi,
    /// Calls on the server's tasks.
    pub tasks: TaskApi,
}

impl Server {
    /// Connects to the repository of the command line or the environment.
    ///
    /// # Errors
    /// If no repository is known, or the server cannot be reached or refuses.
    pub async fn connect(arguments: &Arguments) -> anyhow::Result<Self> {
        let repository = repository(arguments)?;
        let client = HttpClient::connect(options(&repository, arguments)?).await?;
        remember(&repository);
        Ok(Self {
            api: DatastoreApi::new(client.clone(), repository.store().as_str()),
            tasks: TaskApi::new(client.clone()),
            repository,
            client,
        })
    }
}

impl Server {
    /// Follows the task that `upid` names until it ends; for JSON, prints its id instead.
    ///
    /// # Errors
    /// If the task fails.
    pub async fn follow(&self, upid: &Value, arguments: &Arguments) -> anyhow::Result<()> {
        if let Some(text) = Format::of(arguments)?.json(upid) {
            output::out(&text);
            return Ok(());
        }
        let upid = upid.as_str().context("the server did not name the task")?;
        task_follow::follow(&self.tasks, upid, OnInterrupt::Stop).await
    }
}

/// The namespace of the command line, else of `PBS_NAMESPACE`.
///
/// # Errors
/// If it is no namespace.
pub fn namespace(arguments: &Arguments) -> anyhow::Result<backstop_types::Namespace> {
    let text = match arguments.given("ns") {
        Some(text) => text.to_string(),
        None => std::env::var("PBS_NAMESPACE").unwrap_or_default(),
    };
    text.parse()
        .with_context(|| format!("unable to parse namespace '{text}'"))
}

/// The repository of the command line, else of the environment.
///
/// # Errors
/// If none is named, or both forms are mixed.
pub fn repository(arguments: &Arguments) -> anyhow::Result<Repository> {
    resolve(
        |name| arguments.given(name).map(str::to_string),
        |name| std::env::var(name).ok(),
        || Ok(secret::REPOSITORY.find()?.map(|text| text.to_string())),
    )
}

fn parse_repository(text: &str) -> anyhow::Result<Repository> {
    text.parse()
        .map_err(|_| anyhow::anyhow!("unable to parse repository url '{text}'"))
}

fn resolve(
    option: impl Fn(&str) -> Option<String>,
    variable: impl Fn(&str) -> Option<String>,
    whole: impl Fn() -> anyhow::Result<Option<String>>,
) -> anyhow::Result<Repository> {
    let components = COMPONENTS.iter().any(|(name, _)| option(name).is_some());
    let variables = COMPONENTS.iter().any(|(_, name)| variable(name).is_some());
    if let Some(text) = option("repository") {
        if components {
            bail!("--repository and --server/--port/--datastore/--auth-id are mutually exclusive");
        }
        return parse_repository(&text);
    }
    if !components {
        if let Some(text) = whole()? {
            return parse_repository(&text);
        }
        if !variables {
            bail!("unable to get (default) repository");
        }
    }
    let part = |name: &str| {
        let (_, from) = COMPONENTS.iter().find(|(option, _)| *option == name)?;
        option(name).or_else(|| variable(from))
    };
    let Some(store) = part("datastore") else {
        bail!("--datastore (or PBS_DATASTORE) is needed beside --server, --port and --auth-id");
    };
    let port = part("port")
        .map(|port| {
            port.parse::<u16>()
                .ok()
                .filter(|port| *port > 0)
                .with_context(|| format!("'{port}' is no port, expected 1 to 65535"))
        })
        .transpose()?;
    let auth_id = part("auth-id").map(|text| text.parse()).transpose()?;
    Ok(Repository::new(
        auth_id,
        part("server").as_deref(),
        port,
        store.parse()?,
    )?)
}

/// What the connection needs to know.
///
/// # Errors
/// If a secret or an address cannot be read.
pub fn options(repository: &Repository, arguments: &Arguments) -> anyhow::Result<ClientOptions> {
    let mut options =
        ClientOptions::new(repository.host(), repository.port(), repository.auth_id());
    options.secret = secret::PASSWORD.find()?.map(|secret| secret.to_string());
    options.fingerprint = secret::FINGERPRINT
        .find()?
        .map(|text| text.parse())
        .transpose()
        .context("PBS_FINGERPRINT is no SHA-256 fingerprint")?;
    options.fingerprint_store = user_files::config("fingerprints").map(FingerprintStore::new);
    options.ticket_cache = user_files::runtime("tickets").map(TicketCache::new);
    if terminal::can_ask() {
        options.password_prompt = Some(Arc::new(|auth_id| {
            terminal::password(&format!("Password for \"{auth_id}\": "))
                .map(|password| password.to_string())
                .map_err(std::io::Error::other)
        }));
        options.second_factor_prompt = Some(Arc::new(|request| {
            if request.was_refused {
                output::err("That was not accepted, try again.\n");
            }
            terminal::password(&request.question())
                .map(|answer| answer.to_string())
                .map_err(std::io::Error::other)
        }));
        options.confirm_certificate = Some(Arc::new(|certificate| {
            if let Some(expected) = &certificate.expected {
                output::err(&format!(
                    "WARNING: certificate fingerprint does not match expected fingerprint!\nexpected:    {expected}\n"
                ));
            }
            output::err(&format!(
                "fingerprint: {}\n",
                certificate.presented.fingerprint
            ));
            terminal::ask_until_answered("Are you sure you want to continue connecting? (y/n): ")
        }));
    }
    options.rate_limit = RateLimit {
        rate: arguments.given("rate").map(size::parse_bytes).transpose()?,
        burst: arguments
            .given("burst")
            .map(size::parse_bytes)
            .transpose()?,
    };
    if let Some(proxy) = std::env::var("ALL_PROXY")
        .ok()
        .filter(|proxy| !proxy.is_empty())
    {
        let proxy: ProxyAddress = proxy.parse().map_err(ClientError::from)?;
        output::err(&format!("Using proxy connection: {}\n", proxy));
        options.proxy = Some(proxy);
    }
    Ok(options)
}

/// Counts the use of a repository in the list that completion reads. Failing is no harm.
fn remember(repository: &Repository) {
    const KEPT: usize = 10;
    let Some(path) = user_files::cache("repo-list") else {
        return;
    };
    let mut counts: Map<String, Value> = std::fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let key = repository.to_string();
    let count = counts.get(&key).and_then(Value::as_u64).unwrap_or(0);
    counts.insert(key, json!(count.saturating_add(1)));
    let mut entries: Vec<(String, Value)> = counts.into_iter().collect();
    entries.sort_by_key(|(_, count)| std::cmp::Reverse(count.as_u64().unwrap_or(0)));
    entries.truncate(KEPT);
    let counts: Map<String, Value> = entries.into_iter().collect();
    let Some(directory) = path.parent() else {
        return;
    };
    let _ = std::fs::create_dir_all(directory)
        .and_then(|()| tempfile::NamedTempFile::new_in(directory))
        .and_then(|mut file| {
            std::io::Write::write_all(&mut file, Value::Object(counts).to_string().as_bytes())?;
            file.persist(&path)?;
            Ok(())
        });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn get<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_string())
        }
    }

    fn resolved(options: &[(&str, &str)], variables: &[(&str, &str)]) -> String {
        let whole = || Ok(get(variables)("PBS_REPOSITORY"));
        match resolve(get(options), get(variables), whole) {
            Ok(repository) => format!(
                "{}@{}:{}:{}",
                repository.auth_id(),
                repository.host(),
                repository.port(),
                repository.store()
            ),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn the_repository_comes_whole_or_in_parts_but_not_both() {
        let environment = [
            ("PBS_REPOSITORY", "env"),
            ("PBS_SERVER", "h"),
            ("PBS_DATASTORE", "part"),
        ];
        assert_eq!(
            resolved(&[("repository", "u@pbs@x:1:abc")], &environment),
            "u@pbs@x:1:abc"
        );
        assert!(
            resolved(&[("repository", "abc"), ("port", "1")], &[]).contains("mutually exclusive")
        );
        assert_eq!(resolved(&[], &environment), "root@pam@localhost:8007:env");
        assert_eq!(resolved(&[], &environment[1..]), "root@pam@h:8007:part");
        assert_eq!(
            resolved(
                &[("datastore", "other"), ("auth-id", "u@pbs")],
                &environment
            ),
            "u@pbs@h:8007:other"
        );
        assert_eq!(
            resolved(&[], &[]),
            "error: unable to get (default) repository"
        );
        assert_eq!(
            resolved(&[], &[("PBS_REPOSITORY", "::::")]),
            "error: unable to parse repository url '::::'"
        );
        assert!(resolved(&[("server", "x")], &[]).contains("--datastore"));
        assert!(resolved(&[("datastore", "abc")], &[("PBS_PORT", "x")]).contains("no port"));
    }
}
