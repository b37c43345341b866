//! The end of a run of a job: who is told of it, and of what.

use std::sync::Arc;

use backstop_notify::templates::WARNINGS;
use backstop_notify::{Notification, Severity};
use backstop_types::config_schema::datastore::NOTIFY_KINDS;
use backstop_types::record::{DatastoreConfig, SyncJobConfig, TaskState};
use backstop_types::{DatastoreName, Operation, Upid};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Notifier, USER_LANE, events};
use crate::jobs::{JobId, JobKind};
use crate::server::Server;

/// A run, with what its notification names. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JobRun {
    /// The job.
    pub job: JobId,
    /// The datastore that it works on.
    pub datastore: DatastoreName,
    /// For a sync: the remote, if there is one, and the datastore there.
    pub other_side: Option<(Option<String>, String)>,
    /// For a verification: what it found damaged.
    pub failed_snapshots: Arc<Mutex<Vec<String>>>,
}

/// What a task that somebody stops ends with.
const ABORTED: &str = "task aborted";

impl JobRun {
    /// A run of a job on a datastore.
    pub fn new(job: &JobId, datastore: &DatastoreName) -> Self {
        Self {
            job: job.clone(),
            datastore: datastore.clone(),
            other_side: None,
            failed_snapshots: Arc::default(),
        }
    }

    /// A run of a sync job.
    pub fn of_sync(job: &JobId, config: &SyncJobConfig) -> Self {
        let remote = config.remote.as_ref().map(ToString::to_string);
        Self {
            other_side: Some((remote, config.remote_store.to_string())),
            ..Self::new(job, &config.store)
        }
    }

    fn kind(&self) -> Option<&'static str> {
        match self.job.kind {
            JobKind::GarbageCollection => Some("gc"),
            JobKind::Prune => Some("prune"),
            JobKind::Verify => Some("verify"),
            JobKind::Sync => Some("sync"),
            JobKind::RealmSync => None,
        }
    }

    /// The notification of its end; `None` for what nobody is told of. What ended with warnings is more than a success.
    fn ended(
        &self,
        server: &Server,
        upid: &Upid,
        (endtime, state): (i64, &TaskState),
    ) -> Option<Notification> {
        let mut notification = self.told(server, upid, (endtime, state))?;
        if let TaskState::Warnings(count) = state {
            notification.severity = Severity::Warning;
            notification.show(WARNINGS, (*count).into());
        }
        Some(notification)
    }

    fn told(
        &self,
        server: &Server,
        upid: &Upid,
        (endtime, state): (i64, &TaskState),
    ) -> Option<Notification> {
        let host = server.notifier().host();
        let kind = self.kind()?;
        let store = self.datastore.as_str();
        let error = match state {
            TaskState::Ok | TaskState::Warnings(_) => None,
            TaskState::Error(reason) => Some(reason.clone()),
            TaskState::Unknown => {
                Some("it was cut off: the server ended, or its host, while it ran".to_owned())
            }
        };
        // Whoever stopped a verification knows.
        if kind == "verify" && error.as_deref() == Some(ABORTED) {
            return None;
        }
        if kind == "gc" {
            return Some(match &error {
                Some(error) => events::gc_err(host, endtime, store, error),
                None => {
                    let datastore = server
                        .datastores()
                        .lookup(&self.datastore, Operation::Lookup);
                    let status = datastore.map(|datastore| datastore.gc_status());
                    let status = status.unwrap_or_default();
                    events::gc_ok(host, endtime, store, &upid.to_string(), &status)
                }
            });
        }
        let mut data = json!({ "datastore": store, "job-id": self.job.id });
        if let Some((remote, remote_store)) = &self.other_side {
            data["remote"] = remote.clone().into();
            data["remote-datastore"] = remote_store.clone().into();
        }
        let (severity, suffix) = match &error {
            None => (Severity::Info, "ok"),
            Some(error) => {
                data["error"] = error.clone().into();
                let failed = self.failed_snapshots.lock().clone();
                if kind == "verify" {
                    data["failed-snapshot-list"] = failed.into();
                }
                (Severity::Error, "err")
            }
        };
        let fields = [
            ("type", kind),
            ("datastore", store),
            ("job-id", self.job.id.as_str()),
        ];
        let template = format!("{kind}-{suffix}");
        Some(host.event(endtime, severity, &template, data, &fields))
    }
}

/// Whom the settings of a datastore name.
#[derive(Debug, PartialEq, Eq)]
enum Recipient {
    /// Whoever the matchers say.
    Matchers,
    /// This user, by mail.
    User(String),
    /// Nobody, unless it ends a failure that somebody was told of.
    WhoeverWasTold,
    /// Nobody.
    Nobody,
}

/// Stock servers of old sent mail to one user for each datastore; those settings are honoured where they are set.
fn recipient(config: &DatastoreConfig, kind: &str, is_failure: bool) -> Recipient {
    if config.notification_mode.as_deref() != Some("legacy-sendmail") {
        return Recipient::Matchers;
    }
    let wanted = config.notify.as_deref().and_then(|text| {
        let kinds = NOTIFY_KINDS.parse_property_string(text).ok()?;
        kinds.get(kind).and_then(Value::as_str).map(str::to_owned)
    });
    let default = if kind == "prune" { "error" } else { "always" };
    match wanted.as_deref().unwrap_or(default) {
        "never" => Recipient::Nobody,
        "error" if !is_failure => Recipient::WhoeverWasTold,
        _ => {
            let user = config.notify_user.clone();
            Recipient::User(user.unwrap_or_else(|| "root@pam".to_owned()))
        }
    }
}

impl Notifier {
    /// Tells of the end of a run, unless its failure is acknowledged or expected: then health tells of it when that has ended. Blocking.
    pub fn run_ended(&self, server: &Server, run: &JobRun, upid: &Upid, end: (i64, &TaskState)) {
        let health = server.health();
        let Some(mut notification) = run.ended(server, upid, end) else {
            if run.kind().is_some() {
                health.run_was_told(&run.job);
            }
            return;
        };
        let kind = run.kind().unwrap_or_default();
        let is_failure = notification.severity.is_failure();
        if is_failure {
            if health.is_quiet(&run.job, &self.config) {
                tracing::info!(job = %run.job, "its failure is acknowledged, or expected in a maintenance window");
                return;
            }
            health.run_was_told(&run.job);
        }
        let recipient = match server.datastores().config(&run.datastore) {
            Ok(config) => recipient(&config, kind, is_failure),
            // A datastore that is gone has no settings of its own.
            Err(_) => Recipient::Matchers,
        };
        match recipient {
            Recipient::Matchers => {}
            Recipient::User(user) => notification.to = Some(format!("{USER_LANE}{user}")),
            Recipient::WhoeverWasTold => notification.to = Some(String::new()),
            Recipient::Nobody => return,
        }
        self.notify(&notification);
    }
}
