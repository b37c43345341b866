//! Datastores in the configuration: looking up, adding, changing, removing.
//!
//! Only the configuration; the directories of a datastore are made and deleted elsewhere.

use std::path::Path;

use backstop_types::config_schema::datastore::DELETABLE;
use backstop_types::record::DatastoreConfig;
use backstop_types::section_config::SectionConfig;
use backstop_types::{DatastoreName, MaintenanceMode, MaintenanceType};
use serde_json::{Map, Value};

use super::jobs::{now, state_error};
use super::{ConfigError, ConfigStore, EditError, SectionFile};
use crate::jobs::{JobId, JobKind, JobStates};

pub(super) const TYPE: &str = "datastore";
/// Prune settings of versions that knew no prune jobs.
pub(super) const PRUNE_KEYS: [&str; 7] = [
    "keep-last",
    "keep-hourly",
    "keep-daily",
    "keep-weekly",
    "keep-monthly",
    "keep-yearly",
    "prune-schedule",
];

/// A datastore that passed all checks of the configuration but is not in it yet.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDatastore {
    /// Its name.
    pub name: DatastoreName,
    /// Its section.
    pub section: Map<String, Value>,
    /// A prune job that its old-style prune settings ask for: id and section.
    pub prune_job: Option<(String, Map<String, Value>)>,
}

/// All configured datastores in file order.
///
/// # Errors
/// When the configuration cannot be read.
pub fn list(store: &ConfigStore) -> Result<Vec<DatastoreConfig>, ConfigError> {
    let loaded = store.sections(SectionFile::Datastore)?;
    let sections = loaded
        .data
        .iter()
        .filter_map(|(name, _)| loaded.data.to_api(name));
    sections.map(to_record).collect()
}

/// One configured datastore.
///
/// # Errors
/// When it is not there, or the configuration cannot be read.
pub fn get(store: &ConfigStore, name: &DatastoreName) -> Result<DatastoreConfig, EditError> {
    let loaded = store.sections(SectionFile::Datastore)?;
    let section = loaded
        .data
        .to_api(name.as_str())
        .ok_or_else(|| EditError::Conflict(format!("no such datastore '{name}'")))?;
    Ok(to_record(section)?)
}

fn to_record(section: Map<String, Value>) -> Result<DatastoreConfig, ConfigError> {
    DatastoreConfig::from_api(section).map_err(|error| ConfigError::Invalid(error.to_string()))
}

/// Checks the parameters of a new datastore. They have passed their schemas already.
///
/// # Errors
/// When the name is taken, the path has the wrong form, or settings exclude each other.
pub fn prepare(
    store: &ConfigStore,
    mut parameters: Map<String, Value>,
) -> Result<NewDatastore, EditError> {
    let name: DatastoreName = match parameters.remove("name") {
        Some(Value::String(name)) => name.parse().map_err(|error: backstop_types::NameError| {
            EditError::parameter("name", error.reason)
        })?,
        _ => {
            return Err(EditError::parameter(
                "name",
                "parameter is missing and it is not optional.",
            ));
        }
    };
    let loaded = store.sections(SectionFile::Datastore)?;
    check_name_is_free(&loaded.data, &name)?;
    let text = |key: &str| parameters.get(key).and_then(Value::as_str);
    let path = text("path").unwrap_or_default();
    let is_removable = text("backing-device").is_some();
    if is_removable && path.starts_with('/') {
        return Err(EditError::parameter(
            "path",
            format!("expected a relative on-device path, '{path}' is not"),
        ));
    }
    if !is_removable && !path.starts_with('/') {
        return Err(EditError::parameter(
            "path",
            format!("expected an absolute path, '{path}' is not"),
        ));
    }
    if !is_removable && parameters.contains_key("gc-on-unmount") {
        return Err(EditError::parameter(
            "gc-on-unmount",
            "only supported on removable datastores",
        ));
    }
    let prune_job = take_prune_job(&name, &mut parameters);
    normalise(&mut parameters)?;
    Ok(NewDatastore {
        name,
        section: parameters,
        prune_job,
    })
}

/// Cuts the old-style prune settings out and makes a job of them, if they say when.
fn take_prune_job(
    name: &DatastoreName,
    parameters: &mut Map<String, Value>,
) -> Option<(String, Map<String, Value>)> {
    let job = prune_job_of(name.as_str(), parameters)?;
    if !job.contains_key("schedule") {
        return None;
    }
    let id = format!("default-{name}-{}", uuid::Uuid::new_v4());
    Some((id.chars().take(32).collect(), job))
}

/// Cuts the old-style prune settings out and returns them as the properties of a prune job; `None` when there are none.
pub(super) fn prune_job_of(
    name: &str,
    section: &mut Map<String, Value>,
) -> Option<Map<String, Value>> {
    let mut job = Map::new();
    for key in PRUNE_KEYS {
        if let Some(value) = section.remove(key) {
            let key = if key == "prune-schedule" {
                "schedule"
            } else {
                key
            };
            job.insert(key.to_string(), value);
        }
    }
    if job.is_empty() {
        return None;
    }
    job.insert("store".to_string(), Value::from(name));
    Some(job)
}

/// Adds a checked datastore to the configuration, and its prune job.
///
/// # Errors
/// When the name was taken meanwhile, when its directory lies in or around another
/// datastore's, or when the configuration cannot be written.
pub fn add(store: &ConfigStore, new: &NewDatastore) -> Result<(), EditError> {
    store.edit_sections(SectionFile::Datastore, None, |config| {
        check_name_is_free(config, &new.name)?;
        check_nesting(config, &new.section)?;
        config
            .set(TYPE, new.name.as_str(), new.section.clone())
            .map_err(EditError::Conflict)
    })?;
    if let Some((id, job)) = &new.prune_job {
        store.edit_sections(SectionFile::Prune, None, |config| {
            config
                .set("prune", id, job.clone())
                .map_err(EditError::Conflict)
        })?;
    }
    Ok(())
}

/// Notes that the jobs of a new datastore were made, so that their schedules count from now on.
///
/// # Errors
/// When that cannot be written.
pub fn create_job_states(states: &JobStates, new: &NewDatastore) -> Result<(), EditError> {
    let prune = new.prune_job.as_ref();
    let prune = prune.map(|(id, _)| JobId::new(JobKind::Prune, id.as_str()));
    for job in [gc_job(&new.name)].into_iter().chain(prune) {
        states.create(&job, now()).map_err(state_error)?;
    }
    Ok(())
}

fn gc_job(name: &DatastoreName) -> JobId {
    JobId::new(JobKind::GarbageCollection, name.to_string())
}

fn check_name_is_free(config: &SectionConfig, name: &DatastoreName) -> Result<(), EditError> {
    match config.get(name.as_str()) {
        Some(_) => Err(EditError::parameter(
            "name",
            format!("datastore '{name}' already exists."),
        )),
        None => Ok(()),
    }
}

/// Refuses a directory that lies in another datastore's directory, or the other way round.
///
/// # Errors
/// When it does.
pub fn check_nesting(
    config: &SectionConfig,
    section: &Map<String, Value>,
) -> Result<(), EditError> {
    let text = |map: &Map<String, Value>, key: &str| {
        map.get(key).and_then(Value::as_str).map(str::to_owned)
    };
    let device = text(section, "backing-device");
    let path = text(section, "path").unwrap_or_default();
    let own = Path::new(path.trim_start_matches(if device.is_some() { "/" } else { "" }));
    for (name, other) in config.iter() {
        if text(&other.properties, "backing-device") != device {
            continue;
        }
        let other_path = text(&other.properties, "path").unwrap_or_default();
        let other = Path::new(&other_path);
        if own.starts_with(other) || other.starts_with(own) {
            return Err(EditError::Conflict(if device.is_some() {
                format!(
                    "paths on backing device must not be nested - {path:?} already used by '{name}'!"
                )
            } else {
                format!("nested datastores not allowed: '{name}' already in {other_path:?}")
            }));
        }
    }
    Ok(())
}

/// Changes a datastore's settings: first removes what `delete` names, then sets `parameters`,
/// which have passed their schemas already. A new schedule of garbage collection counts from now on.
///
/// # Errors
/// When it is not there, is being deleted, or a setting cannot be changed; when `digest` is not
/// the file's.
pub fn update(
    store: &ConfigStore,
    states: &JobStates,
    name: &DatastoreName,
    (mut parameters, delete): (Map<String, Value>, &[String]),
    digest: Option<&str>,
) -> Result<(), EditError> {
    if let Some(key) = PRUNE_KEYS.iter().find(|key| parameters.contains_key(**key)) {
        return Err(EditError::parameter(
            key,
            "datastore prune settings have been replaced by prune jobs",
        ));
    }
    normalise(&mut parameters)?;
    let is_rescheduled = store.edit_sections(SectionFile::Datastore, digest, |config| {
        let mut section = config
            .get_typed(TYPE, name.as_str())
            .ok_or_else(|| EditError::Conflict(format!("no such datastore '{name}'")))?
            .properties
            .clone();
        let schedule = section.get("gc-schedule").cloned();
        let mode = section.get("maintenance-mode").and_then(Value::as_str);
        let mode = mode.and_then(|mode| mode.parse::<MaintenanceMode>().ok());
        let stays_deleted = parameters
            .get("maintenance-mode")
            .and_then(Value::as_str)
            .and_then(|mode| mode.parse::<MaintenanceMode>().ok())
            .is_some_and(|mode| mode.ty == MaintenanceType::Delete);
        if mode.is_some_and(|mode| mode.ty == MaintenanceType::Delete) && !stays_deleted {
            return Err(EditError::Conflict(
                "datastore is being deleted".to_string(),
            ));
        }
        for key in delete
            .iter()
            .filter(|key| DELETABLE.contains(&key.as_str()))
        {
            section.remove(key.as_str());
        }
        if parameters.contains_key("gc-on-unmount") && !section.contains_key("backing-device") {
            return Err(EditError::parameter(
                "gc-on-unmount",
                "only supported on removable datastores",
            ));
        }
        for (key, value) in parameters {
            if value.is_null() {
                section.remove(&key);
            } else {
                section.insert(key, value);
            }
        }
        let is_rescheduled = section.get("gc-schedule") != schedule.as_ref();
        config
            .set(TYPE, name.as_str(), section)
            .map_err(EditError::Conflict)?;
        Ok::<_, EditError>(is_rescheduled)
    })?;
    if is_rescheduled {
        states
            .count_from(&gc_job(name), now())
            .map_err(state_error)?;
    }
    Ok(())
}

/// Brings values into the form in which they are stored; null stands for "remove".
fn normalise(parameters: &mut Map<String, Value>) -> Result<(), EditError> {
    if let Some(Value::String(comment)) = parameters.get_mut("comment") {
        let trimmed = comment.trim().to_string();
        let value = if trimmed.is_empty() {
            Value::Null
        } else {
            Value::String(trimmed)
        };
        parameters.insert("comment".to_string(), value);
    }
    if parameters.get("notify").and_then(Value::as_str) == Some("") {
        parameters.insert("notify".to_string(), Value::Null);
    }
    if let Some(text) = parameters.get("maintenance-mode").and_then(Value::as_str) {
        let mode: MaintenanceMode = text.parse().map_err(|error: backstop_types::NameError| {
            EditError::parameter("maintenance-mode", error.reason)
        })?;
        parameters.insert(
            "maintenance-mode".to_string(),
            Value::String(mode.to_string()),
        );
    }
    Ok(())
}

/// Takes a datastore out of the configuration; unless `keep_jobs`, also its jobs and the access
/// rules for it. State files follow.
///
/// # Errors
/// When it is not there, or `digest` is not the file's.
pub fn remove(
    store: &ConfigStore,
    states: &JobStates,
    name: &DatastoreName,
    keep_jobs: bool,
    digest: Option<&str>,
) -> Result<(), EditError> {
    check_exists(store, name)?;
    if !keep_jobs {
        for (file, kind) in [
            (SectionFile::Verification, JobKind::Verify),
            (SectionFile::Prune, JobKind::Prune),
            (SectionFile::Sync, JobKind::Sync),
        ] {
            let removed = store.edit_sections(file, None, |config| {
                let ids = jobs_of(config, name);
                ids.iter().for_each(|id| {
                    config.remove(id);
                });
                Ok::<_, ConfigError>(ids)
            })?;
            for id in removed {
                states.remove(&JobId::new(kind, id)).map_err(state_error)?;
            }
        }
        store.edit_acl(None, |tree| {
            tree.remove_path(&format!("/datastore/{name}"));
            Ok::<_, ConfigError>(())
        })?;
    }
    store.edit_sections(SectionFile::Datastore, digest, |config| {
        if config.remove(name.as_str()) {
            Ok(())
        } else {
            Err(not_there(name))
        }
    })?;
    states.remove(&gc_job(name)).map_err(state_error)
}

/// Checks that a datastore can be removed from the configuration.
///
/// # Errors
/// When it is not there.
pub fn check_exists(store: &ConfigStore, name: &DatastoreName) -> Result<(), EditError> {
    match store
        .sections(SectionFile::Datastore)?
        .data
        .get(name.as_str())
    {
        Some(_) => Ok(()),
        None => Err(not_there(name)),
    }
}

fn not_there(name: &DatastoreName) -> EditError {
    EditError::NotFound(format!("datastore '{name}' does not exist."))
}

/// Ids of the jobs that work on the datastore, including local sync jobs that read from it.
fn jobs_of(config: &SectionConfig, name: &DatastoreName) -> Vec<String> {
    let is = |properties: &Map<String, Value>, key: &str| {
        properties.get(key).and_then(Value::as_str) == Some(name.as_str())
    };
    config
        .iter()
        .filter(|(_, section)| {
            let properties = &section.properties;
            is(properties, "store")
                || (section.ty == "sync"
                    && !properties.contains_key("remote")
                    && is(properties, "remote-store"))
        })
        .map(|(id, _)| id.to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use serde_json::json;

    fn store() -> (tempfile::TempDir, ConfigStore) {
        let dir = tempfile::tempdir().unwrap();
        let fixtures = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/pbs-4.2.3/etc-proxmox-backup"
        );
        for file in [
            "datastore.cfg",
            "prune.cfg",
            "sync.cfg",
            "verification.cfg",
            "acl.cfg",
        ] {
            std::fs::copy(format!("{fixtures}/{file}"), dir.path().join(file)).unwrap();
        }
        let store = ConfigStore::new(dir.path());
        (dir, store)
    }

    fn states(dir: &tempfile::TempDir) -> JobStates {
        JobStates::new(dir.path().to_owned())
    }

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn name(text: &str) -> DatastoreName {
        text.parse().unwrap()
    }

    #[test]
    fn refusals_have_the_captured_texts() {
        let (dir, store) = store();
        for (parameters, text) in [
            (
                json!({"name": "store1", "path": "/x"}),
                "parameter verification failed - 'name': datastore 'store1' already exists.",
            ),
            (
                json!({"name": "relat1", "path": "rel/path"}),
                "parameter verification failed - 'path': expected an absolute path, 'rel/path' is not",
            ),
        ] {
            assert_eq!(
                prepare(&store, map(parameters)).unwrap_err().to_string(),
                text
            );
        }
        assert_eq!(
            get(&store, &name("nope")).unwrap_err().to_string(),
            "no such datastore 'nope'"
        );
        let error = remove(&store, &states(&dir), &name("nope"), false, None).unwrap_err();
        assert_eq!(
            (error.status(), error.to_string().as_str()),
            (404, "datastore 'nope' does not exist.")
        );
    }

    #[test]
    fn a_new_datastore_is_added_at_the_end_with_its_prune_job() {
        let (dir, store) = store();
        let before = std::fs::read_to_string(dir.path().join("datastore.cfg")).unwrap();
        let new = prepare(&store, map(json!({"name": "new1", "path": "/srv/new", "comment": " c ", "keep-last": 3, "prune-schedule": "daily"}))).unwrap();
        add(&store, &new).unwrap();
        let after = std::fs::read_to_string(dir.path().join("datastore.cfg")).unwrap();
        assert_eq!(
            after,
            format!("{before}\ndatastore: new1\n\tcomment c\n\tpath /srv/new\n")
        );
        let (id, _) = new.prune_job.as_ref().unwrap();
        assert_eq!(id.len(), 32);
        assert_eq!(
            store
                .sections(SectionFile::Prune)
                .unwrap()
                .data
                .get(id)
                .unwrap()
                .properties["store"],
            json!("new1")
        );
        assert!(add(&store, &new).is_err());
    }

    #[test]
    fn nested_directories_are_refused() {
        let (_dir, store) = store();
        for path in [
            "/srv/fixture/store1",
            "/srv/fixture/store1/sub",
            "/srv/fixture",
        ] {
            let new = prepare(&store, map(json!({"name": "new1", "path": path}))).unwrap();
            let error = add(&store, &new).unwrap_err().to_string();
            assert!(
                error.starts_with("nested datastores not allowed: '"),
                "{error}"
            );
        }
        let new = prepare(
            &store,
            map(json!({"name": "new1", "path": "/srv/fixture/store11"})),
        )
        .unwrap();
        add(&store, &new).unwrap();
    }

    #[test]
    fn an_update_changes_deletes_and_keeps_the_rest() {
        let (dir, store) = store();
        let store1 = name("store1");
        update(&store, &states(&dir), &store1, (map(json!({"maintenance-mode": "type=read-only,message=fixture", "verify-new": true})), &["comment".into()]),
            None,
        )
        .unwrap();
        let config = get(&store, &store1).unwrap();
        assert_eq!(
            config.maintenance_mode.as_deref(),
            Some("read-only,message=fixture")
        );
        assert!(config.verify_new && config.comment.is_none() && config.tuning.is_some());
        update(
            &store,
            &states(&dir),
            &store1,
            (map(json!({"comment": "  "})), &["maintenance-mode".into()]),
            None,
        )
        .unwrap();
        assert_eq!(get(&store, &store1).unwrap().maintenance_mode, None);
        let error = update(
            &store,
            &states(&dir),
            &store1,
            (map(json!({"keep-last": 1})), &[]),
            None,
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "parameter verification failed - 'keep-last': datastore prune settings have been replaced by prune jobs"
        );
        assert!(matches!(
            update(
                &store,
                &states(&dir),
                &store1,
                (Map::new(), &[]),
                Some(&"0".repeat(64))
            ),
            Err(EditError::Config(ConfigError::Modified))
        ));
    }

    #[test]
    fn a_datastore_that_is_being_deleted_cannot_be_changed() {
        let (dir, store) = store();
        let store1 = name("store1");
        update(
            &store,
            &states(&dir),
            &store1,
            (map(json!({"maintenance-mode": "delete"})), &[]),
            None,
        )
        .unwrap();
        for (parameters, delete) in [
            (json!({"comment": "x"}), vec![]),
            (json!({}), vec!["maintenance-mode".to_string()]),
        ] {
            assert!(
                update(
                    &store,
                    &states(&dir),
                    &store1,
                    (map(parameters), &delete),
                    None
                )
                .is_err()
            );
        }
        update(
            &store,
            &states(&dir),
            &store1,
            (map(json!({"maintenance-mode": "delete"})), &[]),
            None,
        )
        .unwrap();
    }

    #[test]
    fn a_removed_datastore_takes_its_jobs_and_rules_along() {
        let (dir, store) = store();
        remove(&store, &states(&dir), &name("store1"), false, None).unwrap();
        let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap();
        assert!(!read("acl.cfg").contains("/datastore/store1"));
        assert!(!read("prune.cfg").contains("store1"));
        assert!(!read("verification.cfg").contains("store1"));
        let sync = read("sync.cfg");
        // `local1` reads from the datastore, `push1` from it, `pull1` from one of that name elsewhere.
        assert!(
            !sync.contains("sync: local1\n")
                && !sync.contains("sync: push1\n")
                && sync.contains("sync: pull1\n")
        );
        let (dir, store) = self::store();
        remove(&store, &states(&dir), &name("store1"), true, None).unwrap();
        assert!(
            std::fs::read_to_string(dir.path().join("acl.cfg"))
                .unwrap()
                .contains("/datastore/store1")
        );
    }
}
