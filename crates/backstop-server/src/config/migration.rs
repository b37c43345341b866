//! Settings of old versions, brought to where this one looks for them.
//!
//! It is asked for by name, never done unasked: a server only says what waits for it.

use backstop_types::section_config::SectionConfig;
use serde_json::{Map, Value};

use super::datastore::{PRUNE_KEYS, TYPE, prune_job_of};
use super::jobs::{now, state_error};
use super::{ConfigError, ConfigStore, EditError, SectionFile};
use crate::jobs::{JobId, JobKind, JobStates};

/// Longest id of a job.
const MAX_ID: usize = 32;

/// What became of the prune settings of a datastore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The datastore.
    pub store: String,
    /// What was done, in words.
    pub outcome: String,
}

/// The datastores whose sections hold prune settings of versions before 2.2, which nothing acts on any more.
///
/// # Errors
/// When the configuration cannot be read.
pub fn waiting_prune_settings(store: &ConfigStore) -> Result<Vec<String>, ConfigError> {
    let loaded = store.sections(SectionFile::Datastore)?;
    let has_settings = |properties: &Map<String, Value>| {
        PRUNE_KEYS.iter().any(|key| properties.contains_key(*key))
    };
    let sections = loaded.data.of_type(TYPE);
    Ok(sections
        .filter(|(_, section)| has_settings(&section.properties))
        .map(|(name, _)| name.to_owned())
        .collect())
}

/// Makes prune jobs of such settings and takes them out of `datastore.cfg`. A job that was made before, and whose settings
/// were left behind, stays as it is.
///
/// # Errors
/// When something cannot be read or written; the settings are then still there.
pub fn prune_settings(store: &ConfigStore, states: &JobStates) -> Result<Vec<Migrated>, EditError> {
    let mut new = Vec::new();
    let migrated = store.edit_sections(SectionFile::Datastore, None, |config| {
        let mut migrated = Vec::new();
        let mut jobs = Vec::new();
        for name in names(config) {
            let Some(section) = config.get_mut(&name) else {
                continue;
            };
            let job = prune_job_of(&name, &mut section.properties);
            let outcome = match job {
                None => continue,
                Some(job) if !job.contains_key("schedule") => {
                    "dropped prune settings without a schedule".to_owned()
                }
                Some(job) if !job.keys().any(|key| key.starts_with("keep-")) => {
                    "dropped a prune schedule without anything to keep".to_owned()
                }
                Some(job) => {
                    let id: String = format!("storeconfig-{name}").chars().take(MAX_ID).collect();
                    let outcome = format!("made the prune job '{id}'");
                    jobs.push((id, job));
                    outcome
                }
            };
            migrated.push(Migrated {
                store: name,
                outcome,
            });
        }
        // Written before the settings are taken away, so that none is lost.
        store.edit_sections(SectionFile::Prune, None, |config| {
            for (id, job) in jobs {
                if config.get(&id).is_none() {
                    new.push(id.clone());
                    config.set("prune", &id, job).map_err(EditError::Conflict)?;
                }
            }
            Ok::<_, EditError>(())
        })?;
        Ok::<_, EditError>(migrated)
    })?;
    for id in new {
        let job = JobId::new(JobKind::Prune, id);
        states.create(&job, now()).map_err(state_error)?;
    }
    Ok(migrated)
}

/// Writes the way of notification that versions before 4.0 used, `legacy-sendmail`, to datastores that name none. Returns
/// their names.
///
/// # Errors
/// When the configuration cannot be read or written.
pub fn notification_mode(store: &ConfigStore) -> Result<Vec<String>, EditError> {
    store.edit_sections(SectionFile::Datastore, None, |config| {
        let mut changed = Vec::new();
        for name in names(config) {
            let Some(section) = config.get_mut(&name) else {
                continue;
            };
            if !section.properties.contains_key("notification-mode") {
                let mode = Value::from("legacy-sendmail");
                section.properties.insert("notification-mode".into(), mode);
                changed.push(name);
            }
        }
        Ok(changed)
    })
}

fn names(config: &SectionConfig) -> Vec<String> {
    config
        .of_type(TYPE)
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OLD: &str = "datastore: plain\n\tpath /srv/plain\n\n\
        datastore: old\n\tpath /srv/old\n\tprune-schedule daily\n\tkeep-last 3\n\tkeep-daily 7\n\n\
        datastore: never-pruned\n\tpath /srv/never\n\tkeep-last 3\n\n\
        datastore: keeps-nothing\n\tnotification-mode notification-system\n\tpath /srv/nothing\n\tprune-schedule daily\n";

    #[test]
    fn old_prune_settings_become_jobs_and_a_second_time_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("datastore.cfg"), OLD).unwrap();
        let store = ConfigStore::new(dir.path().to_owned());
        let states = JobStates::new(dir.path().to_owned());
        let waiting = waiting_prune_settings(&store).unwrap();
        assert_eq!(waiting, ["old", "never-pruned", "keeps-nothing"]);
        let outcome = prune_settings(&store, &states).unwrap();
        let told: Vec<_> = outcome
            .iter()
            .map(|done| (done.store.as_str(), done.outcome.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("old", "made the prune job 'storeconfig-old'"),
                ("never-pruned", "dropped prune settings without a schedule"),
                (
                    "keeps-nothing",
                    "dropped a prune schedule without anything to keep"
                ),
            ]
        );
        let jobs = std::fs::read_to_string(dir.path().join("prune.cfg")).unwrap();
        assert_eq!(
            jobs,
            "prune: storeconfig-old\n\tkeep-daily 7\n\tkeep-last 3\n\tschedule daily\n\tstore old\n"
        );
        assert!(waiting_prune_settings(&store).unwrap().is_empty());
        assert!(prune_settings(&store, &states).unwrap().is_empty());
        let text = std::fs::read_to_string(dir.path().join("datastore.cfg")).unwrap();
        assert!(
            !text.contains("keep-") && text.contains("path /srv/never"),
            "{text}"
        );
    }

    #[test]
    fn a_job_that_was_made_before_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("datastore.cfg"), OLD).unwrap();
        let made = "prune: storeconfig-old\n\tkeep-last 9\n\tschedule weekly\n\tstore old\n";
        std::fs::write(dir.path().join("prune.cfg"), made).unwrap();
        let store = ConfigStore::new(dir.path().to_owned());
        let states = JobStates::new(dir.path().to_owned());
        prune_settings(&store, &states).unwrap();
        let jobs = std::fs::read_to_string(dir.path().join("prune.cfg")).unwrap();
        assert_eq!(jobs, made);
    }

    #[test]
    fn datastores_without_a_way_of_notification_get_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("datastore.cfg"), OLD).unwrap();
        let store = ConfigStore::new(dir.path().to_owned());
        let changed = notification_mode(&store).unwrap();
        assert_eq!(changed, ["plain", "old", "never-pruned"]);
        let text = std::fs::read_to_string(dir.path().join("datastore.cfg")).unwrap();
        assert_eq!(text.matches("notification-mode legacy-sendmail").count(), 3);
        assert_eq!(
            text.matches("notification-mode notification-system")
                .count(),
            1
        );
    }
}
