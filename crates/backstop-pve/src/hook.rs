//! The hook: `vzdump` calls it at every phase of a backup job, and at the end of the job the receiver is told once how it went.
//!
//! The order of calls, one process each: `job-init`, `job-start`, then for each guest `backup-start` and at last `backup-end` or
//! `backup-abort`, then `job-end`, or `job-abort` when the job itself broke. A job some of whose guests failed ends with `job-end`.
//! A hook that fails would fail the backup, and one that hangs would hold it up, so that neither may happen: whatever goes wrong is
//! said on the standard error, which is in the log of the job, and to the system's log.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use backstop_heartbeat::{Push, Signal};
use backstop_push::{deliver, host_name};

use crate::config;
use crate::job_record::{Guest, JobRecord, JobRecords, Told};
use crate::vzdump_process::Process;

/// Where the configuration is, below the root.
pub const CONFIG: &str = "etc/backstop/pve-hook.conf";
/// Where running jobs are noted, below the root.
pub const STATE: &str = "run/backstop-pve-hook";

/// How long after the time that a push may take everything is given up.
const GRACE: Duration = Duration::from_secs(5);
/// How long everything but a push may take.
const NOTING: Duration = Duration::from_secs(10);
/// How long it may take to mark that something could not be noted.
const MARKING: Duration = Duration::from_secs(2);
/// Why nothing is known of a job.
const NO_START: &str = "its start was not noted";
/// Most guests that a message names.
const NAMED_GUESTS: usize = 10;

/// One call of the hook.
#[derive(Debug, Clone)]
pub struct Call {
    /// The phase.
    pub phase: String,
    /// The guest, in the phases of one.
    pub vmid: Option<String>,
    /// The storage that the job writes to (`STOREID`).
    pub storage: Option<String>,
    /// What stands before all paths; `/` but for tests.
    pub root: PathBuf,
}

impl Call {
    /// A call with these words (`PHASE [MODE VMID]`) and the environment of this process.
    pub fn of_words(words: &[String], root: PathBuf) -> Self {
        Self {
            phase: words.first().cloned().unwrap_or_default(),
            vmid: words.get(2).cloned(),
            storage: std::env::var("STOREID").ok().filter(|id| !id.is_empty()),
            root,
        }
    }

    /// Does what there is to do, within bounded time. Never fails.
    pub fn run(self) {
        let call = self.clone();
        let outcome = bounded(NOTING, move |allow| call.perform(allow));
        match outcome {
            Ok(None) => {}
            // Nobody may be listening any more, which is no reason to fail.
            Ok(Some(said)) => {
                let _ = writeln!(std::io::stdout(), "backstop: {said}");
            }
            Err(reason) => {
                complain(&format!("{}: {reason}", self.phase));
                if !self.signals_end() {
                    self.distrust();
                }
            }
        }
    }

    fn signals_end(&self) -> bool {
        matches!(self.phase.as_str(), "job-end" | "job-abort")
    }

    fn records(&self) -> JobRecords {
        JobRecords::at(self.root.join(STATE))
    }

    /// Something of a job could not be noted, so that nobody may say later that all went well.
    fn distrust(&self) {
        let records = self.records();
        let marked = bounded(MARKING, move |_| {
            let marked = records.distrust(Process::calling());
            marked.map(|()| None).map_err(|err| err.to_string())
        });
        if let Err(reason) = marked {
            complain(&format!("unable to mark it in /{STATE} - {reason}"));
        }
    }

    /// What was told to whom; `None` when nothing was. `allow` is told how long it may take.
    fn perform(&self, allow: &dyn Fn(Duration)) -> Result<Option<String>, String> {
        let job = Process::calling();
        let unknown = "the process that calls is unknown";
        let state = match self.phase.as_str() {
            "job-end" | "job-abort" => {
                return self.end(job.ok_or_else(|| unknown.to_owned()), allow);
            }
            "job-start" => None,
            "backup-start" => Some(Guest::Running),
            "backup-end" => Some(Guest::Ok),
            "backup-abort" => Some(Guest::Failed),
            // Says nothing of how it went, but that there was a guest.
            "log-end" => Some(Guest::Running),
            // Phases that say nothing of how it goes, and those of versions to come.
            _ => return Ok(None),
        };
        let (job, records) = (job.ok_or(unknown)?, self.records());
        let failed = |err: std::io::Error| format!("unable to note it in /{STATE} - {err}");
        records.prepare().map_err(failed)?;
        let Some(state) = state else {
            records.begin(job, now()).map_err(failed)?;
            return Ok(None);
        };
        records.forget_told(job).map_err(failed)?;
        // What cannot be read is not better than nothing: a guest that fails is noted in any case.
        let loaded = records.load(job).unwrap_or_default();
        let mut record = loaded.unwrap_or_default();
        let vmid = self.vmid.as_deref().unwrap_or("?");
        match record.guests.get(vmid) {
            Some(_) if self.phase == "log-end" => return Ok(None),
            _ => record.guests.insert(vmid.to_owned(), state),
        };
        records.store(job, &record).map_err(failed)?;
        Ok(None)
    }

    /// Tells how the job went, unless that was told before. What is not known is told as such.
    fn end(
        &self,
        job: Result<Process, String>,
        allow: &dyn Fn(Duration),
    ) -> Result<Option<String>, String> {
        let records = self.records();
        if let Ok(job) = job {
            match records.told(job) {
                Some(Told::Down) => return Ok(None),
                // A job may still break after its end, say because of another hook.
                Some(Told::Up) if self.phase == "job-end" => return Ok(None),
                _ => {}
            }
        }
        let prepared = records.prepare();
        let record = job.clone().and_then(|job| {
            prepared.map_err(|err| format!("unable to use /{STATE} - {err}"))?;
            let failed = |err| format!("what was noted of the job cannot be read - {err}");
            let record = records.load(job).map_err(failed)?;
            let ended = records.end(job);
            ended.map_err(|err| format!("unable to note it in /{STATE} - {err}"))?;
            Ok(record)
        });
        let settings = config::read(&self.root.join(CONFIG), self.storage.as_deref());
        let settings = settings.map_err(|err| err.to_string())?;
        allow(settings.timeout + GRACE);
        let push = self.push(&record, now(), &host_name());
        deliver(&settings, &push)?;
        let (word, told) = match push.signal {
            Signal::Down => ("down", Told::Down),
            _ => ("up", Told::Up),
        };
        if let Ok(job) = job {
            // Where that cannot be noted, it may be told twice.
            let _ = records.note_told(job, told);
        }
        let (server, message) = (settings.server(), push.message);
        Ok(Some(format!("told {server}: {word}, {message}")))
    }

    /// How the job went as a whole. It went well when everything is known of it, from its start on, and nothing of that is bad.
    fn push(&self, record: &Result<Option<JobRecord>, String>, now: i64, node: &str) -> Push {
        let mut message = node.to_owned();
        if let Some(storage) = &self.storage {
            let _ = write!(message, " to {storage}");
        }
        message.push_str(": ");
        let empty = JobRecord::default();
        let (known, unknown) = match record {
            Ok(Some(known)) if known.is_lossy => (known, Some("some of it could not be noted")),
            Ok(Some(known)) if known.started.is_none() => (known, Some(NO_START)),
            Ok(Some(known)) => (known, None),
            Ok(None) => (&empty, Some(NO_START)),
            Err(reason) => (&empty, Some(reason.as_str())),
        };
        let failed = known.failed();
        let guests = match known.guests.len() {
            1 => "1 guest".to_owned(),
            count => format!("{count} guests"),
        };
        let mut parts = Vec::new();
        let is_aborted = self.phase == "job-abort";
        if is_aborted {
            parts.push("backup job aborted".to_owned());
        }
        if !failed.is_empty() {
            let named = failed.iter().take(NAMED_GUESTS).copied();
            let named: Vec<&str> = named.collect();
            let more = if failed.len() > named.len() {
                " …"
            } else {
                ""
            };
            let (count, list) = (failed.len(), named.join(" "));
            parts.push(format!("{count} of {guests} failed: {list}{more}"));
        }
        if let (Some(reason), false) = (unknown, is_aborted) {
            let whom = if failed.is_empty() {
                "the guests"
            } else {
                "others"
            };
            parts.push(format!("it is not known how {whom} fared ({reason})"));
        }
        let is_good = parts.is_empty();
        if is_good {
            parts.push(format!("OK, {guests}"));
        }
        message.push_str(&parts.join(", "));
        let seconds = known.started.map(|started| now.saturating_sub(started));
        Push {
            signal: if is_good { Signal::Up } else { Signal::Down },
            message,
            duration: seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map(|seconds| seconds.saturating_mul(1000)),
            run: None,
        }
    }
}

type Outcome = Result<Option<String>, String>;

/// What a piece of work tells whoever waits for it.
enum Step {
    /// It may take so long from now on.
    May(Duration),
    Done(Outcome),
}

/// Does something within `limit`, or within what it allows itself later, and survives its faults.
fn bounded(
    limit: Duration,
    work: impl Fn(&dyn Fn(Duration)) -> Outcome + Send + Sync + 'static,
) -> Outcome {
    let work = move |allow: &dyn Fn(Duration)| {
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| work(allow)));
        done.unwrap_or_else(|_| Err("a fault of the program".to_owned()))
    };
    let (sender, receiver) = mpsc::channel();
    let work = Arc::new(work);
    let in_thread = Arc::clone(&work);
    let thread = std::thread::Builder::new().spawn(move || {
        // Nobody may be waiting any more.
        let done = in_thread(&|limit| drop(sender.send(Step::May(limit))));
        let _ = sender.send(Step::Done(done));
    });
    // A system without room for a thread gets no stricter limits than those that the work has itself.
    if thread.is_err() {
        return work(&|_| {});
    }
    let (mut begun, mut limit) = (Instant::now(), limit);
    loop {
        match receiver.recv_timeout(limit.saturating_sub(begun.elapsed())) {
            Ok(Step::May(longer)) => (begun, limit) = (Instant::now(), longer),
            Ok(Step::Done(outcome)) => return outcome,
            Err(_) => return Err(format!("given up after {} s", limit.as_secs())),
        }
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// Says something on the standard error and to the system's log.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "backstop-pve-hook: {text}");
    let line = format!("<27>backstop-pve-hook[{}]: {text}", std::process::id());
    // Where there is no log, the standard error has to do.
    let _ = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to(line.as_bytes(), Path::new("/dev/log"))
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn pushed(phase: &str, record: Result<Option<JobRecord>, String>) -> (Signal, String) {
        let call = Call {
            phase: phase.to_owned(),
            vmid: None,
            storage: Some("pbs1".to_owned()),
            root: PathBuf::new(),
        };
        let push = call.push(&record, 1100, "pve1");
        (push.signal, push.message)
    }

    fn record(guests: &[(&str, Guest)]) -> Result<Option<JobRecord>, String> {
        let guests = guests
            .iter()
            .map(|(vmid, state)| ((*vmid).to_owned(), *state));
        Ok(Some(JobRecord {
            started: Some(1000),
            guests: guests.collect(),
            is_lossy: false,
        }))
    }

    #[test]
    fn one_failed_guest_makes_the_job_down() {
        let good = record(&[("100", Guest::Ok), ("101", Guest::Ok)]);
        let up = (Signal::Up, "pve1 to pbs1: OK, 2 guests".to_owned());
        assert_eq!(pushed("job-end", good), up);
        let bad = record(&[
            ("100", Guest::Ok),
            ("101", Guest::Failed),
            ("102", Guest::Running),
        ]);
        let down = (
            Signal::Down,
            "pve1 to pbs1: 2 of 3 guests failed: 101 102".to_owned(),
        );
        assert_eq!(pushed("job-end", bad), down);
    }

    #[test]
    fn what_is_aborted_or_not_known_is_down() {
        let aborted = (Signal::Down, "pve1 to pbs1: backup job aborted".to_owned());
        assert_eq!(pushed("job-abort", record(&[])), aborted);
        assert_eq!(pushed("job-abort", Ok(None)), aborted);
        assert_eq!(pushed("job-abort", Err("no space".to_owned())), aborted);
        let well = [("100", Guest::Ok)];
        let changed = |change: fn(&mut JobRecord), guests: &[(&str, Guest)]| {
            let mut record = record(guests).unwrap().unwrap();
            change(&mut record);
            Ok(Some(record))
        };
        for (record, said) in [
            (Err("no space".to_owned()), "no space"),
            (Ok(None), NO_START),
            (changed(|record| record.started = None, &well), NO_START),
            (
                changed(|record| record.is_lossy = true, &well),
                "some of it",
            ),
        ] {
            let (signal, message) = pushed("job-end", record);
            assert_eq!(signal, Signal::Down, "{message}");
            assert!(
                message.contains("not known how the guests fared") && message.contains(said),
                "{message}"
            );
        }
        let bad = [("100", Guest::Ok), ("101", Guest::Failed)];
        let (signal, message) = pushed("job-end", changed(|record| record.is_lossy = true, &bad));
        assert_eq!(signal, Signal::Down);
        let known = "1 of 2 guests failed: 101, it is not known how others fared";
        assert!(message.contains(known), "{message}");
    }

    #[test]
    fn work_that_hangs_or_breaks_is_given_up() {
        let (hold, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let hanging = bounded(Duration::from_millis(10), move |allow| {
            allow(Duration::from_millis(20));
            let _ = held.lock().unwrap().recv();
            Ok(None)
        });
        assert!(hanging.unwrap_err().contains("given up"));
        drop(hold);
        let broken = bounded(NOTING, |_| panic!("broken on purpose"));
        assert_eq!(broken.unwrap_err(), "a fault of the program");
        let longer = bounded(NOTING, |allow| {
            allow(NOTING);
            Ok(Some("done".to_owned()))
        });
        assert_eq!(longer, Ok(Some("done".to_owned())));
    }
}
