//! The thread that watches the file systems of all datastores, and keeps the file of running operations up to date.
//!
//! It never touches a datastore itself: each is asked once a second by a short-lived thread of its own. One that hangs
//! is asked again, by another thread, when the table of mounts changes, and else more and more rarely, so that a mount
//! that was replaced is noticed; no more than [`MAX_HANGING`] threads ever hang per datastore.
//!
//! The log gets one line when a datastore goes away and one when it comes back. When it comes back because a file system was
//! mounted, somebody else is told, too.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use backstop_types::{DatastoreName, Operation};

use super::availability::Availability;
use super::health::Health;
use super::identity::Identity;
use super::place::{Place, no_answer};
use super::{DatastoreRegistry, check};

/// Time from one question to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often silence is measured, and the file of running operations is brought up to date.
const TICK: Duration = Duration::from_millis(250);
/// How long a question hangs before another thread asks it; doubled each time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most questions that hang at once, per datastore.
const MAX_HANGING: u32 = 8;

/// The running watcher. Dropping it ends it soon, without waiting.
#[derive(Debug)]
pub struct Watcher {
    events: Sender<Event>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to watch. `mounted` is called with each datastore that was away and came with a mount; it must not take long.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        datastores: DatastoreRegistry,
        mounted: impl Fn(&DatastoreName) + Send + 'static,
    ) -> io::Result<Self> {
        let (events, incoming) = mpsc::channel();
        let mut work = Work {
            datastores,
            events: events.clone(),
            watched: HashMap::new(),
            next: Instant::now(),
            mounted: Box::new(mounted),
        };
        let thread = Builder::new()
            .name("datastores".to_owned())
            .spawn(move || work.run(&incoming))?;
        Ok(Self {
            events,
            thread: Some(thread),
        })
    }

    /// Ends it and waits for that. Blocking, for a moment.
    pub fn stop(mut self) {
        let thread = self.thread.take();
        drop(self);
        if let Some(thread) = thread {
            // One that has panicked has ended as well.
            let _ = thread.join();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Nobody receives this when it has ended already.
        let _ = self.events.send(Event::Stop);
    }
}

enum Event {
    Stop,
    /// What the file system at a path has answered.
    Answer(PathBuf, Result<Identity, String>),
}

/// One watched datastore.
struct Watched {
    place: Arc<Place>,
    health: Health,
    /// Questions without an answer.
    hanging: u32,
    /// When the last of them was asked, and the line of the mount table that was valid then.
    last: Option<(Instant, Option<String>)>,
    /// Since when it is not available, and the line of the mount table that was valid then.
    away: Option<(Instant, Option<String>)>,
}

struct Work {
    datastores: DatastoreRegistry,
    events: Sender<Event>,
    watched: HashMap<PathBuf, Watched>,
    next: Instant,
    mounted: Box<dyn Fn(&DatastoreName) + Send>,
}

impl Work {
    fn run(&mut self, events: &Receiver<Event>) {
        loop {
            let now = Instant::now();
            if now >= self.next {
                self.next = now + INTERVAL;
                self.follow_configuration();
                self.ask(now);
            }
            self.judge(now);
            self.datastores.note_operations();
            let until = now + TICK;
            loop {
                match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(Event::Answer(path, answer)) => self.take(&path, answer),
                    Err(RecvTimeoutError::Timeout) => break,
                    Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }
    }

    /// Watches what is configured and open to reading. What is closed for maintenance may be away, so it is left alone.
    fn follow_configuration(&mut self) {
        // An unreadable configuration is told by everybody who needs it.
        let Ok(configs) = self.datastores.configs() else {
            return;
        };
        let mut wanted: HashMap<PathBuf, Arc<Place>> = HashMap::new();
        for config in configs {
            if check(&config, Operation::Read).is_err() {
                continue;
            }
            match self.datastores.place(&config) {
                Ok(place) => drop(wanted.insert(place.path().to_owned(), place)),
                Err(err) => {
                    tracing::error!(store = %config.name, %err, "unable to watch a datastore")
                }
            }
        }
        self.watched.retain(|path, watched| {
            let stays = wanted
                .get(path)
                .is_some_and(|place| Arc::ptr_eq(place, &watched.place));
            if !stays {
                watched.place.set_state(Availability::Available);
            }
            stays
        });
        for (path, place) in wanted {
            self.watched.entry(path).or_insert_with(|| Watched {
                place,
                health: Health::default(),
                hanging: 0,
                last: None,
                away: None,
            });
        }
    }

    fn ask(&mut self, now: Instant) {
        for watched in self.watched.values_mut() {
            if watched.is_due(now) {
                watched.ask(now, &self.events);
            }
        }
    }

    fn judge(&mut self, now: Instant) {
        for watched in self.watched.values_mut() {
            if watched.judge(now) {
                (self.mounted)(watched.place.name());
            }
        }
    }

    fn take(&mut self, path: &Path, answer: Result<Identity, String>) {
        let Some(watched) = self.watched.get_mut(path) else {
            return;
        };
        let now = Instant::now();
        watched.hanging = watched.hanging.saturating_sub(1);
        watched
            .health
            .answer(now, answer.as_ref().map(|_| ()).map_err(String::clone));
        if let Ok(identity) = answer {
            watched.found(identity);
        }
        if watched.judge(now) {
            (self.mounted)(watched.place.name());
        }
    }
}

impl Watched {
    fn is_due(&self, now: Instant) -> bool {
        let Some((asked, mount)) = self.last.as_ref().filter(|_| self.hanging > 0) else {
            return true;
        };
        if self.hanging >= MAX_HANGING {
            return false;
        }
        let patience = PATIENCE.saturating_mul(1 << (self.hanging - 1).min(16));
        now.saturating_duration_since(*asked) >= patience || mount_line(self.place.path()) != *mount
    }

    fn ask(&mut self, now: Instant, events: &Sender<Event>) {
        let (events, path) = (events.clone(), self.place.path().to_owned());
        self.last = Some((now, mount_line(&path)));
        let asking = move || {
            let answer = look(&path);
            // The watcher may have ended.
            let _ = events.send(Event::Answer(path, answer));
        };
        match Builder::new().name("store-watch".to_owned()).spawn(asking) {
            Ok(_) => {
                self.hanging += 1;
                self.health.ask(now);
            }
            Err(err) => tracing::warn!(%err, "unable to start a thread that watches a datastore"),
        }
    }

    /// The datastore is there. If it was lost, or is another one than before, what was open is not valid any more.
    fn found(&mut self, identity: Identity) {
        let was_lost = self.place.loss().is_some();
        let is_another = self.place.was_replaced(identity);
        if was_lost || is_another {
            self.place.reappeared(identity);
        }
        if is_another {
            tracing::warn!(
                store = %self.place.name(), path = ?self.place.path(),
                "another file system is mounted at a datastore's place, it is opened anew"
            );
        }
    }

    /// Notes in which state it is; tells whether it came back just now, with a mount.
    fn judge(&mut self, now: Instant) -> bool {
        let path = self.place.path();
        let state = self.health.judge(now, || no_answer(path));
        let name = self.place.name();
        let mut is_mounted = false;
        match (state.reason(), &self.away) {
            (Some(reason), None) => {
                self.away = Some((now, mount_line(path)));
                tracing::warn!(store = %name, reason = %reason, "datastore is unavailable");
            }
            (None, Some((since, mount))) => {
                is_mounted = mount_line(path) != *mount;
                let seconds = now.saturating_duration_since(*since).as_secs();
                self.away = None;
                tracing::warn!(store = %name, seconds, "datastore is available again");
            }
            _ => {}
        }
        if self.place.state() != state {
            self.place.set_state(state);
        }
        is_mounted
    }
}

/// Asks the file system: for its space, which a network file system always asks its server for, and for the chunk
/// store. Nothing is kept open.
fn look(path: &Path) -> Result<Identity, String> {
    let failed =
        |what: &str, path: &Path, err: &io::Error| format!("unable to {what} {path:?} - {err}");
    rustix::fs::statvfs(path).map_err(|err| failed("look at", path, &err.into()))?;
    let metadata = fs::metadata(path).map_err(|err| failed("look at", path, &err))?;
    let chunks = path.join(".chunks");
    let found = fs::read_dir(&chunks).and_then(|mut entries| entries.next().transpose());
    match found {
        Ok(_) => Ok(Identity::from(&metadata)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Err(format!(
            "there is no chunk store at {path:?}; is its file system mounted?"
        )),
        Err(err) => Err(failed("list", &chunks, &err)),
    }
}

/// The line of the mount table for the mount that a path lies on. Asks the kernel, never the file system.
fn mount_line(path: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mounts = table.lines().filter_map(|line| {
        let at = line.split(' ').nth(4)?;
        path.starts_with(at).then_some((at.len(), line))
    });
    // Of several mounts at one place the last one is seen.
    let (_, line) = mounts.max_by_key(|(length, _)| *length)?;
    Some(line.to_owned())
}
