//! Removing old snapshots by retention rules.

use std::sync::mpsc;

use backstop_calendar::retention::{KeepOptions, Mark, Verdict};
use backstop_datastore::{DatastoreError, Progress, PrunedSnapshot};
use backstop_types::record::PruneItem;
use backstop_types::schema::Property;
use backstop_types::{BackupGroup, Namespace, Operation, Privileges, Snapshot};
use jiff::tz::TimeZone;

use super::parameters::{
    DRY_RUN, GROUP_ID, KEEP_DAILY, KEEP_HOURLY, KEEP_LAST, KEEP_MONTHLY, KEEP_WEEKLY, KEEP_YEARLY,
    MAX_DEPTH, NS, REASONS, STORE, TYPE, USE_TASK, group, max_depth, namespace, store,
};
use super::reach::Reach;
use super::{content, not_found};
use crate::datastores::DatastoreHandle;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Method, Params, RequestContext};
use crate::task::{TaskContext, TaskFailure, TaskSpec};

const GROUP: &[Property] = &[
    STORE,
    NS,
    GROUP_ID,
    TYPE,
    DRY_RUN,
    REASONS,
    USE_TASK,
    KEEP_LAST,
    KEEP_HOURLY,
    KEEP_DAILY,
    KEEP_WEEKLY,
    KEEP_MONTHLY,
    KEEP_YEARLY,
];
const DATASTORE: &[Property] = &[
    STORE,
    NS,
    MAX_DEPTH,
    DRY_RUN,
    KEEP_LAST,
    KEEP_HOURLY,
    KEEP_DAILY,
    KEEP_WEEKLY,
    KEEP_MONTHLY,
    KEEP_YEARLY,
];

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        content(
            Method::Post,
            "/admin/datastore/{store}/prune",
            "Prunes a group.",
            GROUP,
            prune,
        ),
        content(
            Method::Post,
            "/admin/datastore/{store}/prune-datastore",
            "Prunes all groups of a namespace.",
            DATASTORE,
            prune_datastore,
        ),
    ]
}

/// The retention rules among the parameters.
///
/// # Errors
/// When a number is negative; the schemas exclude that.
pub fn keep_options(params: &Params) -> Result<KeepOptions, ApiError> {
    Ok(KeepOptions {
        last: params.unsigned("keep-last")?,
        hourly: params.unsigned("keep-hourly")?,
        daily: params.unsigned("keep-daily")?,
        weekly: params.unsigned("keep-weekly")?,
        monthly: params.unsigned("keep-monthly")?,
        yearly: params.unsigned("keep-yearly")?,
    })
}

/// The options as a command line would have them.
fn option_text(ns: Option<&Namespace>, depth: Option<usize>, keep: &KeepOptions) -> String {
    let ns = ns.filter(|ns| !ns.is_root());
    let ns = ns.map(|ns| format!("--ns {ns}"));
    let depth = depth.map(|depth| format!("--max-depth {depth}"));
    let rules = keep.rules();
    let rules = rules
        .iter()
        .filter_map(|(rule, count)| count.map(|count| format!("--{} {count}", rule.as_str())));
    let options: Vec<String> = ns.into_iter().chain(depth).chain(rules).collect();
    options.join(" ")
}

fn item(ns: &Namespace, snapshot: &Snapshot, verdict: Verdict, reasons: bool) -> PruneItem {
    PruneItem {
        backup_type: snapshot.group.ty,
        backup_id: snapshot.group.id.clone(),
        backup_time: snapshot.time,
        keep: verdict.mark.keeps(),
        protected: verdict.mark == Mark::Protected,
        ns: (!ns.is_root()).then(|| ns.clone()),
        reason: reasons.then(|| verdict.reason.to_string()),
    }
}

/// Pruning of one group, as a task does it.
struct GroupPrune {
    datastore: DatastoreHandle,
    ns: Namespace,
    group: BackupGroup,
    keep: KeepOptions,
    options: String,
}

impl GroupPrune {
    fn run(&self, task: &TaskContext) -> Result<Vec<PruneItem>, TaskFailure> {
        if self.keep.keeps_all() {
            task.log("No prune selection - keeping all files.");
        } else {
            task.log(format!("retention options: {}", self.options));
            let place = place(&self.datastore, &self.ns);
            task.log(format!(
                "Starting prune on {place} group \"{}\"",
                self.group
            ));
        }
        let zone = TimeZone::system();
        let mut items = Vec::new();
        self.datastore
            .prune_group(&self.ns, &self.group, &self.keep, &zone, false, |pruned| {
                let mark = pruned.verdict.mark.as_str();
                task.log(format!("{} {mark}", pruned.snapshot));
                warn_if_kept(&self.datastore, &self.ns, &pruned, task);
                items.push(item(&self.ns, &pruned.snapshot, pruned.verdict, false));
                task.check_abort()
            })?;
        Ok(items)
    }
}

fn place(datastore: &DatastoreHandle, ns: &Namespace) -> String {
    if ns.is_root() {
        format!("datastore '{}', root namespace", datastore.name())
    } else {
        format!("datastore '{}', namespace '{ns}'", datastore.name())
    }
}

fn warn_if_kept(
    datastore: &DatastoreHandle,
    ns: &Namespace,
    pruned: &PrunedSnapshot,
    task: &TaskContext,
) {
    if let Err(err) = &pruned.outcome {
        let path = datastore.snapshot_path(ns, &pruned.snapshot);
        task.warn(format!(
            "failed to remove dir {path:?}: {}",
            crate::http::error::chain(err)
        ));
    }
}

fn prune(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, ns, group) = (store(params)?, namespace(params)?, group(params)?);
    let (reach, datastore) = Reach::open(
        context,
        &store,
        &ns,
        Privileges::DATASTORE_MODIFY,
        Privileges::DATASTORE_PRUNE,
        Operation::Write,
    )?;
    if !datastore.group_exists(&ns, &group) {
        return Err(ApiError::bad_request(super::ENOENT));
    }
    reach.check_group(&datastore, &ns, &group)?;
    let keep = keep_options(params)?;
    if params.bool("dry-run", false) {
        let reasons = params.bool("reasons", false);
        let selection = datastore
            .prune_selection(&ns, &group, &keep, &TimeZone::system())
            .map_err(not_found)?;
        return Reply::data(
            &selection
                .iter()
                .map(|(snapshot, verdict)| item(&ns, snapshot, *verdict, reasons))
                .collect::<Vec<_>>(),
        );
    }
    let spec =
        TaskSpec::new("prune", format!("{store}:{ns}:{group}"), context.auth_id()?).on(&datastore);
    let options = option_text(None, None, &keep);
    let work = GroupPrune {
        datastore,
        ns,
        group,
        keep,
        options,
    };
    let (sender, result) = mpsc::sync_channel(1);
    let upid = context.server().tasks().spawn_thread(spec, move |task| {
        let items = work.run(task);
        let outcome = items.as_ref().map(|_| ()).map_err(TaskFailure::clone);
        // nobody waits for the list of a task
        let _ = sender.send(items);
        outcome
    })?;
    if params.bool("use-task", false) {
        return Reply::data(&upid.to_string());
    }
    let items = result
        .recv()
        .map_err(|_| ApiError::bad_request("the prune task ended without a result"))?;
    Reply::data(&items.map_err(|failure| ApiError::bad_request(failure.to_string()))?)
}

fn prune_datastore(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (store, ns) = (store(params)?, namespace(params)?);
    let (full, owned) = (Privileges::DATASTORE_MODIFY, Privileges::DATASTORE_PRUNE);
    Reach::of(context, &store, &ns, full, owned)?;
    let datastore = context
        .server()
        .datastores()
        .lookup(&store, Operation::Write)?;
    let keep = keep_options(params)?;
    let depth = max_depth(params);
    let mut groups = Vec::new();
    for ns in datastore.namespaces(&ns, depth).map_err(not_found)? {
        // privileges can differ below
        let Ok(reach) = Reach::of(context, &store, &ns, full, owned) else {
            continue;
        };
        for group in datastore.groups(&ns)? {
            if reach.is_full()
                || datastore
                    .owner(&ns, &group)
                    .is_ok_and(|owner| reach.admits(&owner))
            {
                groups.push((ns.clone(), group));
            }
        }
    }
    let work = DatastorePrune {
        options: option_text(Some(&ns), depth, &keep),
        start: ns.clone(),
        depth,
        datastore,
        groups,
        keep,
        dry_run: params.bool("dry-run", false),
    };
    let spec =
        TaskSpec::new("prune", format!("{store}:{ns}"), context.auth_id()?).on(&work.datastore);
    let upid = context
        .server()
        .tasks()
        .spawn_thread(spec, move |task| work.run(task))?;
    Reply::data(&upid.to_string())
}

/// Pruning of many groups, as a task does it.
pub struct DatastorePrune {
    datastore: DatastoreHandle,
    start: Namespace,
    depth: Option<usize>,
    groups: Vec<(Namespace, BackupGroup)>,
    keep: KeepOptions,
    options: String,
    dry_run: bool,
}

impl DatastorePrune {
    /// All groups of a namespace and of those below it, whoever owns them.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn of_all_groups(
        datastore: DatastoreHandle,
        ns: Namespace,
        depth: Option<usize>,
        keep: KeepOptions,
    ) -> Result<Self, DatastoreError> {
        let mut groups = Vec::new();
        for ns in datastore.namespaces(&ns, depth)? {
            let of_ns = datastore.groups(&ns)?;
            groups.extend(of_ns.into_iter().map(|group| (ns.clone(), group)));
        }
        Ok(Self {
            options: option_text(Some(&ns), depth, &keep),
            start: ns,
            depth,
            datastore,
            groups,
            keep,
            dry_run: false,
        })
    }

    /// Does it. What cannot be removed is a warning.
    ///
    /// # Errors
    /// When the task is asked to end.
    pub fn run(&self, task: &TaskContext) -> Result<(), TaskFailure> {
        let depth = match self.depth {
            Some(0) => "non-recursive".to_owned(),
            Some(depth) if depth < Namespace::MAX_DEPTH => format!("to depth {depth}"),
            _ => "down to full depth".to_owned(),
        };
        task.log(format!(
            "Starting datastore prune on {}, {depth}",
            place(&self.datastore, &self.start)
        ));
        if self.dry_run {
            task.log("(dry test run)");
        }
        if self.keep.keeps_all() {
            task.warn("No prune selection - keeping all files.");
        } else {
            task.log(format!("retention options: {}", self.options));
        }
        let zone = TimeZone::system();
        let progress = Progress::new("groups", self.groups.len() as u64);
        for (done, (ns, group)) in (0..).zip(&self.groups) {
            task.check_abort()?;
            progress.tell(done, task);
            task.log(format!("Pruning group {ns}:\"{group}\""));
            let pruned = self.datastore.prune_group(
                ns,
                group,
                &self.keep,
                &zone,
                self.dry_run,
                |snapshot| {
                    self.report(ns, &snapshot, task);
                    task.check_abort()
                },
            );
            // what cannot be pruned must not keep the rest from being pruned
            if let Err(failure) = pruned {
                task.check_abort()?;
                task.warn(format!(
                    "unable to prune group {ns}:\"{group}\" - {failure}"
                ));
            }
        }
        Ok(())
    }

    fn report(&self, ns: &Namespace, pruned: &PrunedSnapshot, task: &TaskContext) {
        let would = if self.dry_run { "would " } else { "" };
        let what = match pruned.verdict.mark {
            Mark::Remove => "remove",
            Mark::Protected => "keep protected",
            Mark::Locked => "keep locked",
            Mark::Keep => "keep",
            Mark::KeepPartial => "keep partial",
        };
        let why = if self.dry_run {
            format!(" ({})", pruned.verdict.reason)
        } else {
            String::new()
        };
        task.log(format!("{would}{what} {}{why}", pruned.snapshot));
        warn_if_kept(&self.datastore, ns, pruned, task);
    }
}
