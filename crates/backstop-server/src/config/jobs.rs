//! Jobs in the configuration: adding, changing, removing. Their state files follow.

use backstop_types::Namespace;
use backstop_types::config_schema::job::{
    PRUNE, PRUNE_DELETABLE, SYNC, SYNC_DELETABLE, VERIFICATION, VERIFICATION_DELETABLE,
};
use backstop_types::record::{PruneJobConfig, SyncJobConfig, VerifyJobConfig};
use backstop_types::schema::Properties;
use backstop_types::section_config::SectionConfig;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{ConfigError, ConfigStore, EditError, SectionFile};
use crate::jobs::{JobId, JobKind, JobStateError, JobStates};

/// A file of jobs of one kind.
#[derive(Debug, Clone, Copy)]
pub struct JobFile {
    /// What its jobs do.
    pub kind: JobKind,
    /// The file.
    pub file: SectionFile,
    /// The type of its sections.
    pub section: &'static str,
    /// The properties of its sections.
    pub properties: &'static Properties,
    /// What an update may unset.
    pub deletable: &'static [&'static str],
    /// Sees what a job was and is about to become; may change that, or refuse it.
    pub adapt: Adapt,
}

/// See [`JobFile::adapt`].
pub type Adapt = fn(
    &ConfigStore,
    before: Option<&Map<String, Value>>,
    after: &mut Map<String, Value>,
) -> Result<(), EditError>;

/// For jobs whose properties have no rules but their schemas.
const AS_IT_IS: Adapt = |_, _, _| Ok(());

/// `prune.cfg`.
pub const PRUNE_JOBS: JobFile = JobFile {
    kind: JobKind::Prune,
    file: SectionFile::Prune,
    section: "prune",
    properties: &PRUNE,
    deletable: PRUNE_DELETABLE,
    adapt: AS_IT_IS,
};

/// `verification.cfg`.
pub const VERIFY_JOBS: JobFile = JobFile {
    kind: JobKind::Verify,
    file: SectionFile::Verification,
    section: "verification",
    properties: &VERIFICATION,
    deletable: VERIFICATION_DELETABLE,
    adapt: AS_IT_IS,
};

/// `sync.cfg`.
pub const SYNC_JOBS: JobFile = JobFile {
    kind: JobKind::Sync,
    file: SectionFile::Sync,
    section: "sync",
    properties: &SYNC,
    deletable: SYNC_DELETABLE,
    adapt: super::sync::adapt,
};

impl JobFile {
    fn job(&self, id: &str) -> JobId {
        JobId::new(self.kind, id)
    }

    /// The properties of a job.
    ///
    /// # Errors
    /// When there is no such job, or the file cannot be read.
    pub fn get(&self, store: &ConfigStore, id: &str) -> Result<Map<String, Value>, EditError> {
        let loaded = store.sections(self.file)?;
        self.section_of(&loaded.data, id)
    }

    fn section_of(
        &self,
        config: &SectionConfig,
        id: &str,
    ) -> Result<Map<String, Value>, EditError> {
        match config.get_typed(self.section, id) {
            Some(section) => Ok(section.properties.clone()),
            None => Err(EditError::Conflict(format!(
                "no such {} '{id}'",
                self.section
            ))),
        }
    }

    /// Adds a job. The parameters have passed their schemas already.
    ///
    /// # Errors
    /// When the id is taken, or something cannot be written.
    pub fn create(
        &self,
        store: &ConfigStore,
        states: &JobStates,
        id: &str,
        mut properties: Map<String, Value>,
    ) -> Result<(), EditError> {
        normalise(&mut properties);
        store.edit_sections(self.file, None, |config| {
            if config.get(id).is_some() {
                return Err(EditError::parameter(
                    "id",
                    format!("job '{id}' already exists."),
                ));
            }
            (self.adapt)(store, None, &mut properties)?;
            config
                .set(self.section, id, properties)
                .map_err(EditError::Conflict)
        })?;
        states.create(&self.job(id), now()).map_err(state_error)
    }

    /// Changes a job: first removes what `delete` names, then sets `properties`, which have passed their schemas already.
    /// `check` sees the result before it is written. Unless the schedule changes, what it counts from stays.
    ///
    /// # Errors
    /// When there is no such job, `check` refuses, `digest` is not the file's, or something cannot be written.
    pub fn update(
        &self,
        store: &ConfigStore,
        states: &JobStates,
        id: &str,
        (properties, delete): (Map<String, Value>, &[String]),
        digest: Option<&str>,
        check: impl FnOnce(&Map<String, Value>) -> Result<(), EditError>,
    ) -> Result<(), EditError> {
        let is_rescheduled = store.edit_sections(self.file, digest, |config| {
            let before = self.section_of(config, id)?;
            let mut after = before.clone();
            let deletable = delete
                .iter()
                .filter(|key| self.deletable.contains(&key.as_str()));
            deletable.for_each(|key| {
                after.remove(key);
            });
            after.extend(properties);
            normalise(&mut after);
            (self.adapt)(store, Some(&before), &mut after)?;
            check(&after)?;
            let is_rescheduled = before.get("schedule") != after.get("schedule");
            config
                .set(self.section, id, after)
                .map_err(EditError::Conflict)?;
            Ok::<_, EditError>(is_rescheduled)
        })?;
        if is_rescheduled {
            states
                .count_from(&self.job(id), now())
                .map_err(state_error)?;
        }
        Ok(())
    }

    /// Removes a job.
    ///
    /// # Errors
    /// When there is no such job, `digest` is not the file's, or something cannot be removed.
    pub fn remove(
        &self,
        store: &ConfigStore,
        states: &JobStates,
        id: &str,
        digest: Option<&str>,
    ) -> Result<(), EditError> {
        store.edit_sections(self.file, digest, |config| {
            if config.remove(id) {
                Ok(())
            } else {
                Err(EditError::NotFound(format!("job '{id}' does not exist.")))
            }
        })?;
        states.remove(&self.job(id)).map_err(state_error)
    }
}

/// A prune job.
///
/// # Errors
/// When the file cannot be read.
pub fn prune_job(store: &ConfigStore, id: &str) -> Result<Option<PruneJobConfig>, ConfigError> {
    let section = store.sections(SectionFile::Prune)?.data.to_api(id);
    section
        .map(PruneJobConfig::from_api)
        .transpose()
        .map_err(invalid)
}

/// A verify job.
///
/// # Errors
/// When the file cannot be read.
pub fn verify_job(store: &ConfigStore, id: &str) -> Result<Option<VerifyJobConfig>, ConfigError> {
    let section = store.sections(SectionFile::Verification)?.data.to_api(id);
    section
        .map(VerifyJobConfig::from_api)
        .transpose()
        .map_err(invalid)
}

/// A sync job.
///
/// # Errors
/// When the file cannot be read.
pub fn sync_job(store: &ConfigStore, id: &str) -> Result<Option<SyncJobConfig>, ConfigError> {
    let section = store.sections(SectionFile::Sync)?.data.to_api(id);
    section
        .map(SyncJobConfig::from_api)
        .transpose()
        .map_err(invalid)
}

/// Whether a job with these properties does not run by its schedule.
pub fn is_disabled(properties: &Map<String, Value>) -> bool {
    properties
        .get("disable")
        .and_then(Value::as_bool)
        .unwrap_or(false)
}

/// The path of access rules on which a job with these properties works.
///
/// # Errors
/// When they name no datastore; their schema excludes that.
pub fn acl_path(properties: &Map<String, Value>) -> Result<String, EditError> {
    let text = |key: &str| {
        properties
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let invalid = |key: &str, err: backstop_types::NameError| EditError::parameter(key, err.reason);
    let store = text("store").parse().map_err(|err| invalid("store", err))?;
    let ns: Namespace = text("ns").parse().map_err(|err| invalid("ns", err))?;
    Ok(ns.acl_path(&store))
}

/// Brings values into the form in which they are stored: what says nothing is left out.
fn normalise(properties: &mut Map<String, Value>) {
    let says_something = |key: &String, value: &mut Value| match key.as_str() {
        "ns" | "comment" => value.as_str() != Some(""),
        "disable" => value.as_bool() != Some(false),
        _ => !value.is_null(),
    };
    if let Some(Value::String(comment)) = properties.get_mut("comment") {
        *comment = comment.trim().to_owned();
    }
    properties.retain(says_something);
}

fn invalid(error: serde_json::Error) -> ConfigError {
    ConfigError::Invalid(error.to_string())
}

pub(crate) fn state_error(error: JobStateError) -> EditError {
    EditError::Conflict(crate::http::error::chain(&error))
}

pub(super) fn now() -> i64 {
    Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::jobs::{JobResult, JobState};
    use backstop_types::record::TaskState;
    use serde_json::json;

    fn setting() -> (tempfile::TempDir, ConfigStore, JobStates) {
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::new(dir.path());
        let states = JobStates::new(dir.path().to_owned());
        (dir, store, states)
    }

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_job_is_written_as_stock_writes_it_and_removed_without_a_trace() {
        let (dir, store, states) = setting();
        let properties = map(json!({
            "store": "pull-target", "schedule": "daily", "keep-last": 2, "keep-daily": 7, "ns": "mirror", "max-depth": 1,
            "comment": " prune it ", "disable": false
        }));
        PRUNE_JOBS
            .create(&store, &states, "prune1", properties.clone())
            .unwrap();
        let text = std::fs::read_to_string(dir.path().join("prune.cfg")).unwrap();
        let reference = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/pbs-4.2.3/etc-proxmox-backup/prune.cfg"
        );
        assert!(
            std::fs::read_to_string(reference)
                .unwrap()
                .starts_with(&text),
            "{text}"
        );
        let error = PRUNE_JOBS
            .create(&store, &states, "prune1", properties)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "parameter verification failed - 'id': job 'prune1' already exists."
        );
        PRUNE_JOBS.remove(&store, &states, "prune1", None).unwrap();
        let error = PRUNE_JOBS
            .remove(&store, &states, "prune1", None)
            .unwrap_err();
        assert_eq!(
            (error.status(), error.to_string().as_str()),
            (404, "job 'prune1' does not exist.")
        );
        let left = std::fs::read_dir(dir.path()).unwrap();
        let left: Vec<_> = left
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(
            left.iter().all(|name| !name.starts_with("prunejob")),
            "{left:?}"
        );
    }

    #[test]
    fn only_another_schedule_counts_from_the_change_on() {
        let (_dir, store, states) = setting();
        let properties = map(json!({"store": "store1", "schedule": "daily", "comment": "c"}));
        VERIFY_JOBS
            .create(&store, &states, "ver1", properties)
            .unwrap();
        let job = JobId::new(JobKind::Verify, "ver1");
        let finished = JobState::Finished {
            upid: "UPID:vm:00007067:000CF758:000000E8:6B00CCA1:verificationjob:store1:root@pam:"
                .parse()
                .unwrap(),
            state: JobResult::new(7, TaskState::Ok),
            updated: None,
        };
        states.store(&job, &finished).unwrap();
        let update = |properties: Value, delete: &[&str]| {
            let delete: Vec<String> = delete.iter().map(|key| (*key).to_owned()).collect();
            VERIFY_JOBS
                .update(
                    &store,
                    &states,
                    "ver1",
                    (map(properties), &delete),
                    None,
                    |_| Ok(()),
                )
                .unwrap();
            states.load(&job, 0).unwrap()
        };
        assert_eq!(
            update(
                json!({"outdated-after": 3, "ns": ""}),
                &["comment", "store"]
            ),
            finished
        );
        assert_eq!(update(json!({"schedule": "daily"}), &[]), finished);
        assert!(matches!(
            update(json!({"schedule": "hourly"}), &[]),
            JobState::Finished { updated: Some(time), .. } if time > 1_700_000_000
        ));
        let properties = VERIFY_JOBS.get(&store, "ver1").unwrap();
        assert_eq!(
            properties,
            map(json!({"store": "store1", "schedule": "hourly", "outdated-after": 3}))
        );
    }
}
