//! Jobs: how their last runs ended, when they run next, and how far syncs are behind.

use backstop_types::record::TaskState;
use serde_json::{Map, Value};

use super::families::{ExpositionError, Families, number, seconds, truth};
use crate::config::jobs::{JobFile, PRUNE_JOBS, SYNC_JOBS, VERIFY_JOBS, is_disabled};
use crate::jobs::{JobId, JobKind, JobStatus};
use crate::server::Server;

/// A job with what the labels say of it.
struct Job {
    id: JobId,
    store: String,
    schedule: Option<String>,
}

/// Shows a number of a job's runs.
type OfJob = (&'static str, &'static str, fn(&JobStatus) -> Option<f64>);

const OF_JOB: &[OfJob] = &[
    (
        "backstop_job_last_run_success",
        "Whether the last run that ended did so without an error; warnings count as success.",
        |status| {
            let state = status.last_run_state.as_deref()?;
            Some(truth(TaskState::parse(state).is_success()))
        },
    ),
    (
        "backstop_job_last_run_warnings",
        "Warnings of the last run that ended.",
        |status| match TaskState::parse(status.last_run_state.as_deref()?) {
            TaskState::Warnings(count) => Some(number(count)),
            _ => Some(0.0),
        },
    ),
    (
        "backstop_job_last_run_end_timestamp_seconds",
        "When the last run ended.",
        |status| status.last_run_endtime.map(seconds),
    ),
    (
        "backstop_job_last_run_duration_seconds",
        "How long the last run that ended took.",
        |status| {
            let start = status.last_run_upid.as_ref()?.starttime;
            Some(seconds(
                status.last_run_endtime?.saturating_sub(start).max(0),
            ))
        },
    ),
    (
        "backstop_job_last_success_timestamp_seconds",
        "When a run last ended without an error.",
        |status| status.backstop?.last_success.map(seconds),
    ),
    (
        "backstop_job_failures_in_a_row",
        "Runs that failed since the last one that did not.",
        |status| Some(number(status.backstop?.failures)),
    ),
    ("backstop_job_running", "Whether it runs now.", |status| {
        Some(truth(
            status.last_run_upid.is_some() && status.last_run_endtime.is_none(),
        ))
    }),
    (
        "backstop_job_next_run_timestamp_seconds",
        "When it runs next by its schedule.",
        |status| status.next_run.map(seconds),
    ),
    (
        "backstop_sync_moved_bytes",
        "Bytes of chunks that the last run of a sync moved.",
        |status| status.backstop?.bytes.map(number),
    ),
    (
        "backstop_sync_moved_snapshots",
        "Snapshots that the last run of a sync copied.",
        |status| status.backstop?.snapshots.map(number),
    ),
    (
        "backstop_sync_missing_snapshots",
        "Snapshots at the source that were not at the target after the last run.",
        |status| status.backstop?.missing.map(number),
    ),
    (
        "backstop_sync_lag_seconds",
        "Age of the newest snapshot at the source that is not at the target; 0 when nothing is missing.",
        |status| status.backstop?.lag.map(seconds),
    ),
];

pub(super) fn add(server: &Server, families: &Families) -> Result<(), ExpositionError> {
    let jobs: Vec<_> = all(server)
        .into_iter()
        .map(|job| {
            let status = JobStatus::of(server, &job.id, job.schedule.as_deref());
            (
                job,
                status
                    .inspect_err(|err| tracing::warn!(%err, "no metrics of a job"))
                    .ok(),
            )
        })
        .collect();
    for (name, help, value) in OF_JOB {
        let gauges = families.gauges(name, help, &["type", "id", "datastore"])?;
        for (job, status) in &jobs {
            let labels = [job.id.kind.as_str(), &job.id.id, &job.store];
            gauges.show(&labels, status.as_ref().and_then(value))?;
        }
    }
    Ok(())
}

/// All jobs that are configured, and the garbage collections of all datastores.
fn all(server: &Server) -> Vec<Job> {
    let mut jobs = Vec::new();
    for config in server.datastores().configs().unwrap_or_default() {
        jobs.push(Job {
            id: JobId::new(JobKind::GarbageCollection, config.name.to_string()),
            store: config.name.to_string(),
            schedule: config.gc_schedule,
        });
    }
    for file in [&PRUNE_JOBS, &VERIFY_JOBS, &SYNC_JOBS] {
        jobs.extend(of_file(server, file));
    }
    jobs
}

fn of_file(server: &Server, file: &JobFile) -> Vec<Job> {
    let loaded = match server.config().sections(file.file) {
        Ok(loaded) => loaded,
        Err(err) => {
            tracing::warn!(%err, "no metrics of jobs");
            return Vec::new();
        }
    };
    let text = |properties: &Map<String, Value>, key: &str| {
        properties
            .get(key)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let jobs = loaded.data.iter().map(|(id, section)| Job {
        id: JobId::new(file.kind, id),
        store: text(&section.properties, "store").unwrap_or_default(),
        schedule: text(&section.properties, "schedule")
            .filter(|_| !is_disabled(&section.properties)),
    });
    jobs.collect()
}
