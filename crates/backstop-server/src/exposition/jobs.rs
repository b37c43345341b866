//! Jobs: how their last runs ended, when they run next, and how far syncs are behind.
//!
//! Of what cannot be read, the scheduler and the checks of health tell; a scrape leaves it out without a word.

use backstop_types::record::TaskState;
use serde_json::{Map, Value};

use super::families::{ExpositionError, Families, number, seconds, truth};
use crate::config::jobs::is_disabled;
use crate::jobs::{JobId, JobKind, JobStatus, SOURCES, Source};
use crate::server::Server;

/// A job with what the labels say of it.
struct Job {
    id: JobId,
    /// Empty for a job of no datastore.
    store: String,
    schedule: Option<String>,
    is_disabled: bool,
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
    let status = |job: Job| {
        let status = JobStatus::of(server, &job.id, job.schedule.as_deref()).ok();
        // Every directory could be synced; one that nobody ever asked for is no job.
        let is_one = job.id.kind != JobKind::RealmSync
            || status
                .as_ref()
                .is_none_or(|status| status.last_run_upid.is_some());
        is_one.then_some((job, status))
    };
    let jobs: Vec<_> = all(server).into_iter().filter_map(status).collect();
    let labels = ["type", "id", "datastore"];
    let enabled = families.gauges(
        "backstop_job_enabled",
        "Whether the job is switched on: 0 when it is disabled, and only runs when somebody starts it.",
        &labels,
    )?;
    for (job, _) in &jobs {
        enabled.show(&job.labels(), Some(truth(!job.is_disabled)))?;
    }
    for (name, help, value) in OF_JOB {
        let gauges = families.gauges(name, help, &labels)?;
        for (job, status) in &jobs {
            gauges.show(&job.labels(), status.as_ref().and_then(value))?;
        }
    }
    Ok(())
}

impl Job {
    fn labels(&self) -> [&str; 3] {
        [self.id.kind.as_str(), &self.id.id, &self.store]
    }
}

/// All jobs that are configured, the garbage collections of all datastores, and the syncs of all realms.
fn all(server: &Server) -> Vec<Job> {
    let sources = SOURCES.into_iter();
    sources
        .flat_map(|source| of_source(server, source))
        .collect()
}

fn of_source(server: &Server, (file, kind, key): Source) -> Vec<Job> {
    let Ok(loaded) = server.config().sections(file) else {
        return Vec::new();
    };
    let text = |properties: &Map<String, Value>, key: &str| {
        properties
            .get(key)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let jobs = loaded.data.iter().map(|(id, section)| {
        let is_disabled = is_disabled(&section.properties);
        Job {
            id: JobId::new(kind, id),
            store: match kind {
                JobKind::GarbageCollection => id.to_owned(),
                _ => text(&section.properties, "store").unwrap_or_default(),
            },
            schedule: key
                .and_then(|key| text(&section.properties, key))
                .filter(|_| !is_disabled),
            is_disabled,
        }
    });
    jobs.collect()
}
