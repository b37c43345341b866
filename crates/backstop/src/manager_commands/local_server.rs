//! The server of this installation, spoken to as `root@pam` with a ticket that is signed with its own key.
//! Whoever can read that key may do everything anyway.

use std::future::Future;
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use backstop_client::api::TaskApi;
use backstop_client::{ClientOptions, HttpClient};
use backstop_server::access::AccessControl;
use backstop_types::AuthId;
use serde_json::Value;

use super::cert;
use crate::client_commands::server::block_on;
use crate::command::Arguments;
use crate::output::{self, Format};
use crate::task_follow::{self, OnInterrupt};
use crate::{installation, server_address};

/// How long the server may take to accept a connection before it counts as not running.
const PATIENCE: Duration = Duration::from_secs(3);

/// A server that answers.
pub struct LocalServer {
    options: ClientOptions,
}

impl LocalServer {
    /// The installation's server, if it runs.
    ///
    /// # Errors
    /// If it runs, but its certificate or key cannot be read.
    pub fn find() -> anyhow::Result<Option<Self>> {
        let roots = installation::roots();
        let Some(address) = server_address::find(&roots).filter(answers) else {
            return Ok(None);
        };
        let mut options =
            ClientOptions::new(address.ip().to_string(), address.port(), AuthId::root());
        options.fingerprint = Some(cert::fingerprint(&cert::leaf(&roots)?));
        options.trust_system_authorities = false;
        options.secret = Some(root_ticket()?);
        Ok(Some(Self { options }))
    }

    /// The installation's server.
    ///
    /// # Errors
    /// If it does not run.
    pub fn needed() -> anyhow::Result<Self> {
        match Self::find()? {
            Some(server) => Ok(server),
            None => bail!("this command needs the server of this installation, which does not run"),
        }
    }

    /// Asks something.
    ///
    /// # Errors
    /// What the server answers.
    pub fn ask<T, F: Future<Output = anyhow::Result<T>>>(
        self,
        question: impl FnOnce(HttpClient) -> F,
    ) -> anyhow::Result<T> {
        block_on(async { question(HttpClient::connect(self.options).await?).await })
    }

    /// Starts a task and follows it to its end; for JSON, prints its id instead.
    ///
    /// # Errors
    /// What the server answers, or that the task failed.
    pub fn run_task<F: Future<Output = anyhow::Result<Value>>>(
        self,
        arguments: &Arguments,
        start: impl FnOnce(HttpClient) -> F,
    ) -> anyhow::Result<ExitCode> {
        let format = Format::of(arguments)?;
        self.ask(|client| async move {
            let upid = start(client.clone()).await?;
            if let Some(text) = format.json(&upid) {
                output::out(&text);
                return Ok(());
            }
            let upid = upid.as_str().context("the server did not name the task")?;
            task_follow::follow(&TaskApi::new(client), upid, OnInterrupt::Stop).await
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn answers(address: &SocketAddr) -> bool {
    TcpStream::connect_timeout(address, PATIENCE).is_ok()
}

/// A ticket that the server takes for a login of `root@pam`.
fn root_ticket() -> anyhow::Result<String> {
    let access = AccessControl::open(Arc::new(super::configuration()))
        .context("unable to use the server's keys")?;
    access
        .issue_root_ticket()
        .context("the system gives no random numbers")
}
