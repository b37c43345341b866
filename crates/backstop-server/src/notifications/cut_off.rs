//! Backups that ended with their server: told of when the next one starts.

use backstop_types::{BackupGroup, Upid};
use jiff::Timestamp;

use super::events::BackupEvent;
use crate::server::Server;
use crate::task;

/// Tells of the backups among tasks that were cut off. Blocks for small files.
pub(crate) fn tell(server: &Server, tasks: &[Upid]) {
    let notifier = server.notifier();
    let now = Timestamp::now().as_second();
    for upid in tasks.iter().filter(|upid| upid.worker_type == "backup") {
        let path = server.tasks().log_path(upid);
        let first = task::read_page(&path, 0, 1).ok();
        let first = first.and_then(|page| page.lines.into_iter().next());
        let first = first.map(|(_, line)| line);
        let Some(event) = event(upid, first.as_deref().unwrap_or_default()) else {
            continue;
        };
        let reason = "it was cut off: the server ended, or its host, while it ran";
        notifier.notify(&event.ended(notifier.host(), now, Err(reason)));
    }
}

/// What was to be made, from the id of the task and, for the namespace, the first line of its log.
fn event(upid: &Upid, first_line: &str) -> Option<BackupEvent> {
    let (datastore, group) = upid.worker_id.as_deref()?.split_once(':')?;
    let group = group.rsplit_once(':').map_or(group, |(_, group)| group);
    group.parse::<BackupGroup>().ok()?;
    let path = first_line.rsplit('"').nth(1).unwrap_or_default();
    let above = path.split(group).next().unwrap_or_default();
    let names = above.split('/').filter(|part| !part.is_empty());
    let names: Vec<&str> = names.skip_while(|part| *part != "ns").collect();
    // ns/a/ns/b
    let namespace: Vec<&str> = names.chunks_exact(2).map(|pair| pair[1]).collect();
    let snapshot = path.rsplit('/').next().filter(|time| time.contains('T'));
    Some(BackupEvent {
        datastore: datastore.to_owned(),
        namespace: namespace.join("/"),
        group: group.to_owned(),
        snapshot: snapshot.map_or_else(|| group.to_owned(), |time| format!("{group}/{time}")),
        author: upid.auth_id.to_string(),
        upid: upid.to_string(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_namespace_is_in_the_log_where_the_id_does_not_tell_it() {
        let upid = "UPID:h:0000C0DE:00000001:00000002:65000000:backup:s1\\x3avm-100:root@pam:";
        let upid: Upid = upid.parse().unwrap();
        let event = |line: &str| {
            let event = event(&upid, line).unwrap();
            (event.namespace, event.snapshot)
        };
        let line = "starting new backup on datastore 's1' from 10.0.0.1: \"ns/a/ns/b/vm/100/2026-11-28T10:00:00Z\"";
        assert_eq!(
            event(line),
            ("a/b".into(), "vm/100/2026-11-28T10:00:00Z".into())
        );
        let line =
            "starting new backup on datastore 's1' from 10.0.0.1: \"vm/100/2026-11-28T10:00:00Z\"";
        assert_eq!(
            event(line),
            (String::new(), "vm/100/2026-11-28T10:00:00Z".into())
        );
        assert_eq!(event(""), (String::new(), "vm/100".into()));
    }
}
