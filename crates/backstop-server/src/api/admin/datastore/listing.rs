//! Lists: datastores, groups, snapshots, files of a snapshot.

use backstop_datastore::{NamespaceLock, SnapshotInfo};
use backstop_format::manifest::Manifest;
use backstop_types::record::{
    BackendType, DatastoreListItem, GroupItem, MountStatus, SnapshotItem, SnapshotVerification,
    VerifyState,
};
use backstop_types::schema::Property;
use backstop_types::{AuthId, BackupGroup, BackupTime, Namespace, Operation, Privileges};
use bytes::Bytes;

use super::parameters::{
    GROUP_ID, NS, SNAPSHOT_TIME, SOME_ID, SOME_TYPE, STORE, TYPE, namespace, snapshot, some_id,
    some_type, store,
};
use super::reach::{Reach, sees};
use super::snapshot_files::{file_items, find_snapshot, unlisted};
use super::{content, not_found};
use crate::datastores::DatastoreHandle;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Method, Params, RequestContext};

const IN_NAMESPACE: &[Property] = &[STORE, NS];
const FILTERED: &[Property] = &[STORE, NS, SOME_TYPE, SOME_ID];
const OF_SNAPSHOT: &[Property] = &[STORE, NS, SNAPSHOT_TIME, GROUP_ID, TYPE];

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        content(
            Method::Get,
            "/admin/datastore",
            "The datastores that the caller may see.",
            &[],
            datastores,
        ),
        content(
            Method::Get,
            "/admin/datastore/{store}/groups",
            "The groups of a namespace.",
            IN_NAMESPACE,
            groups,
        ),
        content(
            Method::Get,
            "/admin/datastore/{store}/snapshots",
            "The snapshots of a namespace or of one group.",
            FILTERED,
            snapshots,
        ),
        content(
            Method::Get,
            "/admin/datastore/{store}/files",
            "The files of a snapshot.",
            OF_SNAPSHOT,
            files,
        ),
    ]
}

fn datastores(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let mut list = Vec::new();
    let server = context.server();
    for config in server.datastores().configs()?.iter() {
        if !sees(context, &config.name)? {
            continue;
        }
        let path = Namespace::root().acl_path(&config.name);
        let audit = server
            .privileges(context.auth_id()?, &path)
            .contains(Privileges::DATASTORE_AUDIT);
        let backup = server
            .privileges(context.auth_id()?, &path)
            .contains(Privileges::DATASTORE_BACKUP);
        list.push(DatastoreListItem {
            store: config.name.clone(),
            comment: config.comment.clone().filter(|_| audit || backup),
            mount_status: Some(match config.backing_device {
                Some(_) => MountStatus::NotMounted,
                None => MountStatus::NonRemovable,
            }),
            maintenance: config.maintenance_mode.clone(),
            backend_type: Some(match config.backend_type() {
                BackendType::S3 => BackendType::S3,
                BackendType::Filesystem => BackendType::Filesystem,
            }),
        });
    }
    Reply::data(&list)
}

/// The groups of a namespace that the caller may see. A group whose owner cannot be read is left out.
fn visible_groups(
    datastore: &DatastoreHandle,
    ns: &Namespace,
    reach: &Reach,
) -> Result<Vec<(BackupGroup, AuthId)>, ApiError> {
    let groups = datastore.groups(ns).map_err(not_found)?;
    let owned = groups.into_iter().filter_map(|group| match datastore.owner(ns, &group) {
        Ok(owner) => Some((group, owner)),
        Err(err) => {
            tracing::warn!(store = %datastore.name(), %group, %err, "leaving out a group without owner");
            None
        }
    });
    Ok(owned.filter(|(_, owner)| reach.admits(owner)).collect())
}

fn list_reach(context: &RequestContext, params: &Params) -> Result<Reach, ApiError> {
    Reach::of(
        context,
        &store(params)?,
        &namespace(params)?,
        Privileges::DATASTORE_AUDIT,
        Privileges::DATASTORE_BACKUP,
    )
}

fn groups(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, ns) = (store(params)?, namespace(params)?);
    let reach = list_reach(context, params)?;
    let datastore = context
        .server()
        .datastores()
        .lookup(&store, Operation::Read)?;
    let mut list = Vec::new();
    for (group, owner) in visible_groups(&datastore, &ns, &reach)? {
        let times = datastore.snapshot_times(&ns, &group)?;
        // the newest finished one, or else the newest; without a look at the others
        let snapshots = || times.iter().map(|time| group.snapshot(*time));
        let shown = snapshots()
            .find(|snapshot| datastore.is_finished(&ns, snapshot))
            .or_else(|| snapshots().next());
        let shown = match shown.map(|snapshot| datastore.snapshot_info(&ns, &snapshot)) {
            Some(Ok(info)) => Some(info),
            // removed since it was listed
            Some(Err(err)) if err.is_not_found() => continue,
            Some(Err(err)) => return Err(err.into()),
            None => None,
        };
        let notes = datastore.group_notes(&ns, &group).ok().flatten();
        list.push(GroupItem {
            backup_type: group.ty,
            backup_id: group.id.clone(),
            last_backup: shown.as_ref().map_or(0, |info| info.snapshot.time.epoch()),
            backup_count: times.len() as u64,
            files: shown.map(|info| info.files).unwrap_or_default(),
            owner: Some(owner),
            comment: notes.as_deref().and_then(first_line),
        });
    }
    Reply::data(&list)
}

fn first_line(notes: &str) -> Option<String> {
    notes
        .lines()
        .next()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
}

fn snapshots(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, ns) = (store(params)?, namespace(params)?);
    let (ty, id) = (some_type(params)?, some_id(params)?);
    let reach = list_reach(context, params)?;
    let datastore = context
        .server()
        .datastores()
        .lookup(&store, Operation::Read)?;
    let (mut groups, mut owners) = (Vec::new(), Vec::new());
    for (group, owner) in visible_groups(&datastore, &ns, &reach)? {
        if ty.is_none_or(|ty| ty == group.ty) && id.as_ref().is_none_or(|id| *id == group.id) {
            groups.push(group);
            owners.push(owner);
        }
    }
    let lock = datastore.retention_lock().in_namespace(&ns)?;
    let parts = datastore.summaries(&ns, &groups, &snapshot_summary, &|number, items| match (
        groups.get(number),
        owners.get(number),
    ) {
        (Some(group), Some(owner)) => group_items(group, owner, lock.as_ref(), items),
        _ => Ok(Bytes::new()),
    })?;
    let mut json = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
    json.retain(|part| !part.is_empty());
    if let Some(first) = json.first_mut() {
        // the comma before the first item
        *first = first.slice(1..);
    }
    json.insert(0, Bytes::from_static(b"["));
    json.push(Bytes::from_static(b"]"));
    Ok(Reply::json(json))
}

/// The items of a group's snapshots, each after a comma.
fn group_items(
    group: &BackupGroup,
    owner: &AuthId,
    lock: Option<&NamespaceLock>,
    items: &mut dyn Iterator<Item = &str>,
) -> Result<Bytes, ApiError> {
    let owner = serde_json::to_string(owner)?;
    let mut json = Vec::new();
    // each is an object, which the owner completes: it can change without a trace in the snapshot's directory
    for item in items.filter_map(|item| item.strip_suffix('}')) {
        json.push(b',');
        json.extend_from_slice(item.as_bytes());
        json.extend_from_slice(b",\"owner\":");
        json.extend_from_slice(owner.as_bytes());
        if let Some(lock) = lock
            && let Some(until) = locked_until(lock, group, item)?
        {
            json.extend_from_slice(format!(",\"locked-until\":{until}").as_bytes());
        }
        json.push(b'}');
    }
    Ok(json.into())
}

/// Until when a retention lock keeps a snapshot, given the begin of its object: the time moves on without a trace in the
/// snapshot's directory.
fn locked_until(
    lock: &NamespaceLock,
    group: &BackupGroup,
    item: &str,
) -> Result<Option<i64>, ApiError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Timed {
        backup_time: BackupTime,
    }
    let Timed { backup_time } = serde_json::from_str(&format!("{item}}}"))?;
    let locked = lock.locked(&group.snapshot(backup_time))?;
    Ok(locked.map(|locked| locked.until))
}

/// The text of a snapshot that is remembered: its item without its owner, as JSON.
pub fn snapshot_summary(info: &SnapshotInfo, manifest: Option<(&Manifest, u64)>) -> String {
    serde_json::to_string(&snapshot_item(info, manifest)).unwrap_or_default()
}

/// A snapshot without its owner.
fn snapshot_item(info: &SnapshotInfo, manifest: Option<(&Manifest, u64)>) -> SnapshotItem {
    let snapshot = &info.snapshot;
    let mut item = SnapshotItem {
        backup_type: snapshot.group.ty,
        backup_id: snapshot.group.id.clone(),
        backup_time: snapshot.time,
        comment: None,
        verification: None,
        fingerprint: None,
        files: info.files.iter().map(|name| unlisted(name)).collect(),
        size: None,
        owner: None,
        protected: info.protected,
    };
    let Some((manifest, size)) = manifest else {
        return item;
    };
    item.files = file_items(manifest, size, &info.files);
    item.size = Some(
        item.files
            .iter()
            .filter_map(|file| file.size)
            .fold(0, u64::saturating_add),
    );
    item.comment = first_line(manifest.notes());
    item.fingerprint = manifest.fingerprint().ok().flatten();
    item.verification = manifest.verify_state().and_then(|verify| {
        let state = match verify.state {
            backstop_format::manifest::VerifyResult::Ok => VerifyState::Ok,
            backstop_format::manifest::VerifyResult::Failed => VerifyState::Failed,
        };
        Some(SnapshotVerification {
            upid: verify.upid.parse().ok()?,
            state,
        })
    });
    item
}

fn files(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, ns, snapshot) = (store(params)?, namespace(params)?, snapshot(params)?);
    let full = Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_READ);
    let reach = Reach::of(context, &store, &ns, full, Privileges::DATASTORE_BACKUP)?;
    let datastore = context
        .server()
        .datastores()
        .lookup(&store, Operation::Read)?;
    reach.check_group(&datastore, &ns, &snapshot.group)?;
    let info = find_snapshot(&datastore, &ns, &snapshot)?;
    let (manifest, size) = datastore.load_manifest(&ns, &snapshot).map_err(not_found)?;
    Reply::data(&file_items(&manifest, size, &info.files))
}
