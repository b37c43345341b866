//! A real Prometheus on loopback, with data of its own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::service::{Service, encoded};

/// A running Prometheus. Dropping it ends the process.
pub struct Prometheus {
    service: Service,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it with this configuration.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(program: &Path, config: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("prometheus.yml"), config)?;
        let ready = "Server is ready to receive web requests";
        let service = Service::start(ready, |port| {
            let mut command = Command::new(program);
            command
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
                .current_dir(folder.path());
            Ok(command)
        })?;
        Ok(Self {
            service,
            _folder: folder,
        })
    }

    /// Asks until a query has a result, and returns that.
    ///
    /// # Errors
    ///
    /// When there is none within two minutes.
    pub fn wait_for(&self, query: &str) -> Result<Vec<Value>> {
        let path = format!("/api/v1/query?query={}", encoded(query));
        let result = self.service.wait_for(&path, |answer| {
            let result = answer["data"]["result"].as_array()?;
            (!result.is_empty()).then(|| result.clone())
        });
        result.with_context(|| {
            let targets = self.service.get("/api/v1/targets").unwrap_or_default();
            format!("no result of {query}; targets: {targets}")
        })
    }
}
