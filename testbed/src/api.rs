//! REST calls to a server under test, as `admin@pbs` or somebody else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use backstop_client::connection::{ClientOptions, HttpClient};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::server::ServerProcess;

/// How long something may take to come true. Generous: a loaded machine is slow, not broken.
const LIMIT: Duration = Duration::from_secs(120);

/// A logged-in connection.
pub struct Api {
    /// Drives the calls.
    pub runtime: Runtime,
    /// The connection.
    pub client: Arc<HttpClient>,
}

impl Api {
    /// Logs in to `server`.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached.
    pub fn connect(server: &ServerProcess) -> Result<Self> {
        Self::log_in(server, "admin@pbs", &server.password)
    }

    /// Logs in as anybody: a user with a password, or a token with its secret.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub fn log_in(server: &ServerProcess, auth_id: &str, secret: &str) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let host = server.address.ip().to_string();
        let mut options = ClientOptions::new(host, server.address.port(), auth_id.parse()?);
        options.secret = Some(secret.to_owned());
        options.fingerprint = Some(server.fingerprint.parse()?);
        let client = runtime.block_on(HttpClient::connect(options))?;
        Ok(Self {
            runtime,
            client: Arc::new(client),
        })
    }

    /// `GET path`.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn get(&self, path: &str) -> Result<Value> {
        let got = self.runtime.block_on(self.client.get(path, json!({})));
        got.context(path.to_owned())
    }

    /// `POST path`.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn post(&self, path: &str, parameters: Value) -> Result<Value> {
        let got = self.runtime.block_on(self.client.post(path, parameters));
        got.context(path.to_owned())
    }

    /// `PUT path`.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn put(&self, path: &str, parameters: Value) -> Result<Value> {
        let got = self.runtime.block_on(self.client.put(path, parameters));
        got.context(path.to_owned())
    }

    /// `DELETE path`.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn delete(&self, path: &str, parameters: Value) -> Result<Value> {
        let got = self.runtime.block_on(self.client.delete(path, parameters));
        got.context(path.to_owned())
    }

    /// Asks until the answer fits.
    ///
    /// # Errors
    ///
    /// When it never does, or the server refuses.
    pub fn wait(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let start = Instant::now();
        loop {
            let answer = self.get(path)?;
            if fits(&answer) {
                return Ok(answer);
            }
            if start.elapsed() > LIMIT {
                bail!("{path} still says {answer}");
            }
        }
    }

    /// How a task ended; `upid` is the reply of the call that started it.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn end_of(&self, upid: &Value) -> Result<String> {
        let upid = upid.as_str().context("no task id")?;
        let path = format!("nodes/localhost/tasks/{upid}/status");
        let ended = self.wait(&path, |status| status["status"] == "stopped")?;
        let end = ended["exitstatus"].as_str();
        Ok(end.context("no end status")?.to_owned())
    }
}
