//! Starting verifications.

use backstop_datastore::{Progress, VerifyAge, VerifyOutcome, VerifyRun, VerifyThreads};
use backstop_types::schema::Property;
use backstop_types::{
    BackupGroup, BackupTime, BackupType, Namespace, Operation, Privileges, Snapshot,
};

use super::parameters::{
    IGNORE_VERIFIED, MAX_DEPTH, NS, OUTDATED_AFTER, READ_THREADS, SOME_ID, SOME_TIME, SOME_TYPE,
    STORE, VERIFY_THREADS, max_depth, namespace, some_id, some_type, store,
};
use super::reach::Reach;
use super::{content, not_found};
use crate::datastores::DatastoreHandle;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Method, Params, RequestContext};
use crate::task::{TaskContext, TaskFailure, TaskSpec};

const PARAMS: &[Property] = &[
    STORE,
    NS,
    SOME_TYPE,
    SOME_ID,
    SOME_TIME,
    IGNORE_VERIFIED,
    OUTDATED_AFTER,
    MAX_DEPTH,
    READ_THREADS,
    VERIFY_THREADS,
];

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    vec![content(
        Method::Post,
        "/admin/datastore/{store}/verify",
        "Verifies a snapshot, a group, or all below a namespace.",
        PARAMS,
        verify,
    )]
}

/// What to verify.
enum Scope {
    Snapshot(Namespace, Snapshot),
    Groups(Vec<(Namespace, BackupGroup)>),
}

fn verify(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, ns) = (store(params)?, namespace(params)?);
    let (full, owned) = (Privileges::DATASTORE_VERIFY, Privileges::DATASTORE_BACKUP);
    let reach = Reach::of(context, &store, &ns, full, owned)?;
    let datastore = context
        .server()
        .datastores()
        .lookup(&store, Operation::Read)?;
    let path = ns.to_path();
    let (worker_type, worker_id, scope) = match (
        some_type(params)?,
        some_id(params)?,
        params.integer("backup-time"),
    ) {
        (Some(ty), Some(id), time) => {
            let group = BackupGroup::new(ty, id);
            if !reach.is_full() {
                reach.check_group(&datastore, &ns, &group)?;
            }
            let id = format!("{store}:{path}/{group}");
            match time {
                Some(time) => {
                    let time = BackupTime::new(time)
                        .map_err(|err| ApiError::parameter("backup-time", err.reason))?;
                    let id = format!("{id}/{:08X}", time.epoch());
                    (
                        "verify_snapshot",
                        id,
                        Scope::Snapshot(ns, group.snapshot(time)),
                    )
                }
                None => ("verify_group", id, Scope::Groups(vec![(ns, group)])),
            }
        }
        (None, None, None) => {
            let mut groups = Vec::new();
            for ns in datastore
                .namespaces(&ns, max_depth(params))
                .map_err(not_found)?
            {
                let Ok(reach) = Reach::of(context, &store, &ns, full, owned) else {
                    continue;
                };
                for group in datastore.groups(&ns)? {
                    if is_benchmark(&group) {
                        continue;
                    }
                    if reach.is_full()
                        || datastore
                            .owner(&ns, &group)
                            .is_ok_and(|owner| reach.admits(&owner))
                    {
                        groups.push((ns.clone(), group));
                    }
                }
            }
            let id = if path.is_empty() {
                store.to_string()
            } else {
                format!("{store}:{path}")
            };
            ("verify", id, Scope::Groups(groups))
        }
        _ => {
            return Err(ApiError::bad_request(
                "parameters do not specify a backup group or snapshot",
            ));
        }
    };
    let age = VerifyAge {
        ignore_verified: params.bool("ignore-verified", true),
        outdated_after: params.integer("outdated-after"),
    };
    let threads = |name: &str| {
        params
            .integer(name)
            .and_then(|count| usize::try_from(count).ok())
    };
    let run = Verification {
        datastore,
        scope,
        age,
        threads: VerifyThreads {
            read: threads("read-threads"),
            verify: threads("verify-threads"),
        },
    };
    let spec = TaskSpec::new(worker_type, worker_id, context.auth_id()?).on(&run.datastore);
    let upid = context
        .server()
        .tasks()
        .spawn_thread(spec, move |task| run.run(task, &mut Vec::new()))?;
    Reply::data(&upid.to_string())
}

/// The client's benchmark leaves an unfinished backup of this name behind.
fn is_benchmark(group: &BackupGroup) -> bool {
    group.ty == BackupType::Host && group.id.as_str() == "benchmark"
}

struct Verification {
    datastore: DatastoreHandle,
    scope: Scope,
    age: VerifyAge,
    threads: VerifyThreads,
}

/// What came of the snapshots of a run.
#[derive(Default)]
struct Results {
    failed: Vec<String>,
    /// Snapshots of which nothing is known because they were in use.
    in_use: usize,
}

/// Where a run is.
struct GroupPosition {
    /// Groups before this one.
    number: usize,
    of: usize,
}

impl GroupPosition {
    /// How far the run is when `done` of the group's `total` snapshots are verified.
    fn share(&self, done: usize, total: usize) -> String {
        let (number, of) = (self.number, self.of);
        let percent = (number as f64 + done as f64 / total as f64) * 100.0 / of as f64;
        if done == total {
            format!(
                "percentage done: {percent:.2}% ({}/{of} groups)",
                number + 1
            )
        } else {
            format!(
                "percentage done: {percent:.2}% ({number}/{of} groups, {done}/{total} snapshots in group #{})",
                number + 1
            )
        }
    }
}

impl Verification {
    /// What failed is added to `failed`.
    fn run(&self, task: &TaskContext, failed: &mut Vec<String>) -> Result<(), TaskFailure> {
        let mut results = Results::default();
        let run = self.datastore.start_verification(self.threads);
        let threads = format!(
            "using {} read and {} verify thread(s)",
            run.readers(),
            run.checkers()
        );
        match &self.scope {
            Scope::Snapshot(ns, snapshot) => {
                task.log(threads);
                self.snapshot(ns, snapshot, &run, task, &mut results)?;
            }
            Scope::Groups(groups) => {
                task.log(format!("verify datastore {}", self.datastore.name()));
                task.log(format!("found {} groups", groups.len()));
                task.log(threads);
                let progress = Progress::new("groups", groups.len() as u64);
                for (number, (ns, group)) in groups.iter().enumerate() {
                    progress.tell(number as u64, task);
                    let position = GroupPosition {
                        number,
                        of: groups.len(),
                    };
                    self.group(ns, group, &position, &run, task, &mut results)?;
                }
            }
        }
        if results.in_use > 0 {
            task.log(format!(
                "{} snapshots were in use and not verified",
                results.in_use
            ));
        }
        if results.failed.is_empty() {
            return Ok(());
        }
        task.log("Failed to verify the following snapshots/groups:");
        results
            .failed
            .iter()
            .for_each(|name| task.log(format!("\t{name}")));
        failed.extend(results.failed);
        Err(TaskFailure::new(
            "verification failed - please check the log for details",
        ))
    }

    fn name(&self, ns: &Namespace, what: &str) -> String {
        let path = ns.to_path();
        let slash = if path.is_empty() { "" } else { "/" };
        format!("{}:{path}{slash}{what}", self.datastore.name())
    }

    fn group(
        &self,
        ns: &Namespace,
        group: &BackupGroup,
        position: &GroupPosition,
        run: &VerifyRun,
        task: &TaskContext,
        results: &mut Results,
    ) -> Result<(), TaskFailure> {
        let name = self.name(ns, &group.to_string());
        let snapshots = match self.datastore.snapshots(ns, group) {
            Ok(snapshots) => snapshots,
            Err(err) => {
                // a group that cannot be listed is not a verified one
                task.log(format!(
                    "verify group {name} - unable to list backups: {err}"
                ));
                results.failed.push(group.to_string());
                return Ok(());
            }
        };
        task.log(format!(
            "verify group {name} ({} snapshots)",
            snapshots.len()
        ));
        for (done, info) in (1..).zip(&snapshots) {
            self.snapshot(ns, &info.snapshot, run, task, results)?;
            task.log(position.share(done, snapshots.len()));
        }
        Ok(())
    }

    fn snapshot(
        &self,
        ns: &Namespace,
        snapshot: &Snapshot,
        run: &VerifyRun,
        task: &TaskContext,
        results: &mut Results,
    ) -> Result<(), TaskFailure> {
        task.check_abort()?;
        let name = self.name(ns, &snapshot.to_string());
        if !self.datastore.snapshot_exists(ns, snapshot) {
            task.log(format!(
                "SKIPPED: verify {name} - snapshot does not exist (anymore)."
            ));
            return Ok(());
        }
        if let Ok((manifest, _)) = self.datastore.load_manifest(ns, snapshot)
            && !self.age.is_due(&manifest)
        {
            task.log(format!("SKIPPED: verify {name} (recently verified)"));
            return Ok(());
        }
        let upid = task.upid().to_string();
        let outcome = self
            .datastore
            .verify_snapshot(ns, snapshot, &upid, run, task)?;
        match outcome {
            VerifyOutcome::Ok => {}
            VerifyOutcome::Failed => results.failed.push(snapshot.to_string()),
            VerifyOutcome::Skipped => results.in_use += 1,
        }
        Ok(())
    }
}

/// Verifies all groups of a namespace and of those below it, whoever owns them: the work of a job. What failed is added to `failed`.
pub fn verify_groups(
    datastore: DatastoreHandle,
    ns: &Namespace,
    depth: Option<usize>,
    age: VerifyAge,
    threads: VerifyThreads,
    task: &TaskContext,
    failed: &mut Vec<String>,
) -> Result<(), TaskFailure> {
    let mut groups = Vec::new();
    for ns in datastore.namespaces(ns, depth)? {
        let of_ns = datastore.groups(&ns)?.into_iter();
        let wanted = of_ns.filter(|group| !is_benchmark(group));
        groups.extend(wanted.map(|group| (ns.clone(), group)));
    }
    let scope = Scope::Groups(groups);
    Verification {
        datastore,
        scope,
        age,
        threads,
    }
    .run(task, failed)
}

/// Verifies one snapshot now, whatever is known of it: the work of a task.
pub fn verify_new(
    datastore: DatastoreHandle,
    ns: Namespace,
    snapshot: Snapshot,
    task: &TaskContext,
) -> Result<(), TaskFailure> {
    let scope = Scope::Snapshot(ns, snapshot);
    Verification {
        datastore,
        scope,
        age: VerifyAge::default(),
        threads: VerifyThreads::default(),
    }
    .run(task, &mut Vec::new())
}
