//! A real OpenID provider (`oidc-provider` from npm) on loopback, and a browser that logs in at it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::authority::Authority;

/// Where `cargo xtask test` installs the provider.
const FOLDER_VARIABLE: &str = "BACKSTOP_TEST_NPM";

/// The scripts in the tests folder.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/openid_provider");

/// A running provider. Dropping it ends the process.
pub struct OpenIdProvider {
    process: Child,
    /// Its address.
    pub issuer: String,
    authority: Option<PathBuf>,
}

impl Drop for OpenIdProvider {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where the provider is installed, or `None` (and a line that says so) where it is not.
#[must_use]
pub fn installed() -> Option<PathBuf> {
    let has_node = Command::new("node")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let folder = std::env::var_os(FOLDER_VARIABLE)
        .map(PathBuf::from)
        .or_else(|| {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let cache =
                cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
            Some(cache?.join("backstop/npm/openid-provider"))
        });
    let folder = folder.filter(|folder| folder.join("node_modules/oidc-provider").is_dir());
    match folder {
        Some(folder) if has_node => Some(folder),
        _ => {
            println!(
                "skipped: no OpenID provider (node and npm's oidc-provider are not installed)"
            );
            None
        }
    }
}

impl OpenIdProvider {
    /// Starts a provider, with TLS when there is an authority.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(
        installed: &Path,
        redirect_url: &str,
        authority: Option<&Authority>,
    ) -> Result<Self> {
        let mut command = Command::new("node");
        command
            .arg(Path::new(SCRIPTS).join("provider.mjs"))
            .env("PROVIDER_MODULES", installed.join("node_modules"))
            .env("REDIRECT_URL", redirect_url)
            .env("NODE_ENV", "test")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(authority) = authority {
            command
                .env("TLS_CERTIFICATE", &authority.server_certificate)
                .env("TLS_KEY", &authority.server_key);
        }
        let mut process = command.spawn().context("starting node")?;
        let said = process.stdout.take().context("node has no output")?;
        let mut said = BufReader::new(said);
        let mut line = String::new();
        loop {
            line.clear();
            if said.read_line(&mut line)? == 0 {
                bail!("the OpenID provider does not start: {:?}", process.wait());
            }
            if let Some(issuer) = line.trim().strip_prefix("issuer ") {
                let issuer = issuer.to_owned();
                std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
                return Ok(Self {
                    process,
                    issuer,
                    authority: authority.map(|authority| authority.certificate.clone()),
                });
            }
        }
    }

    /// Opens `url` as a browser would, logs in as `user` and consents. Returns what the browser is sent back with: `code`
    /// and `state`, or an error.
    ///
    /// # Errors
    ///
    /// When the pages are not what they should be.
    pub fn log_in(&self, url: &str, user: &str) -> Result<Value> {
        let mut command = Command::new("node");
        command
            .arg(Path::new(SCRIPTS).join("browser.mjs"))
            .args([url, user])
            .stdin(Stdio::null());
        if let Some(authority) = &self.authority {
            command.env("NODE_EXTRA_CA_CERTS", authority);
        }
        let output = command.output().context("starting node")?;
        if !output.status.success() {
            bail!("the browser: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
