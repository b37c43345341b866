//! Sync jobs that run when the file system of their datastore is mounted.

use std::sync::Arc;

use backstop_types::record::SyncJobConfig;
use backstop_types::{AuthId, DatastoreName, Upid};

use super::{JobId, JobKind, StartError};
use crate::config::jobs::sync_job;
use crate::config::{ConfigError, SectionFile};
use crate::server::Server;
use crate::task::{TaskContext, TaskFailure, TaskSpec};

/// The type of the task that starts them.
const WORKER_TYPE: &str = "mount-sync-jobs";

/// Whether a job wants to run when this datastore is mounted: as the one here, or as the other one of a job without remote.
fn is_concerned(job: &SyncJobConfig, datastore: &DatastoreName) -> bool {
    let other = job.remote.is_none() && job.remote_store == *datastore;
    job.run_on_mount && (job.store == *datastore || other)
}

/// The jobs that run when a datastore is mounted, by their ids.
///
/// # Errors
/// When the configuration cannot be read.
fn concerned(
    server: &Server,
    datastore: &DatastoreName,
) -> Result<Vec<(String, SyncJobConfig)>, ConfigError> {
    let loaded = server.config().sections(SectionFile::Sync)?;
    let mut ids: Vec<String> = loaded.data.iter().map(|(id, _)| id.to_owned()).collect();
    ids.sort();
    let mut jobs = Vec::new();
    for id in ids {
        if let Some(job) = sync_job(server.config(), &id)?
            && is_concerned(&job, datastore)
        {
            jobs.push((id, job));
        }
    }
    Ok(jobs)
}

/// Starts a task that runs the jobs of a datastore that was mounted just now, one after the other. `None`: there are none.
/// Blocking.
///
/// # Errors
/// When the configuration cannot be read, or the task not be started.
pub fn start_after_mount(
    server: &Arc<Server>,
    datastore: &DatastoreName,
) -> Result<Option<Upid>, StartError> {
    let jobs = concerned(server, datastore)?;
    if jobs.is_empty() {
        return Ok(None);
    }
    let spec = TaskSpec::new(WORKER_TYPE, datastore.as_str(), &AuthId::root());
    let own = Arc::clone(server);
    let upid = server
        .tasks()
        .spawn_from_thread(spec, move |task| run(own, jobs, task))?;
    Ok(Some(upid))
}

async fn run(
    server: Arc<Server>,
    jobs: Vec<(String, SyncJobConfig)>,
    task: TaskContext,
) -> Result<(), TaskFailure> {
    for (id, job) in jobs {
        task.log(format!("starting sync job '{id}'"));
        let own = Arc::clone(&server);
        let job_id = JobId::new(JobKind::Sync, id.as_str());
        let started = tokio::task::spawn_blocking(move || {
            super::start(&own, &job_id, &AuthId::root(), None).map_err(|error| error.to_string())
        });
        match started.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(upid) => {
                tokio::select! {
                    () = server.tasks().wait_for(&upid) => {}
                    () = task.aborted() => return Err(TaskFailure::new("aborted")),
                }
            }
            Err(error) => task.warn(format!("sync job '{id}' was not started - {error}")),
        }
        if job.unmount_on_done {
            task.warn(format!(
                "sync job '{id}' asks to unmount the datastore afterwards, which this server does not do"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_runs_for_its_datastore_and_a_local_one_for_both() {
        let job = |more: serde_json::Value| {
            let mut job = json!({"store": "usb1", "remote-store": "usb2", "run-on-mount": true});
            let own = job.as_object_mut().unwrap();
            own.extend(more.as_object().unwrap().clone());
            SyncJobConfig::from_api(own.clone()).unwrap()
        };
        let concerns = |job: &SyncJobConfig| {
            ["usb1", "usb2", "other"].map(|name| is_concerned(job, &name.parse().unwrap()))
        };
        assert_eq!(concerns(&job(json!({}))), [true, true, false]);
        assert_eq!(
            concerns(&job(json!({"remote": "rem1"}))),
            [true, false, false]
        );
        assert_eq!(concerns(&job(json!({"run-on-mount": false}))), [false; 3]);
    }
}
