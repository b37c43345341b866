//! The daily task that keeps logs from growing for ever: task archive, task logs, access log, authentication log, audit log.
//!
//! The API logs are opened anew for each batch of lines, so nothing has to be told that a file was renamed.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use backstop_types::AuthId;
use jiff::{Timestamp, Zoned};
use serde_json::Value;
use tokio::sync::watch;

use crate::config::ConfigStore;
use crate::roots::Roots;
use crate::rotated_log::RotatedLog;
use crate::server::Server;
use crate::task::{TaskContext, TaskError, TaskFailure, TaskList, TaskSpec};

const WORKER_TYPE: &str = "logrotate";
/// How often it is looked whether a new day has begun. A server that has just started has better things to do.
const PAUSE: Duration = Duration::from_secs(15 * 60);
/// An API log is rotated when it is longer than this, in bytes.
const API_LOG_SIZE: u64 = 32 * 1024 * 1024 - 1;
/// Files of an API log that are kept.
const API_LOG_PARTS: u32 = 14;

/// Rotates what has grown, and deletes the logs of tasks that are in no list any more. Blocking.
///
/// # Errors
/// When a log cannot be rotated. Task logs that cannot be deleted are warnings.
fn rotate_logs(
    config: &ConfigStore,
    roots: &Roots,
    tasks: &TaskList,
    task: &TaskContext,
) -> Result<(), TaskFailure> {
    task.log("starting task log rotation");
    let node = match config.node() {
        Ok(node) => node.data.values,
        Err(err) => {
            task.warn(format!("the number of days is not known - {err}"));
            Default::default()
        }
    };
    let max_days = node.get("task-log-max-days").and_then(Value::as_u64);
    let rotated = tasks.rotate(max_days, Timestamp::now().as_second())?;
    task.log(format!("task log archive was {}", done(rotated)));
    for (name, title) in [
        ("access.log", "API access log"),
        ("auth.log", "API authentication log"),
        (crate::audit_log::FILE, "audit log"),
    ] {
        let path = roots.api_logs().join(name);
        let rotated = RotatedLog::new(path.clone())
            .rotate(API_LOG_SIZE, Some(API_LOG_PARTS))
            .map_err(TaskError::file("rotate", path))?;
        task.log(format!("{title} was {}", done(rotated)));
    }
    if rotated {
        task.log("cleaning up old task logs");
        match tasks.delete_old_logs() {
            Ok((_, failed)) => failed.iter().for_each(|err| task.warn(err)),
            Err(err) => task.warn(format!("could not completely cleanup old tasks: {err}")),
        }
    }
    Ok(())
}

/// Rotates the logs once a day, soon after midnight local time, until the server ends.
pub(crate) async fn run_daily(server: Arc<Server>, mut shutdown: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        let this = Arc::clone(&server);
        let started = tokio::task::spawn_blocking(move || start_if_due(&this, &Zoned::now())).await;
        match started {
            Ok(Ok(_)) => {}
            Ok(Err(err)) => tracing::error!(%err, "unable to rotate the logs"),
            Err(err) => tracing::error!(%err, "unable to rotate the logs"),
        }
    }
}

/// Starts the task unless one was started on the day of `now`. Says whether it did.
fn start_if_due(server: &Arc<Server>, now: &Zoned) -> Result<bool, TaskError> {
    let last = last_start(server.tasks().list())?;
    let today = now
        .start_of_day()
        .map_or(now.timestamp(), |day| day.timestamp());
    if last.is_some_and(|last| last >= today.as_second()) {
        return Ok(false);
    }
    let spec = TaskSpec::alone(WORKER_TYPE, &AuthId::root());
    let this = Arc::clone(server);
    server.tasks().spawn_thread(spec, move |task| {
        rotate_logs(this.config(), this.roots(), this.tasks().list(), task)
    })?;
    Ok(true)
}

/// When logs were rotated last, by this server or by a stock one, as the task lists tell.
fn last_start(tasks: &TaskList) -> Result<Option<i64>, TaskError> {
    let mut last = None;
    tasks.visit(false, &mut |entry| {
        if entry.upid.worker_type != WORKER_TYPE {
            return ControlFlow::Continue(());
        }
        last = Some(entry.upid.starttime);
        ControlFlow::Break(())
    })?;
    Ok(last)
}

fn done(rotated: bool) -> &'static str {
    if rotated { "rotated" } else { "not rotated" }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::server::{ServerOptions, run};

    #[tokio::test(flavor = "multi_thread")]
    async fn logs_are_rotated_once_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let options = ServerOptions {
            schedules: false,
            real_ip: None,
            roots: Roots::below(dir.path()),
            listen: vec![([127, 0, 0, 1], 0).into()],
            node: Some("elsa".into()),
        };
        let handle = run(options).await.unwrap();
        let server = Arc::clone(handle.server());
        let (roots, now) = (server.roots().clone(), Zoned::now());
        let logs = roots.task_logs();
        std::fs::write(roots.api_logs().join("access.log"), vec![b'x'; 33 << 20]).unwrap();
        let start = |now: Zoned| {
            let server = Arc::clone(&server);
            tokio::task::spawn_blocking(move || start_if_due(&server, &now).unwrap())
        };
        assert!(start(now.clone()).await.unwrap());
        assert!(!start(now.clone()).await.unwrap());
        let tomorrow = now.saturating_add(jiff::Span::new().days(1));
        assert!(start(tomorrow).await.unwrap());
        handle.shutdown(Duration::from_secs(30)).await;
        let mut ends = Vec::new();
        let list = TaskList::new(logs.clone());
        list.visit(false, &mut |entry| {
            let log = crate::task::log_path(&logs, &entry.upid);
            ends.push((
                entry.end.unwrap().1.to_string(),
                std::fs::read_to_string(log).unwrap(),
            ));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(ends.len(), 2);
        assert!(ends.iter().all(|(status, _)| status == "OK"), "{ends:?}");
        let told = |text: &str| ends.iter().filter(|(_, log)| log.contains(text)).count();
        assert_eq!(told(": task log archive was not rotated\n"), 2);
        assert_eq!(told(": API access log was rotated\n"), 1);
        assert_eq!(told(": API authentication log was not rotated\n"), 2);
        assert!(roots.api_logs().join("access.log.1").exists());
    }
}
