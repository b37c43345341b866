//! A pull from its preparation to its end: namespaces one after the other, groups of a namespace several at the same time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backstop_types::record::SyncJobConfig;
use backstop_types::{AuthId, BackupGroup, GroupFilter, Namespace, Operation, Privileges};
use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;

use super::decryption::DecryptedChunks;
use super::error::{Result, SyncError};
use super::fetched::FetchedChunks;
use super::group::GroupPull;
use super::keys;
use super::namespaces::{self, Mapping, named};
use super::place::Place;
use super::report::{Direction, Report};
use super::run::other_side;
use super::selection::Rules;
use super::source::Source;
use super::source_local::LocalSource;
use super::source_remote::RemoteSource;
use super::target::Target;
use super::treatment::PullKey;
use super::vanished;
use crate::config::remote::RemoteAccount;
use crate::datastores::DatastoreHandle;
use crate::jobs::StartError;
use crate::server::Server;
use crate::task::{TaskContext, TaskFailure};

/// How many chunks are on their way in a whole run; bounds its memory.
const CHUNKS_IN_FLIGHT: usize = 64;

enum Origin {
    Remote(Box<RemoteAccount>),
    Local(Box<DatastoreHandle>),
}

/// A pull that can begin: its target is there, and it is known where to pull from.
pub struct Pull {
    server: Arc<Server>,
    config: SyncJobConfig,
    owner: AuthId,
    target: DatastoreHandle,
    origin: Origin,
    keys: Vec<PullKey>,
}

impl Pull {
    /// Looks up what a pull needs. New groups will belong to `owner`, whose privileges count. Blocking.
    ///
    /// # Errors
    /// The target is not there or not open for writing, the source is not known, both are the same datastore, or `owner` may not
    /// use a key.
    pub fn prepare(
        server: &Arc<Server>,
        config: SyncJobConfig,
        owner: AuthId,
    ) -> std::result::Result<Self, StartError> {
        let unable = |reason: String| StartError::Unable(reason);
        let origin = match &config.remote {
            Some(name) => {
                let account = server.remote_account(name.as_str());
                let account = account.map_err(|error| unable(crate::http::error::chain(&error)))?;
                Origin::Remote(Box::new(account))
            }
            None if config.store == config.remote_store => {
                return Err(unable("can't sync to same datastore".to_owned()));
            }
            None => {
                let datastores = server.datastores();
                let source = datastores.lookup(&config.remote_store, Operation::Read)?;
                Origin::Local(Box::new(source))
            }
        };
        let target = server
            .datastores()
            .lookup(&config.store, Operation::Write)?;
        let keys = config.associated_key.iter().map(|id| {
            let key = keys::load(server, &owner, id, false)?;
            Ok(PullKey {
                id: id.clone(),
                key: Arc::new(key),
            })
        });
        let keys = keys.collect::<std::result::Result<Vec<PullKey>, StartError>>()?;
        Ok(Self {
            server: Arc::clone(server),
            config,
            owner,
            target,
            origin,
            keys,
        })
    }

    /// What is pulled.
    pub fn config(&self) -> &SyncJobConfig {
        &self.config
    }

    /// The datastore that is written to.
    pub fn target(&self) -> &DatastoreHandle {
        &self.target
    }

    /// Pulls, until it is done or the task is stopped.
    ///
    /// # Errors
    /// Something could not be pulled; the log says what.
    pub async fn run(
        self,
        aborted: &str,
        task: &TaskContext,
    ) -> std::result::Result<(), TaskFailure> {
        let work = async {
            let run = Run::begin(self, task).await?;
            run.pull().await?;
            run.report.finish(run.config.remove_vanished, task)
        };
        tokio::select! {
            biased;
            done = work => done,
            () = task.aborted() => Err(TaskFailure::new(aborted)),
        }
    }
}

/// A pull under way.
pub(super) struct Run {
    pub server: Arc<Server>,
    pub config: SyncJobConfig,
    pub owner: AuthId,
    pub source: Source,
    /// How the source is called, for what is remembered of it.
    pub source_name: String,
    pub target: Target,
    pub rules: Rules,
    pub mapping: Mapping,
    pub fetched: FetchedChunks,
    /// Keys that decrypt what is pulled.
    pub keys: Vec<PullKey>,
    pub decrypted: DecryptedChunks,
    pub in_flight: Semaphore,
    pub report: Report,
    pub task: TaskContext,
    /// Where it is noted what was fetched.
    pub records: PathBuf,
}

impl Run {
    async fn begin(pull: Pull, task: &TaskContext) -> Result<Self> {
        let source_name = other_side(&pull.config);
        let source = match pull.origin {
            Origin::Remote(mut account) => {
                let log = task.clone();
                account.pins.tell(move |change| log.log(change));
                Source::Remote(RemoteSource::connect(&account, &pull.config).await?)
            }
            Origin::Local(handle) => {
                Source::Local(LocalSource::new(&pull.server, *handle, &pull.owner))
            }
        };
        Ok(Self {
            records: pull.server.roots().var_lib().join("sync"),
            rules: Rules::of(&pull.config),
            mapping: Mapping {
                source: pull.config.remote_ns.clone(),
                target: pull.config.ns.clone(),
            },
            server: pull.server,
            config: pull.config,
            owner: pull.owner,
            source,
            source_name,
            target: Target::new(pull.target),
            fetched: FetchedChunks::new(),
            keys: pull.keys,
            decrypted: DecryptedChunks::default(),
            in_flight: Semaphore::new(CHUNKS_IN_FLIGHT),
            report: Report::new(Direction::Pull),
            task: task.clone(),
        })
    }

    /// Notes an error in log and report; the run goes on.
    pub fn failed(&self, text: &str) {
        self.report.failed(text);
        self.task.log(text);
    }

    /// Whether the owner of the job has a privilege on a namespace of the target.
    pub fn is_granted(&self, namespace: &Namespace, privilege: Privileges) -> bool {
        let path = namespace.acl_path(&self.config.store);
        let granted = self.server.privileges(&self.owner, &path);
        granted.contains(privilege)
    }

    /// The same as an error.
    pub fn require(&self, namespace: &Namespace, privilege: Privileges) -> Result<()> {
        if self.is_granted(namespace, privilege) {
            return Ok(());
        }
        Err(SyncError::Content(format!(
            "missing permissions '{privilege}' on '{}' for '{}'",
            namespace.acl_path(&self.config.store),
            self.owner
        )))
    }

    async fn pull(&self) -> Result<()> {
        // Chunks that are stored or relied upon from now on survive a garbage collection.
        let _writer = self.target.work(|store| store.hold_writer()).await?;
        let mut namespaces = self.namespaces().await?;
        self.mapping
            .check_depth(&namespaces)
            .map_err(SyncError::Broken)?;
        namespaces::sort(&mut namespaces);
        let mut synced = Vec::new();
        for namespace in &namespaces {
            self.pull_namespace(namespace, &mut synced, namespaces.len() > 1)
                .await;
        }
        if self.config.remove_vanished {
            vanished::remove_namespaces(self, &synced).await?;
        }
        Ok(())
    }

    async fn namespaces(&self) -> Result<Vec<Namespace>> {
        let anchor = &self.config.remote_ns;
        if anchor.is_root() && self.config.max_depth == Some(0) {
            return Ok(vec![Namespace::root()]);
        }
        let found = self.source.namespaces(anchor, self.config.max_depth).await;
        let found = found
            .map_err(|error| SyncError::Broken(format!("Querying namespaces failed - {error}")))?;
        match found {
            Some(namespaces) => Ok(namespaces),
            None if anchor.is_root() && self.config.max_depth.is_none() => {
                self.task
                    .warn("WARN: Could not query remote for namespaces (404) -> temporarily switching to backwards-compat mode");
                self.task
                    .warn("WARN: Either make backwards-compat mode explicit (max-depth == 0) or upgrade remote system.");
                self.report.failed(
                    "the remote knows no namespaces; set max-depth to 0 if that is as it should be",
                );
                Ok(vec![Namespace::root()])
            }
            None => Err(SyncError::Broken(
                "Remote namespace set/recursive sync requested, but remote does not support namespaces."
                    .to_owned(),
            )),
        }
    }

    async fn pull_namespace(
        &self,
        source: &Namespace,
        synced: &mut Vec<Namespace>,
        is_one_of_several: bool,
    ) {
        let (from, to) = (&self.config.remote_store, &self.config.store);
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
        synced.push(target.clone());
        if let Err(error) = self.make_namespace(&target).await {
            return self.failed(&format!(
                "Cannot sync {} into {} - {error}",
                named(source),
                named(&target)
            ));
        }
        if let Err(error) = self.pull_groups(source, &target).await {
            return self.failed(&format!(
                "Encountered errors while syncing {} - {error}",
                named(source)
            ));
        }
        if is_one_of_several {
            self.task.log(self.report.progress(source));
        }
    }

    async fn make_namespace(&self, namespace: &Namespace) -> Result<()> {
        let wanted = namespace.clone();
        let exists = self
            .target
            .work(move |store| Ok(store.namespace_exists(&wanted)));
        if !exists.await? {
            let parent = namespace.parent().unwrap_or_else(Namespace::root);
            self.require(&parent, Privileges::DATASTORE_MODIFY)?;
            let wanted = namespace.clone();
            self.target
                .work(move |store| store.create_namespace(&wanted))
                .await?;
            self.task.log(format!("Created namespace {namespace}"));
        }
        self.require(namespace, Privileges::DATASTORE_BACKUP)
    }

    async fn pull_groups(&self, source: &Namespace, target: &Namespace) -> Result<()> {
        let mut groups = self.source.groups(source).await?;
        let total = groups.len();
        groups.retain(|group| GroupFilter::selects(&self.config.group_filter, group));
        groups.sort();
        groups.dedup();
        self.task.log(format!(
            "Found {} groups to sync (out of {total} total)",
            groups.len()
        ));
        let workers = self.config.worker_threads.unwrap_or(1).max(1);
        let place = Place {
            source,
            target,
            groups: groups.len(),
            done: AtomicUsize::new(0),
        };
        stream::iter(groups.clone())
            .map(|group| self.pull_group(&place, group))
            .buffer_unordered(workers)
            .collect::<()>()
            .await;
        if self.config.remove_vanished {
            vanished::remove_groups(self, target, &groups).await?;
        }
        Ok(())
    }

    async fn pull_group(&self, place: &Place<'_>, group: BackupGroup) {
        if let Err(error) = GroupPull::run(self, place, &group).await {
            self.failed(&format!("sync group {group} failed - {error}"));
        }
        self.report.groups.fetch_add(1, Ordering::Relaxed);
        place.done.fetch_add(1, Ordering::Relaxed);
    }
}
