//! A push from its preparation to its end: namespaces one after the other, groups of a namespace several at the same time.
//!
//! What is new at the target belongs to the account of the remote. The owner of the job only lends its privileges here: what it
//! may read here is pushed, to where it may push.

mod chunks;
mod dry_run;
mod group;
mod snapshot;
mod target;
mod vanished;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backstop_format::CryptKey;
use backstop_types::record::SyncJobConfig;
use backstop_types::{AuthId, BackupGroup, GroupFilter, Namespace, Operation, Privileges};
use futures_util::{StreamExt as _, stream};

use self::group::GroupPush;
use self::target::{GroupThere, PushTarget};
use super::error::{Result, SyncError};
use super::in_flight::{GROUPS_AT_ONCE, InFlight};
use super::keys;
use super::namespaces::{self, Mapping, named};
use super::place::Place;
use super::report::{Direction, Report};
use super::selection::Rules;
use super::source::Source;
use super::source_local::LocalSource;
use crate::config::remote::RemoteAccount;
use crate::datastores::DatastoreHandle;
use crate::jobs::StartError;
use crate::server::Server;
use crate::task::{TaskContext, TaskFailure};

/// A push that can begin: its source is there, and it is known where to push to.
pub struct Push {
    server: Arc<Server>,
    config: SyncJobConfig,
    owner: AuthId,
    source: DatastoreHandle,
    account: RemoteAccount,
    /// What is plain here is encrypted with it on its way.
    key: Option<Arc<CryptKey>>,
}

impl Push {
    /// Looks up what a push needs. The privileges of `owner` count. Blocking.
    ///
    /// # Errors
    /// The source is not there or not open for reading, the remote is not known, or `owner` may not use the key.
    pub fn prepare(
        server: &Arc<Server>,
        config: SyncJobConfig,
        owner: AuthId,
    ) -> std::result::Result<Self, StartError> {
        let source = server.datastores().lookup(&config.store, Operation::Read)?;
        let name = config.remote.as_ref();
        let name = name.ok_or_else(|| StartError::Unable("missing required remote".to_owned()))?;
        let account = server.remote_account(name.as_str());
        let account =
            account.map_err(|error| StartError::Unable(crate::http::error::chain(&error)))?;
        let key = config.active_encryption_key.as_deref();
        let key = key.map(|id| keys::load(server, &owner, id, true));
        Ok(Self {
            server: Arc::clone(server),
            owner,
            source,
            account,
            key: key.transpose()?.map(Arc::new),
            config,
        })
    }

    /// The server that runs it.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// What is pushed.
    pub fn config(&self) -> &SyncJobConfig {
        &self.config
    }

    /// The datastore that is read from.
    pub fn source(&self) -> &DatastoreHandle {
        &self.source
    }

    /// Tells what a run would do, and does nothing.
    ///
    /// # Errors
    /// Something could not be pushed; the log says what.
    pub(super) async fn run_dry(self, task: &TaskContext) -> std::result::Result<(), TaskFailure> {
        let report = Arc::new(Report::new(Direction::Push));
        let run = Run::begin(self, report, task).await?;
        dry_run::tell(&run).await?;
        run.report.end()
    }

    /// Pushes.
    ///
    /// # Errors
    /// Something could not be pushed; the log says what.
    pub(super) async fn run(
        self,
        report: &Arc<Report>,
        task: &TaskContext,
    ) -> std::result::Result<(), TaskFailure> {
        let run = Run::begin(self, Arc::clone(report), task).await?;
        run.push().await?;
        run.report.finish(run.config.remove_vanished, task)
    }
}

/// A push under way.
pub(super) struct Run {
    pub server: Arc<Server>,
    pub config: SyncJobConfig,
    pub owner: AuthId,
    pub local: LocalSource,
    /// The same, asked as any source.
    pub source: Source,
    pub target: PushTarget,
    pub rules: Rules,
    pub mapping: Mapping,
    pub key: Option<Arc<CryptKey>>,
    pub in_flight: InFlight,
    pub report: Arc<Report>,
    pub task: TaskContext,
    /// Where it is noted what could not be sent.
    pub records: PathBuf,
}

impl Run {
    async fn begin(mut push: Push, report: Arc<Report>, task: &TaskContext) -> Result<Self> {
        let log = task.clone();
        push.account.pins.tell(move |change| log.log(change));
        let local = LocalSource::new(&push.server, push.source, &push.owner);
        let target = PushTarget::connect(&push.account, &push.config).await?;
        Ok(Self {
            records: push.server.roots().var_lib().join("sync"),
            rules: Rules::of(&push.config),
            mapping: Mapping {
                source: push.config.ns.clone(),
                target: push.config.remote_ns.clone(),
            },
            server: push.server,
            config: push.config,
            owner: push.owner,
            source: Source::Local(local.clone()),
            local,
            target,
            key: push.key,
            in_flight: InFlight::new(),
            report,
            task: task.clone(),
        })
    }

    /// Notes an error in log and report; the run goes on.
    pub fn failed(&self, text: &str) {
        // What is left of it is not counted.
        self.report.unseen();
        self.report.failed(text);
        self.task.log(text);
    }

    /// Whether the owner of the job may do something in a namespace of the target, as far as this server has a say.
    pub fn require(&self, namespace: &Namespace, privilege: Privileges) -> Result<()> {
        let path = self.target.acl_path(namespace);
        let granted = self.server.privileges(&self.owner, &path);
        if granted.contains(privilege) {
            return Ok(());
        }
        Err(SyncError::Content(format!(
            "missing permissions '{privilege}' on '{path}' for '{}'",
            self.owner
        )))
    }

    async fn push(&self) -> Result<()> {
        let namespaces = self.mapped_namespaces().await?;
        let mut there = self.target.namespaces().await?;
        for namespace in &namespaces {
            self.push_namespace(namespace, &mut there, namespaces.len() > 1)
                .await;
        }
        self.report.complete();
        if self.config.remove_vanished {
            vanished::remove_namespaces(self, there).await?;
        }
        if !self.target.counts_removals() && self.config.remove_vanished {
            self.task.log(
                "Older api version on remote detected, deletion statistics might be incomplete",
            );
        }
        Ok(())
    }

    /// The namespaces that are pushed, parents first. All of them fit below the anchor at the target.
    async fn mapped_namespaces(&self) -> Result<Vec<Namespace>> {
        let mut namespaces = self.namespaces().await?;
        self.mapping
            .check_depth(&namespaces)
            .map_err(SyncError::Broken)?;
        namespaces::sort(&mut namespaces);
        Ok(namespaces)
    }

    /// The namespaces of which the owner of the job may read something.
    async fn namespaces(&self) -> Result<Vec<Namespace>> {
        let (anchor, depth) = (&self.config.ns, self.config.max_depth);
        let found = self.local.namespaces(anchor, depth).await;
        let mut found = found.map_err(|error| {
            SyncError::Broken(format!(
                "unable to list the namespaces of datastore '{}' - {error}",
                self.config.store
            ))
        })?;
        found.retain(|namespace| {
            let path = namespace.acl_path(&self.config.store);
            let granted = self.server.privileges(&self.owner, &path);
            granted.contains(Privileges::DATASTORE_READ)
                || granted.contains(Privileges::DATASTORE_BACKUP)
        });
        Ok(found)
    }

    async fn push_namespace(
        &self,
        source: &Namespace,
        there: &mut Vec<Namespace>,
        is_one_of_several: bool,
    ) {
        let (from, to) = (&self.config.store, &self.config.remote_store);
        self.task.log("----");
        let target = match self.mapping.map(source) {
            Ok(target) => target,
            Err(reason) => {
                return self.failed(&format!("Cannot sync {} - {reason}", named(source)));
            }
        };
        self.task.log(format!(
            "Syncing datastore '{from}', {} into datastore '{to}', {}",
            named(source),
            named(&target)
        ));
        if let Err(error) = self.make_namespace(&target, there).await {
            return self.failed(&format!(
                "Cannot sync {} into {} - {error}",
                named(source),
                named(&target)
            ));
        }
        if let Err(error) = self.push_groups(source, &target).await {
            return self.failed(&format!(
                "Encountered errors while syncing {} - {error}",
                named(source)
            ));
        }
        if is_one_of_several {
            self.task.log(self.report.progress(source));
        }
    }

    /// Makes a namespace at the target, and those above it that are missing.
    async fn make_namespace(&self, wanted: &Namespace, there: &mut Vec<Namespace>) -> Result<()> {
        for missing in missing_namespaces(wanted, there)? {
            self.require(wanted, Privileges::REMOTE_DATASTORE_MODIFY)?;
            let parent = missing.parent().unwrap_or_else(Namespace::root);
            let name = missing.components().last().unwrap_or_default();
            self.target.make_namespace(&parent, name).await?;
            self.task.log(format!(
                "Successfully created new namespace {missing} on remote"
            ));
            there.push(missing);
        }
        self.require(wanted, Privileges::REMOTE_DATASTORE_BACKUP)
    }

    /// The groups of a namespace here that are pushed.
    async fn selected_groups(&self, source: &Namespace) -> Result<Vec<BackupGroup>> {
        let listed = self.source.groups(source).await?.into_iter();
        let mut groups: Vec<BackupGroup> = listed.map(|listed| listed.group).collect();
        let total = groups.len();
        groups.retain(|group| GroupFilter::selects(&self.config.group_filter, group));
        groups.sort();
        self.task.log(format!(
            "Found {} groups to sync (out of {total} total)",
            groups.len()
        ));
        Ok(groups)
    }

    async fn push_groups(&self, source: &Namespace, target: &Namespace) -> Result<()> {
        let groups = self.selected_groups(source).await?;
        let there = self.target.groups(target).await?;
        let workers = self.config.worker_threads;
        let workers = workers.unwrap_or(GROUPS_AT_ONCE).max(1);
        let place = Place {
            source,
            target,
            groups: groups.len(),
            done: AtomicUsize::new(0),
        };
        stream::iter(groups)
            .map(|group| self.push_group(&place, &there, group))
            .buffer_unordered(workers)
            .collect::<()>()
            .await;
        if self.config.remove_vanished {
            vanished::remove_groups(self, &place, &there).await?;
        }
        Ok(())
    }

    async fn push_group(
        &self,
        place: &Place<'_>,
        there: &HashMap<BackupGroup, GroupThere>,
        group: BackupGroup,
    ) {
        if let Err(error) = GroupPush::run(self, place, &group, there.get(&group)).await {
            self.failed(&format!("sync group {group} failed - {error}"));
        }
        self.report.groups.fetch_add(1, Ordering::Relaxed);
        place.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// A namespace and those above it that are not among `there`, parents first.
fn missing_namespaces(wanted: &Namespace, there: &[Namespace]) -> Result<Vec<Namespace>> {
    let mut missing = Vec::new();
    let mut current = Namespace::root();
    for component in wanted.components() {
        current = current
            .child(component)
            .map_err(|error| SyncError::Content(error.to_string()))?;
        if !there.contains(&current) {
            missing.push(current.clone());
        }
    }
    Ok(missing)
}
