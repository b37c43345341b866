//! Tasks and sessions.

use std::collections::BTreeMap;

use super::families::{ExpositionError, Families, number};
use crate::server::Server;

/// The kinds of sessions, which are tasks of these types.
const SESSIONS: &[&str] = &["backup", "reader"];

pub(super) fn add(server: &Server, families: &Families) -> Result<(), ExpositionError> {
    let running = families.gauges(
        "backstop_tasks_running",
        "Tasks of this server that run now, by type.",
        &["type"],
    )?;
    let sessions = families.gauges(
        "backstop_sessions",
        "Sessions of clients that back up or read now.",
        &["type"],
    )?;
    let ended = families.counters(
        "backstop_tasks_ended_total",
        "Tasks that ended since the server started, by type and result: ok, warning, error or unknown.",
        &["type", "result"],
    )?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for upid in server.tasks().running() {
        *counts.entry(upid.worker_type).or_default() += 1;
    }
    for kind in SESSIONS {
        let count = counts.get(*kind).copied().unwrap_or_default();
        sessions.show(&[kind], Some(number(count)))?;
    }
    for (kind, count) in &counts {
        running.show(&[kind], Some(number(*count)))?;
    }
    for ((kind, result), count) in server.tasks().ended() {
        ended.show(&[&kind, result], number(count))?;
    }
    Ok(())
}
