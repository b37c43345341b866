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
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use backstop_heartbeat::{Push, Signal};
use backstop_outgoing::RequestError;
use backstop_outgoing::answer::{excerpt, refusal};

use crate::config::{self, Settings};
use crate::job_record::{Guest, JobRecord, JobRecords};
use crate::vzdump_process::Process;

/// Where the configuration is, below the root.
pub const CONFIG: &str = "etc/backstop/pve-hook.conf";
/// Where running jobs are noted, below the root.
pub const STATE: &str = "run/backstop-pve-hook";

/// How long after the time that a push may take everything is given up.
const GRACE: Duration = Duration::from_secs(5);
/// How long phases may take that send nothing.
const NOTING: Duration = Duration::from_secs(10);
/// Pauses before further attempts.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(6),
];
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
        let limit = match self.signals_end() {
            true => config::read(&self.root.join(CONFIG), self.storage.as_deref())
                .map_or(NOTING, |settings| settings.timeout + GRACE),
            false => NOTING,
        };
        let phase = self.phase.clone();
        let (sender, receiver) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let done = std::panic::catch_unwind(AssertUnwindSafe(|| self.perform()));
            let done = done.unwrap_or_else(|_| Err("a fault of the program".to_owned()));
            // Nobody may be waiting any more.
            let _ = sender.send(done);
        });
        match receiver.recv_timeout(limit) {
            Ok(Ok(None)) => {}
            // Nobody may be listening any more, which is no reason to fail.
            Ok(Ok(Some(said))) => {
                let _ = writeln!(std::io::stdout(), "backstop: {said}");
            }
            Ok(Err(reason)) => complain(&format!("{phase}: {reason}")),
            Err(_) => complain(&format!("{phase}: given up after {} s", limit.as_secs())),
        }
    }

    fn signals_end(&self) -> bool {
        matches!(self.phase.as_str(), "job-end" | "job-abort")
    }

    /// What was told to whom; `None` in phases without a push.
    fn perform(&self) -> Result<Option<String>, String> {
        let job = Process::calling().ok_or("the process that calls is unknown")?;
        let records = JobRecords::open(&self.root.join(STATE))
            .map_err(|err| format!("unable to use /{STATE} - {err}"));
        if self.signals_end() {
            let record = records.as_ref().map_err(String::clone).and_then(|records| {
                let record = records
                    .load(job)
                    .map_err(|err| format!("what was noted of the job cannot be read - {err}"));
                records.remove(job);
                record
            });
            return self.tell(&record).map(Some);
        }
        let records = records?;
        let state = match self.phase.as_str() {
            "job-init" | "job-start" => None,
            "backup-start" => Some(Guest::Running),
            "backup-end" => Some(Guest::Ok),
            "backup-abort" => Some(Guest::Failed),
            // Phases that say nothing of how it goes, and those of versions to come.
            _ => return Ok(None),
        };
        // What cannot be read is not better than nothing: a guest that fails is noted in any case.
        let loaded = records.load(job).unwrap_or_default();
        let mut record = loaded.unwrap_or_default();
        match (state, self.vmid.as_deref()) {
            (None, _) => {
                record.started.get_or_insert_with(now);
            }
            (Some(state), vmid) => {
                record.guests.insert(vmid.unwrap_or("?").to_owned(), state);
            }
        }
        let noted = records.store(job, &record);
        noted.map_err(|err| format!("unable to note it in /{STATE} - {err}"))?;
        Ok(None)
    }

    fn tell(&self, record: &Result<Option<JobRecord>, String>) -> Result<String, String> {
        let settings = config::read(&self.root.join(CONFIG), self.storage.as_deref());
        let settings = settings.map_err(|err| err.to_string())?;
        let push = self.push(record, now(), &node());
        let word = match push.signal {
            Signal::Down => "down",
            _ => "up",
        };
        deliver(&settings, &push)?;
        Ok(format!(
            "told {}: {word}, {}",
            settings.server(),
            push.message
        ))
    }

    /// How the job went as a whole. Where that is not known, it did not go well.
    fn push(&self, record: &Result<Option<JobRecord>, String>, now: i64, node: &str) -> Push {
        let mut message = node.to_owned();
        if let Some(storage) = &self.storage {
            let _ = write!(message, " to {storage}");
        }
        message.push_str(": ");
        let empty = JobRecord::default();
        let (known, unknown) = match record {
            Ok(Some(known)) => (known, None),
            Ok(None) => (&empty, None),
            Err(reason) => (&empty, Some(reason)),
        };
        let failed = known.failed();
        let is_aborted = self.phase == "job-abort";
        let guests = match known.guests.len() {
            1 => "1 guest".to_owned(),
            count => format!("{count} guests"),
        };
        if is_aborted {
            message.push_str("backup job aborted");
        }
        if let Some(reason) = unknown {
            let _ = write!(message, "it is not known how the guests fared ({reason})");
        } else if !failed.is_empty() {
            let named = failed.iter().take(NAMED_GUESTS).copied();
            let named: Vec<&str> = named.collect();
            let more = if failed.len() > named.len() {
                " …"
            } else {
                ""
            };
            let comma = if is_aborted { ", " } else { "" };
            let list = named.join(" ");
            let _ = write!(
                message,
                "{comma}{} of {guests} failed: {list}{more}",
                failed.len()
            );
        } else if !is_aborted {
            let _ = match record {
                Ok(Some(_)) => write!(message, "OK, {guests}"),
                _ => write!(message, "OK"),
            };
        }
        let is_good = !is_aborted && unknown.is_none() && failed.is_empty();
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

/// Sends a push until it is taken, as long as there is time.
fn deliver(settings: &Settings, push: &Push) -> Result<(), String> {
    let begun = Instant::now();
    let left = || settings.timeout.saturating_sub(begun.elapsed());
    let mut pauses = PAUSES.into_iter();
    loop {
        let request = push
            .request(settings.receiver, &settings.url, false)
            .map_err(|err| err.to_string())?
            .ok_or("this receiver has no such signal")?;
        let uri = request.uri().clone();
        let mut client = settings.client.clone();
        client.timeout = client.timeout.min(left()).max(Duration::from_millis(1));
        let (reason, may_pass) = match client.send_blocking(request) {
            Ok(answer) => match refusal(&answer, &uri, &[]) {
                Some(refusal) => (
                    format!("{}: {refusal}", settings.server()),
                    answer.status().is_server_error(),
                ),
                None => match settings.receiver.objection(answer.body()) {
                    None => return Ok(()),
                    Some(objection) => {
                        let said = excerpt(answer.body(), &uri, &[]);
                        let reason = objection.reason;
                        (format!("{}: {reason}: {said:?}", settings.server()), false)
                    }
                },
            },
            // Whom nobody trusts now, nobody trusts in a second.
            Err(err) => (err.to_string(), !matches!(err, RequestError::Tls { .. })),
        };
        match pauses.next() {
            Some(pause) if may_pass && pause < left() => std::thread::sleep(pause),
            _ => return Err(format!("the push failed - {reason}")),
        }
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

fn node() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or_default().to_owned()
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
        let (signal, message) = pushed("job-end", Err("no space".to_owned()));
        assert_eq!(signal, Signal::Down);
        assert!(
            message.contains("not known") && message.contains("no space"),
            "{message}"
        );
    }

    #[test]
    fn a_job_of_which_nothing_was_noted_ended_well() {
        assert_eq!(
            pushed("job-end", Ok(None)),
            (Signal::Up, "pve1 to pbs1: OK".to_owned())
        );
    }
}
