//! Which run of `vzdump` called: the hook is started anew for every phase, and what these calls have in common is the process
//! that they come from.

use std::fmt;
use std::str::FromStr;

/// Shells of scripts that call the hook.
const SHELLS: [&str; 5] = ["sh", "dash", "bash", "ash", "zsh"];
/// How many processes there may be between `vzdump` and the hook.
const DEPTH: usize = 8;

/// A process: its id, and when it started, since ids are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pid: u32,
    /// In clock ticks since the system started.
    start: u64,
}

/// What the kernel tells of a process.
struct Stat {
    name: String,
    parent: u32,
    start: u64,
}

impl Process {
    /// The run of `vzdump` that called this process; without one, whoever called it, through a shell or not.
    pub fn calling() -> Option<Self> {
        let parent = rustix::process::getppid()?;
        let mut pid = u32::try_from(parent.as_raw_nonzero().get()).ok()?;
        let mut caller = None;
        for _ in 0..DEPTH {
            let Some(stat) = Stat::of(pid) else {
                break;
            };
            let process = Self {
                pid,
                start: stat.start,
            };
            if is_vzdump(pid) {
                return Some(process);
            }
            if caller.is_none() && !SHELLS.contains(&stat.name.as_str()) {
                caller = Some(process);
            }
            if stat.parent <= 1 {
                break;
            }
            pid = stat.parent;
        }
        caller
    }

    pub fn is_alive(self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.start == self.start)
    }
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold any character.
        let (head, rest) = text.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let mut fields = rest.split_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let start = fields.nth(17)?.parse().ok()?;
        Some(Self {
            name,
            parent,
            start,
        })
    }
}

/// As a command of its own, or as a task of the API, which shows its UPID as its command line.
fn is_vzdump(pid: u32) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split('\0').take(3);
    line.contains(":vzdump:") || words.any(|word| word == "vzdump" || word.ends_with("/vzdump"))
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pid, self.start)
    }
}

impl FromStr for Process {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (pid, start) = text.split_once('-').ok_or(())?;
        Ok(Self {
            pid: pid.parse().map_err(|_| ())?,
            start: start.parse().map_err(|_| ())?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_process_is_told_apart_from_a_later_one_with_its_id() {
        let own = std::process::id();
        let alive = Process {
            pid: own,
            start: Stat::of(own).unwrap().start,
        };
        assert!(alive.is_alive());
        assert_eq!(alive.to_string().parse(), Ok(alive));
        let earlier = Process {
            start: alive.start - 1,
            ..alive
        };
        assert!(!earlier.is_alive());
        assert!(Process::calling().is_some());
    }
}
