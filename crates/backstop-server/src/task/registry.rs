//! Starting tasks, and knowing which ones run.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backstop_types::record::TaskState;
use backstop_types::{AuthId, Upid};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::Instrument as _;

use crate::datastores::{DatastoreHandle, Place};

use super::TaskError;
use super::list::TaskList;
use super::log::{TaskLog, path_of, read_status};
use super::process::{is_alive, next_task_id, this_process};
use super::worker::{TaskContext, TaskFailure};

/// How long after the last task everything that it used is free.
const SETTLING: Duration = Duration::from_secs(2);

/// What a new task is called.
#[derive(Debug, Clone)]
pub struct TaskSpec {
    /// Kind of work, such as `garbage_collection`.
    pub worker_type: &'static str,
    /// What it works on, unescaped, such as `store1:vm/100`.
    pub worker_id: Option<String>,
    /// Who started it.
    pub auth_id: AuthId,
    /// Where the datastores are that it works on.
    places: Vec<Arc<Place>>,
}

impl TaskSpec {
    /// A task that works on `worker_id`.
    pub fn new(worker_type: &'static str, worker_id: impl Into<String>, auth_id: &AuthId) -> Self {
        Self {
            worker_id: Some(worker_id.into()),
            ..Self::alone(worker_type, auth_id)
        }
    }

    /// A task that works on nothing in particular.
    pub fn alone(worker_type: &'static str, auth_id: &AuthId) -> Self {
        Self {
            worker_type,
            worker_id: None,
            auth_id: auth_id.clone(),
            places: Vec::new(),
        }
    }

    /// Ends the task with the reason when this datastore's file system is lost, even if its worker hangs: the worker
    /// is then left to itself.
    #[must_use]
    pub fn on(mut self, datastore: &DatastoreHandle) -> Self {
        self.places.push(Arc::clone(datastore.place()));
        self
    }
}

/// All tasks of the server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TaskRegistry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: String,
    list: TaskList,
    runtime: Handle,
    running: Mutex<HashMap<u64, TaskContext>>,
    /// How many tasks of each type ended in which way, since the start.
    ended: Mutex<BTreeMap<(String, &'static str), u64>>,
    /// Number of running tasks; `None` once no new ones may start.
    count: watch::Sender<usize>,
    closed: watch::Sender<bool>,
}

impl TaskRegistry {
    /// A registry for the lists in `folder`, whose workers run on `runtime`.
    pub fn new(folder: PathBuf, node: String, runtime: Handle) -> Self {
        let inner = Inner {
            node,
            list: TaskList::new(folder),
            runtime,
            running: Mutex::default(),
            ended: Mutex::default(),
            count: watch::Sender::new(0),
            closed: watch::Sender::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The lists on disk.
    pub fn list(&self) -> &TaskList {
        &self.inner.list
    }

    /// Where a task's log is.
    pub fn log_path(&self, upid: &Upid) -> PathBuf {
        path_of(self.inner.list.folder(), upid)
    }

    /// Starts an asynchronous worker on the data runtime. The worker must not block.
    ///
    /// # Errors
    /// When the task's files cannot be written; the worker then does not start.
    pub async fn spawn<F, Fut>(&self, spec: TaskSpec, work: F) -> Result<Upid, TaskError>
    where
        F: FnOnce(TaskContext) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), TaskFailure>> + Send + 'static,
    {
        let this = self.clone();
        let started = self
            .inner
            .runtime
            .spawn_blocking(move || this.spawn_from_thread(spec, work))
            .await;
        started.unwrap_or(Err(TaskError::ShuttingDown))
    }

    /// As [`TaskRegistry::spawn`], for callers that may block.
    ///
    /// # Errors
    /// As for [`TaskRegistry::spawn`].
    pub fn spawn_from_thread<F, Fut>(&self, spec: TaskSpec, work: F) -> Result<Upid, TaskError>
    where
        F: FnOnce(TaskContext) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), TaskFailure>> + Send + 'static,
    {
        let context = self.begin(spec)?;
        let upid = context.upid().clone();
        let this = self.clone();
        self.inner.runtime.spawn(async move {
            let worker = context.clone();
            // Started on its own, so that it goes on when it is not waited for any more: it may have to tidy up.
            let span = tracing::error_span!("task", upid = %worker.upid());
            let working = tokio::spawn(async move { work(worker).await }.instrument(span));
            let result = tokio::select! {
                ended = working => ended.unwrap_or_else(|err| Err(stopped(err))),
                failure = context.given_up() => Err(failure),
            };
            let end = move || this.end(&context, result);
            if let Err(err) = tokio::task::spawn_blocking(end).await {
                tracing::error!(%err, "unable to write the end of a task");
            }
        });
        Ok(upid)
    }

    /// Starts a blocking worker on a thread of its own. Blocking itself, for a moment.
    ///
    /// # Errors
    /// When the task's files cannot be written, or the system refuses a thread.
    pub fn spawn_thread<F>(&self, spec: TaskSpec, work: F) -> Result<Upid, TaskError>
    where
        F: FnOnce(&TaskContext) -> Result<(), TaskFailure> + Send + 'static,
    {
        let context = self.begin(spec)?;
        let upid = context.upid().clone();
        let (this, worker) = (self.clone(), context.clone());
        let started = std::thread::Builder::new()
            .name(format!("task-{}", upid.task_id))
            .spawn(move || {
                let span = tracing::error_span!("task", upid = %worker.upid());
                let result = catch_unwind(AssertUnwindSafe(|| span.in_scope(|| work(&worker))));
                this.end(
                    &worker,
                    result.unwrap_or_else(|panic| Err(panicked(&*panic))),
                );
            });
        match started {
            Ok(_) => {
                if context.needs_datastores() {
                    self.attend(context);
                }
                Ok(upid)
            }
            Err(err) => {
                self.end(
                    &context,
                    Err(TaskFailure::new(format!(
                        "unable to start a thread - {err}"
                    ))),
                );
                Err(TaskError::file("start a thread for", self.log_path(&upid))(
                    err,
                ))
            }
        }
    }

    /// Ends a task whose datastore is lost, without waiting for its thread.
    fn attend(&self, context: TaskContext) {
        let this = self.clone();
        self.inner.runtime.spawn(async move {
            let failure = tokio::select! {
                failure = context.given_up() => failure,
                () = this.wait_for(context.upid()) => return,
            };
            let end = move || this.end(&context, Err(failure));
            if let Err(err) = tokio::task::spawn_blocking(end).await {
                tracing::error!(%err, "unable to write the end of a task");
            }
        });
    }

    fn begin(&self, spec: TaskSpec) -> Result<TaskContext, TaskError> {
        if *self.inner.closed.borrow() {
            return Err(TaskError::ShuttingDown);
        }
        let (pid, pstart) = this_process();
        let upid = Upid {
            node: self.inner.node.clone(),
            pid,
            pstart,
            task_id: next_task_id(),
            starttime: Timestamp::now().as_second(),
            worker_type: spec.worker_type.to_owned(),
            worker_id: spec.worker_id,
            auth_id: spec.auth_id,
        };
        let log = TaskLog::create(self.inner.list.folder(), &upid)?;
        let context = TaskContext::new(upid.clone(), log, spec.places);
        let number = upid.task_id;
        self.inner.running.lock().insert(number, context.clone());
        if let Err(err) = self
            .inner
            .list
            .update(Some(&upid), &|upid| self.is_running(upid))
        {
            self.inner.running.lock().remove(&number);
            context.finish(Err(TaskFailure::from(&err)));
            return Err(err);
        }
        self.inner.count.send_modify(|count| *count += 1);
        Ok(context)
    }

    fn end(&self, context: &TaskContext, result: Result<(), TaskFailure>) {
        let Some(status) = context.finish(result) else {
            return;
        };
        if let TaskState::Error(error) = &status {
            tracing::warn!(upid = %context.upid(), %error, "task failed");
        }
        let kind = (context.upid().worker_type.clone(), status.class());
        *self.inner.ended.lock().entry(kind).or_default() += 1;
        let idle = {
            let mut running = self.inner.running.lock();
            running.remove(&context.upid().task_id);
            running.is_empty()
        };
        if idle {
            self.give_memory_back();
        }
        if let Err(err) = self.inner.list.update(None, &|upid| self.is_running(upid)) {
            tracing::error!(upid = %context.upid(), %err, "unable to note the end of a task in the task list");
        }
        self.inner
            .count
            .send_modify(|count| *count = count.saturating_sub(1));
    }

    /// Now, and once more when the connections of the last task have had time to go.
    fn give_memory_back(&self) {
        crate::memory::give_back();
        let this = self.clone();
        self.inner.runtime.spawn(async move {
            tokio::time::sleep(SETTLING).await;
            if this.inner.running.lock().is_empty()
                && let Err(err) = tokio::task::spawn_blocking(crate::memory::give_back).await
            {
                tracing::error!(%err, "unable to give memory back");
            }
        });
    }

    /// Whether a task runs, here or in another process of this host.
    pub fn is_running(&self, upid: &Upid) -> bool {
        if (upid.pid, upid.pstart) == this_process() {
            let running = self.inner.running.lock();
            return running
                .get(&upid.task_id)
                .is_some_and(|context| context.upid() == upid);
        }
        is_alive(upid.pid, upid.pstart)
    }

    /// The tasks of this server that run.
    pub fn running(&self) -> Vec<Upid> {
        let running = self.inner.running.lock();
        running
            .values()
            .map(|context| context.upid().clone())
            .collect()
    }

    /// How many tasks of each type ended with which result (`ok`, `warning`, `error`, `unknown`) since the server started.
    pub fn ended(&self) -> BTreeMap<(String, &'static str), u64> {
        self.inner.ended.lock().clone()
    }

    /// When and how a task ended, read from its log. Blocking.
    pub fn status(&self, upid: &Upid) -> (i64, TaskState) {
        read_status(self.inner.list.folder(), upid)
    }

    /// Asks a task of this server to end; says whether there was one.
    pub fn request_abort(&self, upid: &Upid) -> bool {
        let context = self.inner.running.lock().get(&upid.task_id).cloned();
        match context {
            Some(context) if context.upid() == upid => {
                context.request_abort();
                true
            }
            _ => false,
        }
    }

    /// Waits until a task of this server has ended.
    pub async fn wait_for(&self, upid: &Upid) {
        let mut count = self.inner.count.subscribe();
        // The count changes after a task left the running ones; its sender lives as long as `self`.
        while self.is_running(upid) && count.changed().await.is_ok() {}
    }

    /// Moves the tasks that a previous run of the server left behind to the archive, and returns them. Blocking.
    ///
    /// # Errors
    /// As for [`TaskList::update`].
    pub fn clean_up(&self) -> Result<Vec<Upid>, TaskError> {
        let mut cut_off = Vec::new();
        self.inner.list.visit(true, &mut |entry| {
            if entry.end.is_none() && !self.is_running(&entry.upid) {
                cut_off.push(entry.upid);
            }
            ControlFlow::Continue(())
        })?;
        self.inner
            .list
            .update(None, &|upid| self.is_running(upid))?;
        Ok(cut_off)
    }

    /// Refuses new tasks, asks the running ones to end, and waits for them, at most for `patience`.
    pub async fn shut_down(&self, patience: Duration) {
        self.inner.closed.send_replace(true);
        let running: Vec<TaskContext> = self.inner.running.lock().values().cloned().collect();
        running.iter().for_each(TaskContext::request_abort);
        let mut count = self.inner.count.subscribe();
        // Neither outcome of the wait matters: what still runs ends with the process and is found as `unknown`.
        let _ = tokio::time::timeout(patience, count.wait_for(|count| *count == 0)).await;
    }
}

fn stopped(err: tokio::task::JoinError) -> TaskFailure {
    match err.try_into_panic() {
        Ok(panic) => panicked(&*panic),
        Err(_) => TaskFailure::new("the server is shutting down"),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> TaskFailure {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown reason".to_owned());
    TaskFailure::new(format!("worker panicked: {text}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    struct Setting {
        _dir: tempfile::TempDir,
        tasks: TaskRegistry,
    }

    fn setting() -> Setting {
        let dir = tempfile::tempdir().unwrap();
        let tasks = TaskRegistry::new(dir.path().to_owned(), "elsa".into(), Handle::current());
        Setting { _dir: dir, tasks }
    }

    fn spec() -> TaskSpec {
        TaskSpec::new("prune", "store-1:vm/100", &AuthId::root())
    }

    async fn ended(tasks: &TaskRegistry) {
        tasks
            .inner
            .count
            .subscribe()
            .wait_for(|count| *count == 0)
            .await
            .unwrap();
    }

    fn archive(tasks: &TaskRegistry) -> Vec<String> {
        let mut all = Vec::new();
        tasks
            .list()
            .visit(false, &mut |entry| {
                all.push(
                    entry
                        .end
                        .map(|(_, status)| status.to_string())
                        .unwrap_or_default(),
                );
                ControlFlow::Continue(())
            })
            .unwrap();
        all
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_is_listed_while_it_runs_and_archived_when_it_ended() {
        let Setting { _dir, tasks } = setting();
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let work = move |context: TaskContext| async move {
            context.log("begin");
            wait.await?;
            Ok(())
        };
        let upid = tasks.spawn(spec(), work).await.unwrap();
        assert!(
            upid.to_string()
                .contains(":prune:store\\x2d1\\x3avm-100:root@pam:"),
            "{upid}"
        );
        assert!(tasks.is_running(&upid));
        assert_eq!(archive(&tasks), [""]);
        go.send(()).unwrap();
        ended(&tasks).await;
        assert!(!tasks.is_running(&upid));
        assert_eq!(archive(&tasks), ["OK"]);
        assert_eq!(tasks.status(&upid).1, TaskState::Ok);
        let text = std::fs::read_to_string(tasks.log_path(&upid)).unwrap();
        let messages: Vec<&str> = text.lines().map(|line| &line[27..]).collect();
        assert_eq!(messages, ["begin", "TASK OK"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_or_failure_ends_the_task_and_nothing_else() {
        let Setting { _dir, tasks } = setting();
        tasks
            .spawn(spec(), |_| async { panic!("boom") })
            .await
            .unwrap();
        ended(&tasks).await;
        let registry = tasks.clone();
        let block = move || registry.spawn_thread(spec(), |_| panic!("bang {}", 1));
        tokio::task::spawn_blocking(block).await.unwrap().unwrap();
        ended(&tasks).await;
        tasks
            .spawn(spec(), |_| async { Err(TaskFailure::new("no luck")) })
            .await
            .unwrap();
        ended(&tasks).await;
        assert_eq!(
            archive(&tasks),
            [
                "no luck",
                "worker panicked: bang 1",
                "worker panicked: boom"
            ]
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn warnings_are_counted() {
        let Setting { _dir, tasks } = setting();
        let work = |context: TaskContext| async move {
            context.warn("one");
            context.warn("two");
            Ok(())
        };
        tasks.spawn(spec(), work).await.unwrap();
        ended(&tasks).await;
        assert_eq!(archive(&tasks), ["WARNINGS: 2"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_abort_reaches_the_worker_and_its_log() {
        let Setting { _dir, tasks } = setting();
        let work = |context: TaskContext| async move {
            context.aborted().await;
            context.check_abort()
        };
        let upid = tasks.spawn(spec(), work).await.unwrap();
        assert!(tasks.request_abort(&upid));
        ended(&tasks).await;
        assert!(!tasks.request_abort(&upid));
        assert_eq!(archive(&tasks), ["abort requested - aborting task"]);
        let text = std::fs::read_to_string(tasks.log_path(&upid)).unwrap();
        assert!(text.contains(": received abort request ...\n"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_whose_datastore_is_lost_ends_although_its_worker_hangs() {
        use crate::datastores::Availability;
        let Setting { _dir, tasks } = setting();
        let place = Place::new("store1".parse().unwrap(), "/nowhere".into());
        let place = Arc::new(place.unwrap());
        let lost = "datastore 'store1' is unavailable: stale";
        let on_place = || {
            let mut spec = spec();
            spec.places.push(Arc::clone(&place));
            spec
        };
        // one on a thread that hangs, one that waits for ever, and one that ends by itself with what it came across
        let (go, hang) = std::sync::mpsc::channel::<()>();
        let registry = tasks.clone();
        let (first, second) = (on_place(), on_place());
        let start = move || {
            let hanging = registry.spawn_thread(first, move |task| {
                let _ = hang.recv();
                task.log("said too late");
                Ok(())
            });
            let failing = registry.spawn_thread(second, |task| {
                while !task.abort_requested() {
                    std::thread::yield_now();
                }
                task.check_abort()
            });
            (hanging.unwrap(), failing.unwrap())
        };
        let (hanging, failing) = tokio::task::spawn_blocking(start).await.unwrap();
        let waiting = tasks.spawn(on_place(), |_| std::future::pending());
        let waiting = waiting.await.unwrap();
        place.set_state(Availability::Lost("stale".into()));
        ended(&tasks).await;
        for upid in [&hanging, &failing, &waiting] {
            assert_eq!(tasks.status(upid).1, TaskState::Error(lost.to_owned()));
        }
        drop(go);
        let text = std::fs::read_to_string(tasks.log_path(&hanging)).unwrap();
        assert!(!text.contains("said too late"), "{text}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_shutdown_ends_running_tasks_and_refuses_new_ones() {
        let Setting { _dir, tasks } = setting();
        let work = |context: TaskContext| async move {
            context.aborted().await;
            context.check_abort()
        };
        tasks.spawn(spec(), work).await.unwrap();
        tasks.shut_down(Duration::from_secs(30)).await;
        assert_eq!(archive(&tasks), ["abort requested - aborting task"]);
        let refused = tasks.spawn(spec(), |_| async { Ok(()) }).await;
        assert!(matches!(refused, Err(TaskError::ShuttingDown)));
    }
}
