//! A pull from its preparation to its end: namespaces one after the other, groups of a namespace several at the same time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backstop_types::record::SyncJobConfig;
use backstop_types::{AuthId, BackupGroup, GroupFilter, Namespace, Operation, Privileges};
use futures_util::{StreamExt as _, stream};

use super::compared::Compared;
use super::decryption::DecryptedChunks;
use super::dry_run;
use super::error::{Result, SyncError};
use super::fetched::FetchedChunks;
use super::group::GroupPull;
use super::in_flight::{GROUPS_AT_ONCE, InFlight};
use super::keys;
use super::namespaces::{self, Mapping, named};
use super::place::Place;
use super::report::{Direction, Report};
use super::run::other_side;
use super::selection::Rules;
use super::source::{Listed, ListedGroup, Lists, Source};
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

/// Most snapshots of a namespace that are listed at once, which takes some kilobytes of memory each.
const LISTED_AT_ONCE: u64 = 20_000;
/// A list of a whole namespace is not worth it when it has so many times the snapshots that are wanted.
const UNWANTED: u64 = 8;

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

    /// The server that runs it.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// What is pulled.
    pub fn config(&self) -> &SyncJobConfig {
        &self.config
    }

    /// The datastore that is written to.
    pub fn target(&self) -> &DatastoreHandle {
        &self.target
    }

    /// Tells what a run would do, and does nothing.
    ///
    /// # Errors
    /// Something could not be pulled; the log says what.
    pub(super) async fn run_dry(self, task: &TaskContext) -> std::result::Result<(), TaskFailure> {
        let report = Arc::new(Report::new(Direction::Pull));
        let run = Run::begin(self, None, report, task).await?;
        dry_run::tell(&run).await?;
        run.report.end()
    }

    /// Pulls; `compared` is where a job notes what it has compared.
    ///
    /// # Errors
    /// Something could not be pulled; the log says what.
    pub(super) async fn run(
        self,
        compared: Option<PathBuf>,
        report: &Arc<Report>,
        task: &TaskContext,
    ) -> std::result::Result<(), TaskFailure> {
        let run = Run::begin(self, compared, Arc::clone(report), task).await?;
        run.pull().await?;
        run.report.finish(run.config.remove_vanished, task)
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
    pub in_flight: InFlight,
    pub report: Arc<Report>,
    /// What was compared before; single pulls do not remember it.
    pub compared: Option<Arc<Compared>>,
    pub task: TaskContext,
    /// Where it is noted what was fetched.
    pub records: PathBuf,
}

impl Run {
    async fn begin(
        pull: Pull,
        compared: Option<PathBuf>,
        report: Arc<Report>,
        task: &TaskContext,
    ) -> Result<Self> {
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
        let target = Target::new(pull.target);
        let compared = match compared {
            Some(path) => {
                let config = &pull.config;
                let way = format!(
                    "{source_name}:{} {}:{} {:?}",
                    config.remote_ns, config.store, config.ns, config.associated_key
                );
                let opened = target.work(move |_| Ok(Arc::new(Compared::open(path, &way))));
                Some(opened.await?)
            }
            None => None,
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
            target,
            fetched: FetchedChunks::new(),
            keys: pull.keys,
            decrypted: DecryptedChunks::default(),
            in_flight: InFlight::new(),
            report,
            compared,
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
        if let Some(compared) = self.compared.clone() {
            let closed = self.target.work(move |_| {
                if let Err(error) = compared.close() {
                    tracing::warn!(%error, "unable to note what was compared");
                }
                Ok(())
            });
            closed.await?;
        }
        self.report.complete();
        if self.config.remove_vanished {
            vanished::remove_namespaces(self, &synced).await?;
        }
        Ok(())
    }

    pub async fn namespaces(&self) -> Result<Vec<Namespace>> {
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
                self.report.unseen();
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
            self.report.unseen();
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
        let listed = self.source.groups(source).await;
        let listed = listed.inspect_err(|_| self.report.unseen())?;
        let mut groups: Vec<BackupGroup> =
            listed.iter().map(|listed| listed.group.clone()).collect();
        groups.retain(|group| GroupFilter::selects(&self.config.group_filter, group));
        groups.sort();
        groups.dedup();
        self.task.log(format!(
            "Found {} groups to sync (out of {} total)",
            groups.len(),
            listed.len()
        ));
        let mut lists = self.lists(source, &listed).await;
        let work: Vec<(BackupGroup, Option<Vec<Listed>>)> = groups
            .iter()
            .map(|group| {
                let listed = lists.as_mut();
                let listed = listed.map(|lists| lists.remove(group).unwrap_or_default());
                (group.clone(), listed)
            })
            .collect();
        let workers = match self.config.worker_threads {
            Some(workers) => workers.max(1),
            None if self.source.is_remote() => GROUPS_AT_ONCE,
            None => 1,
        };
        let place = Place {
            source,
            target,
            groups: groups.len(),
            done: AtomicUsize::new(0),
        };
        stream::iter(work)
            .map(|(group, listed)| self.pull_group(&place, group, listed))
            .buffer_unordered(workers)
            .collect::<()>()
            .await;
        if self.config.remove_vanished {
            vanished::remove_groups(self, &place, &groups).await?;
        }
        Ok(())
    }

    /// The snapshots of all groups of a namespace in one list, if that is not too long and not mostly in vain.
    pub async fn lists(&self, namespace: &Namespace, groups: &[ListedGroup]) -> Option<Lists> {
        let count = |is_wanted: &dyn Fn(&BackupGroup) -> bool| {
            let wanted = groups.iter().filter(|listed| is_wanted(&listed.group));
            let counts: Option<Vec<u64>> = wanted.map(|listed| listed.snapshots).collect();
            counts.map(|counts| {
                counts
                    .iter()
                    .fold(0_u64, |sum, count| sum.saturating_add(*count))
            })
        };
        let all = count(&|_| true)?;
        let wanted = count(&|group| GroupFilter::selects(&self.config.group_filter, group))?;
        if groups.len() < 2 || all > LISTED_AT_ONCE || all > wanted.saturating_mul(UNWANTED) {
            return None;
        }
        match self.source.lists(namespace).await {
            Ok(lists) => Some(lists),
            Err(error) => {
                // What is wrong shows at the groups, if it stays so.
                tracing::debug!(%error, "the groups are listed one by one");
                None
            }
        }
    }

    async fn pull_group(&self, place: &Place<'_>, group: BackupGroup, listed: Option<Vec<Listed>>) {
        if let Err(error) = GroupPull::run(self, place, &group, listed).await {
            self.failed(&format!("sync group {group} failed - {error}"));
        }
        self.report.groups.fetch_add(1, Ordering::Relaxed);
        place.done.fetch_add(1, Ordering::Relaxed);
    }
}
