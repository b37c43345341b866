//! The workers that create and delete datastores.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use backstop_datastore::{CreateOptions, Datastore};
use backstop_types::{DatastoreName, Tuning};
use serde_json::{Map, Value};

use crate::config::SectionFile;
use crate::config::datastore::{self as store_config, NewDatastore};
use crate::server::Server;
use crate::task::{TaskContext, TaskFailure};

/// How often a deletion looks whether the datastore is idle.
const IDLE_CHECK: Duration = Duration::from_millis(100);
/// How many times it looks.
const IDLE_CHECKS: usize = 20;

/// Makes the directory of a checked datastore and adds it to the configuration.
///
/// # Errors
/// When its place is taken or cannot be used; nothing is added to the configuration then.
pub fn create_datastore(
    server: &Server,
    new: &NewDatastore,
    reuse: bool,
    task: &TaskContext,
) -> Result<(), TaskFailure> {
    let text = |key: &str| {
        new.section
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let loaded = server.config().sections(SectionFile::Datastore)?;
    store_config::check_nesting(&loaded.data, &new.section)?;
    let tuning: Tuning = text("tuning").parse()?;
    let options = CreateOptions {
        reuse,
        skip_access_time_check: !tuning.gc_atime_safety_check,
    };
    let mut progress = |percent: u32| task.log(format!("Chunkstore create: {percent}%"));
    let path = Path::new(text("path"));
    prepare_directory(server, path, task);
    Datastore::create(path, &options, &mut progress)?;
    if tuning.gc_atime_safety_check {
        task.log("Access time update check successful.");
    } else {
        task.log("Access time update check skipped.");
    }
    store_config::add(server.config(), new)?;
    store_config::create_job_states(server.job_states(), new)?;
    if let Some((id, _)) = &new.prune_job {
        task.log(format!("Prune job created: {id}"));
    }
    Ok(())
}

/// Has the directory of a datastore made where only root can make it, or given to the server where it is root's and empty. When
/// that is not possible, the attempt to create the datastore will say what is missing.
fn prepare_directory(server: &Server, path: &Path, task: &TaskContext) {
    let can_write = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    let existing = path.ancestors().find(|path| path.exists());
    if existing.is_none_or(can_write) {
        return;
    }
    if let Some(helper) = server.privileged_helper()
        && let Err(err) = helper.make_directory(path)
    {
        task.warn(err.to_string());
    }
}

/// Takes a datastore out of the configuration, after its data if `destroy` is set.
///
/// # Errors
/// When it is in use, or data or configuration cannot be removed. The datastore then stays in the mode `delete`, with its
/// jobs and access rules, and the deletion can be started again.
pub fn delete_datastore(
    server: &Server,
    name: &DatastoreName,
    keep_jobs: bool,
    destroy: bool,
    task: &TaskContext,
) -> Result<(), TaskFailure> {
    let path = store_config::get(server.config(), name)?.path;
    let path = Path::new(&path);
    if destroy {
        // Also a call to a file system that hangs would come back some day.
        if let Some(place) = server.datastores().known_place(name.as_str()) {
            place.check()?;
            place.ask({
                let path = path.to_owned();
                move || check_is_there(&path)
            })??;
        }
        check_is_there(path)?;
    }
    check_unlocked(server, name, path, task)?;
    // From here on nobody can open it any more.
    let mode = Map::from_iter([(
        "maintenance-mode".to_owned(),
        Value::String("type=delete".to_owned()),
    )]);
    store_config::update(
        server.config(),
        server.job_states(),
        name,
        (mode, &[]),
        None,
    )?;
    wait_until_idle(server, name, task)?;
    if destroy {
        task.log("Deleting datastore data...");
        check_is_there(path)?;
        Datastore::destroy(name, path, &server.roots().locks())?;
    }
    task.log("Removing datastore from config...");
    server.datastores().removals().note_datastore(name);
    store_config::remove(server.config(), server.job_states(), name, keep_jobs, None)?;
    if !destroy {
        return Ok(());
    }
    task.log("Finished deleting data.");
    match fs::remove_dir(path) {
        Ok(()) => task.log("Removed empty datastore directory."),
        Err(err) => task.warn(format!("The directory {path:?} was not removed - {err}")),
    }
    Ok(())
}

/// Fails while a retention lock keeps a snapshot: without its entry the datastore would still be locked, but out of sight. One
/// that is not there takes its lock with it.
fn check_unlocked(
    server: &Server,
    name: &DatastoreName,
    path: &Path,
    task: &TaskContext,
) -> Result<(), TaskFailure> {
    let place = server.datastores().known_place(name.as_str());
    let answers = place.is_none_or(|place| {
        let path = path.to_owned();
        place.check().is_ok() && place.ask(move || check_is_there(&path).is_ok()) == Ok(true)
    });
    if !answers || check_is_there(path).is_err() {
        task.log("The data is not there; a retention lock on it stays with it.");
        return Ok(());
    }
    Ok(Datastore::check_unlocked(
        name,
        path,
        &server.roots().locks(),
    )?)
}

/// Whether data can be deleted. Where the file system is not mounted, the directory below it would be taken for one whose
/// data is deleted already.
fn check_is_there(path: &Path) -> Result<(), TaskFailure> {
    if path.join(".chunks").is_dir() || path.join(".lock").is_file() {
        return Ok(());
    }
    Err(TaskFailure::new(format!(
        "cannot destroy data at {path:?} - no datastore is there; mount its file system, or remove the datastore without \
         destroying data"
    )))
}

/// Lets calls end that began before the mode was set; what takes longer is in the way.
fn wait_until_idle(
    server: &Server,
    name: &DatastoreName,
    task: &TaskContext,
) -> Result<(), TaskFailure> {
    for _ in 0..IDLE_CHECKS {
        let active = server.datastores().active_operations(name);
        if active.read <= 0 && active.write <= 0 {
            return Ok(());
        }
        task.check_abort()?;
        sleep(IDLE_CHECK);
    }
    Err(TaskFailure::new("datastore is currently in use"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_mount_point_without_its_file_system_is_no_datastore() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_is_there(dir.path()).is_err());
        fs::write(dir.path().join(".lock"), "").unwrap();
        check_is_there(dir.path()).unwrap();
    }
}
