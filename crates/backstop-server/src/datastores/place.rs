//! The place of a datastore: its directory, what is known of its file system, and the threads that may touch it.
//!
//! A call to a file system that hangs cannot be ended, only abandoned. So everything that touches a datastore's files
//! for a request or a session runs on threads of that datastore's own, whose number is bounded; who waits for them
//! stops waiting when the file system is given up, and no other datastore ever waits for them.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::available_parallelism;
use std::time::Duration;

use backstop_datastore::{Datastore, DatastoreError};
use backstop_types::{DatastoreName, Tuning};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::availability::{Availability, Unavailable};
use super::identity::Identity;

/// Most threads that touch one datastore for requests and sessions. Tasks have threads of their own.
const THREADS: usize = 64;
/// Of these, most that serve requests.
const CALLS: usize = 16;
/// Of these, most that serve sessions but for their chunks.
const WORKERS: usize = 24;
/// Of these, most that store chunks; twice the number of processors where that is less. What is left is for
/// short questions.
const STORES: usize = 16;
/// How long an idle thread is kept.
const KEEP: Duration = Duration::from_secs(10);
/// How long a short question waits for an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

thread_local! {
    /// The place that this thread works for, as an address; 0 for none.
    static SERVES: Cell<usize> = const { Cell::new(0) };
}

/// Why work on a datastore did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Interrupted {
    /// The file system was given up; the work is left to itself.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A fault of the program.
    #[error("the call failed inside the server")]
    Panicked(Box<dyn Any + Send>),
    /// The threads have ended.
    #[error("the server is shutting down")]
    Stopped,
}

/// The place of one datastore. See the module's text.
pub struct Place {
    name: DatastoreName,
    path: PathBuf,
    state: watch::Sender<Availability>,
    threads: Option<Runtime>,
    calls: Arc<Semaphore>,
    workers: Arc<Semaphore>,
    stores: Arc<Semaphore>,
    /// Held while the datastore is opened, so that it is opened once.
    opening: Mutex<()>,
    opened: Mutex<Opened>,
}

#[derive(Default)]
struct Opened {
    /// Kept open for the next user.
    kept: Option<Arc<Datastore>>,
    /// What was open once. A datastore that is still in use must not be opened a second time: its parts that keep
    /// garbage collection and uploads apart would not know of each other.
    known: Weak<Datastore>,
    /// The file system that it was opened on.
    identity: Option<Identity>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

impl Place {
    /// The place of a datastore that is taken to be available until something else is known.
    ///
    /// # Errors
    /// The system refuses what its threads need.
    pub fn new(name: DatastoreName, path: PathBuf) -> io::Result<Self> {
        let cores = available_parallelism().map_or(2, usize::from);
        let threads = Builder::new_current_thread()
            .max_blocking_threads(THREADS)
            .thread_name(format!("store-{name}"))
            .thread_keep_alive(KEEP)
            .build()?;
        Ok(Self {
            name,
            path,
            state: watch::Sender::new(Availability::Available),
            threads: Some(threads),
            calls: Arc::new(Semaphore::new(CALLS)),
            workers: Arc::new(Semaphore::new(WORKERS)),
            stores: Arc::new(Semaphore::new(cores.saturating_mul(2).min(STORES))),
            opening: Mutex::default(),
            opened: Mutex::default(),
        })
    }

    /// The datastore's name.
    pub fn name(&self) -> &DatastoreName {
        &self.name
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is known of its file system.
    pub fn state(&self) -> Availability {
        self.state.borrow().clone()
    }

    /// Notes what is known of its file system; tells what was known before.
    pub(crate) fn set_state(&self, state: Availability) -> Availability {
        self.state.send_replace(state)
    }

    fn error(&self, reason: &Arc<str>) -> Unavailable {
        Unavailable {
            name: self.name.clone(),
            reason: Arc::clone(reason),
        }
    }

    /// Fails when nothing new may be begun on it.
    ///
    /// # Errors
    /// Its file system is doubtful or lost.
    pub fn check(&self) -> Result<(), Unavailable> {
        match self.state.borrow().reason() {
            Some(reason) => Err(self.error(reason)),
            None => Ok(()),
        }
    }

    /// Why what runs on it is given up, if that is so.
    pub fn loss(&self) -> Option<Unavailable> {
        let state = self.state.borrow();
        let reason = state.reason().filter(|_| state.is_lost());
        reason.map(|reason| self.error(reason))
    }

    async fn until(&self, wanted: fn(&Availability) -> bool) -> Unavailable {
        let mut state = self.state.subscribe();
        let reached = state.wait_for(wanted).await;
        let reason = reached.ok().and_then(|state| state.reason().cloned());
        match reason {
            Some(reason) => self.error(&reason),
            // Only for who waits until it is available; the sender lives in `self`, so waiting cannot fail.
            None => self.error(&Arc::from("nothing is wrong with it")),
        }
    }

    /// Waits until what runs on it is given up.
    pub async fn lost(&self) -> Unavailable {
        self.until(Availability::is_lost).await
    }

    /// Waits until it is available.
    pub async fn available(&self) {
        self.until(|state| *state == Availability::Available).await;
    }

    fn start<T, F>(self: &Arc<Self>, work: F) -> Option<JoinHandle<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let caller = Handle::try_current().ok();
        let address = self.address();
        let threads = self.threads.as_ref()?;
        Some(threads.spawn_blocking(move || {
            // What the work starts in turn runs where its caller runs.
            let _entered = caller.as_ref().map(Handle::enter);
            SERVES.set(address);
            work()
        }))
    }

    fn address(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    async fn run<T, F>(
        self: &Arc<Self>,
        permits: &Arc<Semaphore>,
        gives_up: fn(&Availability) -> bool,
        work: F,
    ) -> Result<T, Interrupted>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let permits = Arc::clone(permits);
        let done = async {
            let permit = permits.acquire_owned().await;
            let permit = permit.map_err(|_| Interrupted::Stopped)?;
            let running = self.start(move || {
                let result = work();
                drop(permit);
                result
            });
            running.ok_or(Interrupted::Stopped)?.await.map_err(ended)
        };
        tokio::select! {
            biased;
            done = done => done,
            reason = self.until(gives_up) => Err(reason.into()),
        }
    }

    /// Runs the work of a request, which is given up as soon as the file system is doubtful.
    ///
    /// # Errors
    /// See [`Interrupted`].
    pub async fn call<T, F>(self: &Arc<Self>, work: F) -> Result<T, Interrupted>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let doubtful = |state: &Availability| state.reason().is_some();
        self.run(&self.calls, doubtful, work).await
    }

    /// Runs the work of a session, which is given up when the file system is lost.
    ///
    /// # Errors
    /// See [`Interrupted`].
    pub async fn work<T, F>(self: &Arc<Self>, work: F) -> Result<T, Interrupted>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.run(&self.workers, Availability::is_lost, work).await
    }

    /// As [`work`](Self::work), for storing an uploaded chunk.
    ///
    /// # Errors
    /// See [`Interrupted`].
    pub async fn store_chunk<T, F>(self: &Arc<Self>, work: F) -> Result<T, Interrupted>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.run(&self.stores, Availability::is_lost, work).await
    }

    /// Runs work that is waited for however long it takes: what tidies up after what was given up.
    ///
    /// # Errors
    /// See [`Interrupted`]; never for an unavailable file system.
    pub async fn tidy<T, F>(self: &Arc<Self>, work: F) -> Result<T, Interrupted>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.run(&self.workers, |_| false, work).await
    }

    /// Runs a short question and waits for the answer, blocking, for five seconds at most.
    ///
    /// # Errors
    /// The file system is doubtful, or has not answered in time.
    pub fn ask<T, F>(self: &Arc<Self>, question: F) -> Result<T, Unavailable>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.check()?;
        if SERVES.get() == self.address() {
            return Ok(question());
        }
        let (answer, answers) = mpsc::sync_channel(1);
        let started = self.start(move || {
            // Who asked may have stopped waiting.
            let _ = answer.send(question());
        });
        let reason = match (started, answers.recv_timeout(PATIENCE)) {
            (Some(_), Ok(answer)) => return Ok(answer),
            (Some(_), Err(RecvTimeoutError::Timeout)) => no_answer(&self.path),
            _ => "the call failed inside the server".to_owned(),
        };
        Err(self.error(&reason.into()))
    }

    /// The open datastore; it is opened if need be. Blocks, so it must run as the work of this place.
    pub(super) fn open(
        self: &Arc<Self>,
        locks: &Path,
        tuning: Tuning,
    ) -> Result<Arc<Datastore>, DatastoreError> {
        let _opening = self.opening.lock();
        let identity = Identity::of(&self.path).ok();
        if let Some(identity) = identity
            && self.was_replaced(identity)
        {
            self.reappeared(identity);
        }
        let known = {
            let opened = self.opened.lock();
            opened.kept.clone().or_else(|| opened.known.upgrade())
        };
        let store = match known {
            Some(store) => {
                store.check_present()?;
                if store.tuning() != tuning {
                    store.set_tuning(tuning)?;
                }
                store
            }
            None => Datastore::open(&self.name, &self.path, locks, tuning)?,
        };
        let mut opened = self.opened.lock();
        opened.known = Arc::downgrade(&store);
        opened.kept = Some(Arc::clone(&store));
        opened.identity = identity;
        Ok(store)
    }

    /// Closes the datastore as soon as nobody uses it.
    pub(super) fn close(self: &Arc<Self>) {
        let kept = self.opened.lock().kept.take();
        self.discard(kept);
    }

    /// Lets go of an open datastore where closing its files may take its time.
    fn discard(self: &Arc<Self>, store: Option<Arc<Datastore>>) {
        if let Some(store) = store {
            // Not waited for.
            let _ = self.start(move || drop(store));
        }
    }

    /// Whether the datastore is still used by somebody.
    pub(super) fn is_in_use(&self) -> bool {
        self.opened.lock().known.strong_count() > 0
    }

    /// The file system has answered after it was lost, or is not the one that it was. Says whether it is another one:
    /// then the datastore is opened anew for the next user, and those who have it open keep the one that is gone.
    pub(super) fn reappeared(self: &Arc<Self>, identity: Identity) -> bool {
        let mut opened = self.opened.lock();
        let is_another = opened.identity.is_some_and(|known| known != identity);
        if is_another {
            let old = std::mem::take(&mut *opened);
            self.discard(old.kept);
        } else if let Some(store) = opened.known.upgrade() {
            // Handles from before are dead; closing them may take its time.
            let _ = self.start(move || store.release_handles());
        }
        is_another
    }

    /// Whether this is not the file system that the datastore was opened on.
    pub(super) fn was_replaced(&self, identity: Identity) -> bool {
        let known = self.opened.lock().identity;
        known.is_some_and(|known| known != identity)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// What is wrong with a file system that hangs.
pub(super) fn no_answer(path: &Path) -> String {
    format!("the file system at {path:?} does not answer")
}

fn ended(err: tokio::task::JoinError) -> Interrupted {
    match err.try_into_panic() {
        Ok(panic) => Interrupted::Panicked(panic),
        Err(_) => Interrupted::Stopped,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::sync::mpsc::channel;

    fn place() -> Arc<Place> {
        let place = Place::new("store1".parse().unwrap(), "/nowhere".into());
        Arc::new(place.unwrap())
    }

    const UNAVAILABLE: &str = "datastore 'store1' is unavailable: stale";

    #[tokio::test]
    async fn a_call_that_hangs_is_given_up_as_soon_as_the_file_system_is_doubtful() {
        let place = place();
        let (go, wait) = channel::<()>();
        let call = place.call(move || wait.recv());
        let give_up = async { place.set_state(Availability::Doubtful("stale".into())) };
        let (done, _) = tokio::join!(call, give_up);
        assert_eq!(done.unwrap_err().to_string(), UNAVAILABLE);
        assert_eq!(place.check().unwrap_err().to_string(), UNAVAILABLE);
        drop(go);
    }

    #[tokio::test]
    async fn a_session_waits_while_the_file_system_is_doubtful() {
        let place = place();
        place.set_state(Availability::Doubtful("stale".into()));
        assert_eq!(place.work(|| 7).await.unwrap(), 7);
        let (go, wait) = channel::<()>();
        let work = place.work(move || wait.recv());
        let give_up = async { place.set_state(Availability::Lost("stale".into())) };
        let (done, _) = tokio::join!(work, give_up);
        assert_eq!(done.unwrap_err().to_string(), UNAVAILABLE);
        assert_eq!(place.loss().unwrap().to_string(), UNAVAILABLE);
        // tidying up is waited for all the same
        drop(go);
        assert_eq!(place.tidy(|| 8).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn calls_that_hang_leave_threads_for_sessions_and_questions() {
        let place = place();
        let (go, wait) = channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let mut calls = Vec::new();
        for _ in 0..4 * THREADS {
            let (place, wait) = (Arc::clone(&place), Arc::clone(&wait));
            calls.push(tokio::spawn(async move {
                place.call(move || wait.lock().recv().is_ok()).await
            }));
        }
        assert_eq!(place.work(|| 1).await.unwrap(), 1);
        assert_eq!(place.store_chunk(|| 2).await.unwrap(), 2);
        let asking = Arc::clone(&place);
        let asked = tokio::task::spawn_blocking(move || asking.ask(|| 3));
        assert_eq!(asked.await.unwrap().unwrap(), 3);
        drop(go);
        for call in calls {
            assert!(!call.await.unwrap().unwrap());
        }
    }

    #[tokio::test]
    async fn a_question_on_a_thread_of_the_place_needs_no_other() {
        let place = place();
        let asking = Arc::clone(&place);
        let same = move || {
            let this = std::thread::current().id();
            asking.ask(|| std::thread::current().id()).unwrap() == this
        };
        assert!(place.call(same).await.unwrap());
    }

    #[tokio::test]
    async fn a_directory_that_was_replaced_is_opened_anew_and_one_in_use_is_opened_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let make = || std::fs::create_dir_all(path.join(".chunks")).unwrap();
        let place = Place::new("store1".parse().unwrap(), path.clone()).unwrap();
        let place = Arc::new(place);
        let open = || place.open(dir.path(), Tuning::default());
        assert!(open().is_err());
        make();
        let first = open().unwrap();
        place.close();
        assert!(Arc::ptr_eq(&first, &open().unwrap()));
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        make();
        let second = open().unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &open().unwrap()));
    }

    #[tokio::test]
    async fn a_panic_is_handed_to_the_caller() {
        let done = place().call(|| panic!("boom")).await;
        assert!(matches!(done, Err(Interrupted::Panicked(_))));
    }
}
