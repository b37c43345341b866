//! Who this process is, and whether another one is still alive: both are part of every task id.

use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Process id and start time of this process.
pub fn this_process() -> (u32, u64) {
    static THIS: OnceLock<(u32, u64)> = OnceLock::new();
    *THIS.get_or_init(|| {
        let pid = std::process::id();
        (pid, start_time(pid).unwrap_or_default())
    })
}

/// Whether the process that a task id names still runs.
pub fn is_alive(pid: u32, pstart: u64) -> bool {
    start_time(pid) == Some(pstart)
}

/// A number that no other task of this process has.
pub fn next_task_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// When a process was started, in clock ticks since the system's start (field 22 of its `stat`); `None` when there is none, or it is dead
/// and only waits for its parent to notice.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, can hold anything; it ends with the last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" | "x" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_process_is_known_by_id_and_start_time() {
        let (pid, start) = this_process();
        assert!(is_alive(pid, start));
        assert!(!is_alive(pid, start + 1));
        assert_ne!(next_task_id(), next_task_id());
    }

    #[test]
    fn a_process_that_has_ended_is_dead_before_its_parent_has_noticed() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (pid, start) = (child.id(), start_time(child.id()).unwrap());
        assert!(is_alive(pid, start));
        drop(child.stdin.take());
        let begin = std::time::Instant::now();
        while is_alive(pid, start) {
            assert!(begin.elapsed().as_secs() < 60);
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
