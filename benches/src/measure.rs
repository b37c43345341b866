//! Runs a program and tells what it cost: wall time, CPU time, peak memory.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a program cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Time from start to end.
    pub wall: Duration,
    /// User and system time, all threads.
    pub cpu: Duration,
    /// Peak resident memory, bytes.
    pub memory: u64,
}

/// Runs `command` to its end and measures it.
///
/// # Errors
///
/// When it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<Cost> {
    let log = tempfile::NamedTempFile::new()?;
    let start = Instant::now();
    let child = command
        .stdout(Stdio::null())
        .stderr(log.reopen()?)
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid value of that plain C structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for writes during the call, and the child has not been waited for.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    let wall = start.elapsed();
    if waited != pid {
        return Err(io::Error::last_os_error()).context("waiting for the program");
    }
    if status != 0 {
        let said = std::fs::read_to_string(log.path()).unwrap_or_default();
        bail!("{command:?} failed (wait status {status}): {said}");
    }
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec.unsigned_abs())
            + Duration::from_micros(value.tv_usec.unsigned_abs())
    };
    Ok(Cost {
        wall,
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        memory: usage.ru_maxrss.unsigned_abs() * 1024,
    })
}

/// A running process whose cost is read from `/proc`.
#[derive(Debug, Clone, Copy)]
pub struct Process(pub u32);

impl Process {
    /// CPU time used so far, of all its threads.
    #[must_use]
    pub fn cpu(self) -> Duration {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", self.0)) else {
            return Duration::ZERO;
        };
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<u64> = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|n| n.parse().ok())
            .collect();
        let ticks: u64 = fields.iter().sum();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// One line of `/proc/PID/status`, which counts KiB, in bytes.
    fn status(self, key: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap_or_default();
        line.split_whitespace()
            .find_map(|word| word.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    }

    /// Peak resident memory since the start or since [`Process::reset_peak`].
    #[must_use]
    pub fn peak_memory(self) -> u64 {
        self.status("VmHWM:")
    }

    /// Resident memory now.
    #[must_use]
    pub fn memory(self) -> u64 {
        self.status("VmRSS:")
    }

    /// Starts the peak anew.
    pub fn reset_peak(self) {
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.0), "5");
    }

    /// The descendants of this process, this one excluded.
    #[must_use]
    pub fn descendants(self) -> Vec<Process> {
        let mut found = vec![self];
        let mut next = 0;
        while let Some(parent) = found.get(next).copied() {
            let path = format!("/proc/{0}/task/{0}/children", parent.0);
            let text = std::fs::read_to_string(Path::new(&path)).unwrap_or_default();
            found.extend(
                text.split_whitespace()
                    .filter_map(|pid| pid.parse().ok())
                    .map(Process),
            );
            next += 1;
        }
        found.split_off(1)
    }
}
