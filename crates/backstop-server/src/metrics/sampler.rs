//! The thread that measures.
//!
//! A file system that hangs must not hold up the others: each is asked by a short-lived thread of its own. The sampler
//! waits for their answers only for a moment and repeats the last known state of one that does not answer, and that
//! one is not asked again before it has answered, so that no more than one thread per path ever hangs.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use backstop_types::{DatastoreName, Operation};

use super::disk::Disk;
use super::kernel::{self, CpuTimes};
use super::{Generation, History, Reading};
use crate::complaint::Complaint;
use crate::datastores::{self, DatastoreRegistry};
use crate::rrd::{LongHistory, Measured};

/// Time from one sample to the next.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long a sample waits for the file systems.
const PATIENCE: Duration = Duration::from_secs(1);
/// The file system whose state is the host's.
const ROOT: &str = "/";

/// The running sampler. Dropping it ends it soon, without waiting.
#[derive(Debug)]
pub struct Sampler {
    events: Sender<Event>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Starts to measure into both histories.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        datastores: DatastoreRegistry,
        history: Arc<History>,
        long: Arc<LongHistory>,
    ) -> io::Result<Self> {
        let (events, incoming) = mpsc::channel();
        let mut work = Work {
            datastores,
            history,
            long,
            cpu: CpuTimes::START,
            disks: Disks::new(Arc::new(Disk::read), events.clone()),
            complaint: Complaint::default(),
        };
        let thread = Builder::new()
            .name("metrics".to_owned())
            .spawn(move || work.run(&incoming))?;
        Ok(Self {
            events,
            thread: Some(thread),
        })
    }

    /// Ends it and waits for that, at most for a moment. Blocking.
    pub fn stop(mut self) {
        let thread = self.thread.take();
        drop(self);
        if let Some(thread) = thread {
            // It contains its panics; one that escaped has ended it all the same.
            let _ = thread.join();
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // Nobody receives this when it has ended already.
        let _ = self.events.send(Event::Stop);
    }
}

/// What the sampler is told.
#[derive(Debug)]
enum Event {
    Stop,
    /// The state of the file system at a path, or that it cannot be had.
    Answer(PathBuf, io::Result<Disk>),
}

/// The sampler was told to end.
#[derive(Debug, PartialEq, Eq)]
struct Stopped;

struct Work {
    datastores: DatastoreRegistry,
    history: Arc<History>,
    long: Arc<LongHistory>,
    cpu: CpuTimes,
    disks: Disks,
    complaint: Complaint,
}

impl Work {
    fn run(&mut self, events: &Receiver<Event>) {
        loop {
            let next = Instant::now() + INTERVAL;
            match catch_unwind(AssertUnwindSafe(|| self.sample(events))) {
                Ok(Ok(())) => {}
                Ok(Err(Stopped)) => return,
                Err(_) => {
                    tracing::error!("a sample of the metrics is lost to a fault of the program")
                }
            }
            if self.disks.listen(events, next, |_| false) == Err(Stopped) {
                return;
            }
        }
    }

    fn sample(&mut self, events: &Receiver<Event>) -> Result<(), Stopped> {
        let targets = self.targets();
        let paths = targets.iter().map(|(_, path)| path.as_path());
        self.disks.ask([Path::new(ROOT)].into_iter().chain(paths));
        self.disks
            .listen(events, Instant::now() + PATIENCE, Disks::are_known)?;
        self.disks.give_up_waiting();
        let mut host = self.host();
        if let Some(disk) = self.disks.last(Path::new(ROOT)) {
            host.extend(disk.readings());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = now.map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        self.keep(time, &host, &targets);
        let root = self.disks.last(Path::new(ROOT)).map(|disk| (None, disk));
        let known = targets
            .into_iter()
            .filter_map(|(name, path)| Some((name, self.disks.last(&path)?)));
        let known: Vec<_> = known.collect();
        let datastores = known
            .iter()
            .map(|(name, disk)| (name.clone(), disk.readings()));
        let datastores = datastores.collect();
        let disks = known.into_iter().map(|(name, disk)| (Some(name), disk));
        let disks = root.into_iter().chain(disks).collect();
        self.history.push(Generation {
            time,
            host,
            datastores,
            disks,
        });
        Ok(())
    }

    /// Adds to the long history what was measured just now; what a file system said earlier is no news, and what is seen
    /// where a datastore should be mounted is another's.
    fn keep(&self, time: i64, host: &[Reading], targets: &[(DatastoreName, PathBuf)]) {
        let mut values = long_names(host);
        let root = self.disks.fresh(Path::new(ROOT));
        values.extend(root.iter().flat_map(Disk::more));
        self.long.record(time, "host", &values);
        for (name, path) in targets {
            let place = self.datastores.known_place(name.as_str());
            let is_there = place.is_none_or(|place| place.check().is_ok());
            let Some(disk) = self.disks.fresh(path).filter(|_| is_there) else {
                continue;
            };
            let mut values = long_names(&disk.readings());
            values.extend(disk.more());
            self.long
                .record(time, &format!("datastore/{name}"), &values);
        }
        self.long.commit_if_due();
    }

    /// The datastores that may be looked at. They are not opened for that, since opening one may hang.
    fn targets(&self) -> Vec<(DatastoreName, PathBuf)> {
        let configs = match self.datastores.configs() {
            Ok(configs) => {
                if self.complaint.ends() {
                    tracing::info!("datastores are measured again");
                }
                configs
            }
            Err(err) => {
                if self.complaint.is_news(&err) {
                    tracing::warn!(%err, "no metrics of datastores");
                }
                Vec::new()
            }
        };
        configs
            .into_iter()
            .filter(|config| datastores::check(config, Operation::Read).is_ok())
            .map(|config| (config.name, PathBuf::from(config.path)))
            .collect()
    }

    fn host(&mut self) -> Vec<Reading> {
        let mut readings = Vec::new();
        if let Some(stat) = read("/proc/stat") {
            let now = CpuTimes::parse(&stat);
            let used = now.since(std::mem::replace(&mut self.cpu, now));
            readings.push(Reading::gauge("cpu_current", used.busy));
            readings.push(Reading::gauge("cpu_iowait", used.waiting));
        }
        if let Some(text) = read("/proc/loadavg") {
            let names = ["cpu_avg1", "cpu_avg5", "cpu_avg15"];
            let loads = names.into_iter().zip(kernel::load_averages(&text));
            readings.extend(loads.map(|(name, load)| Reading::gauge(name, load)));
        }
        if let Some(text) = read("/proc/meminfo") {
            let value = |name| kernel::memory_value(&text, name);
            let (total, swap) = (value("MemTotal"), value("SwapTotal"));
            let used = total.saturating_sub(value("MemAvailable"));
            let swap_used = swap.saturating_sub(value("SwapFree"));
            readings.push(Reading::bytes("mem_total", total));
            readings.push(Reading::bytes("mem_used", used));
            readings.push(Reading::bytes("swap_total", swap));
            readings.push(Reading::bytes("swap_used", swap_used));
        }
        if let Some(text) = read("/proc/net/dev") {
            let traffic = kernel::network_traffic(&text, is_network_card);
            readings.push(Reading::traffic("net_in", traffic.input));
            readings.push(Reading::traffic("net_out", traffic.output));
        }
        readings
    }
}

/// The values under the names that they have in the long history; those that it does not keep are left out.
fn long_names(readings: &[Reading]) -> Vec<Measured<'static>> {
    let known = |reading: &Reading| {
        let name = match reading.metric {
            "cpu_current" => "cpu",
            "cpu_iowait" => "iowait",
            "cpu_avg1" => "loadavg",
            "mem_total" => "memtotal",
            "mem_used" => "memused",
            "swap_total" => "swaptotal",
            "swap_used" => "swapused",
            "net_in" => "netin",
            "net_out" => "netout",
            "disk_total" => "total",
            "disk_used" => "used",
            "disk_available" => "available",
            "disk_read" => "read_bytes",
            "disk_write" => "write_bytes",
            _ => return None,
        };
        Some((name, reading.kind, reading.value))
    };
    readings.iter().filter_map(known).collect()
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path);
    text.inspect_err(|err| tracing::debug!(%err, path, "metrics are missing"))
        .ok()
}

/// Whether this is no bridge, tunnel or the like, whose traffic would be counted twice. In a container, `ethN` is
/// what comes closest to a network card.
fn is_network_card(name: &str) -> bool {
    let is_ethernet = name.strip_prefix("eth").is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
    });
    is_ethernet
        || Path::new("/sys/class/net")
            .join(name)
            .join("device")
            .exists()
}

/// Reads the state of the file system at a path.
type ReadDisk = Arc<dyn Fn(&Path) -> io::Result<Disk> + Send + Sync>;

/// How far the question for one path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Answered,
    Asked,
    /// Asked for an earlier sample, and not answered since.
    Late,
}

#[derive(Debug)]
struct Known {
    question: Question,
    last: Option<Disk>,
}

/// The file systems at all paths of interest.
struct Disks {
    read: ReadDisk,
    events: Sender<Event>,
    known: HashMap<PathBuf, Known>,
}

impl Disks {
    fn new(read: ReadDisk, events: Sender<Event>) -> Self {
        Self {
            read,
            events,
            known: HashMap::new(),
        }
    }

    /// Starts to ask for all of these that do not owe an answer, and forgets all others.
    fn ask<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) {
        let paths: Vec<&Path> = paths.collect();
        self.known.retain(|path, known| {
            known.question != Question::Answered || paths.contains(&path.as_path())
        });
        for path in paths {
            let known = self.known.entry(path.to_owned()).or_insert(Known {
                question: Question::Answered,
                last: None,
            });
            if known.question != Question::Answered {
                continue;
            }
            let (read, events, path) =
                (Arc::clone(&self.read), self.events.clone(), path.to_owned());
            let thread = Builder::new()
                .name("metrics-disk".to_owned())
                .spawn(move || {
                    let disk = catch_unwind(AssertUnwindSafe(|| read(&path)))
                        .unwrap_or_else(|_| Err(io::Error::other("a fault of the program")));
                    // The sampler may have ended.
                    let _ = events.send(Event::Answer(path, disk));
                });
            match thread {
                Ok(_) => known.question = Question::Asked,
                Err(err) => tracing::warn!(%err, "unable to start a thread for metrics"),
            }
        }
    }

    /// Takes answers until a time, or until there is no more to wait for.
    fn listen(
        &mut self,
        events: &Receiver<Event>,
        until: Instant,
        is_enough: impl Fn(&Self) -> bool,
    ) -> Result<(), Stopped> {
        while !is_enough(self) {
            match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Event::Answer(path, disk)) => self.take(path, disk),
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
            }
        }
        Ok(())
    }

    fn take(&mut self, path: PathBuf, disk: io::Result<Disk>) {
        if let Err(err) = &disk {
            tracing::debug!(%err, ?path, "no metrics of this file system");
        }
        let known = Known {
            question: Question::Answered,
            last: disk.ok(),
        };
        self.known.insert(path, known);
    }

    /// Whether all have answered who were asked for this sample.
    fn are_known(&self) -> bool {
        let mut questions = self.known.values().map(|known| known.question);
        questions.all(|question| question != Question::Asked)
    }

    /// Says who did not answer; later samples do not wait for them.
    fn give_up_waiting(&mut self) {
        for (path, known) in &mut self.known {
            if known.question == Question::Asked {
                // Of datastores, those who watch them tell.
                tracing::debug!(
                    ?path,
                    "the file system does not answer; repeating its last metrics"
                );
                known.question = Question::Late;
            }
        }
    }

    /// The state that was told for this sample.
    fn fresh(&self, path: &Path) -> Option<Disk> {
        let known = self.known.get(path)?;
        known.last.filter(|_| known.question == Question::Answered)
    }

    /// The last known state, if there is one.
    fn last(&self, path: &Path) -> Option<Disk> {
        self.known.get(path)?.last
    }
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
