//! From what was accepted to the lanes of its targets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::unfinished::Unfinished;
use super::{Dispatch, DispatchError, MOST_UNKEPT, io, remove};
use crate::matcher::{self, Matcher};
use crate::notification::Notification;

/// Largest notification that is read, in bytes.
const MAX_SIZE: u64 = 4 << 20;

/// What became of what was accepted.
#[derive(Debug, Default)]
pub struct Sorted {
    /// How many notifications were given to how many targets.
    pub queued: usize,
    /// How many targets were spared a repeat.
    pub folded: usize,
    /// What could not be kept, to be sent at once.
    pub unkept: Vec<(String, Notification)>,
    /// What went wrong, for the log.
    pub problems: Vec<String>,
}

/// One that was accepted.
struct Incoming {
    path: Option<PathBuf>,
    modified: SystemTime,
    notification: Notification,
}

impl Dispatch {
    /// Gives what was accepted to the lanes of its targets. What cannot be given to all of them is remembered, and its file stays.
    ///
    /// # Errors
    /// When the folder cannot be listed; single files are among the problems.
    pub fn sort(
        &self,
        matchers: &[Matcher],
        zone: &TimeZone,
        now: i64,
    ) -> Result<Sorted, DispatchError> {
        let mut sorting = self.sorting.lock();
        let mut sorted = Sorted::default();
        let mut found = self.read_incoming(&sorting.unfinished, &mut sorted)?;
        let unkept = std::mem::take(&mut *self.unkept.lock());
        found.extend(unkept.into_iter().map(|notification| Incoming {
            path: None,
            modified: SystemTime::now(),
            notification,
        }));
        if found.is_empty() && sorting.unfinished.is_empty() {
            return Ok(sorted);
        }
        // Stable: what is in memory keeps its order.
        found.sort_by_key(|incoming| (incoming.notification.time, incoming.modified));
        let mut repeats = match sorting.ahead.take() {
            Some(repeats) => repeats,
            None => self.load(&mut sorted.problems),
        };
        self.finish(&mut sorting.unfinished, now, &mut sorted);
        let mut is_changed = false;
        for Incoming {
            path, notification, ..
        } in found
        {
            if !repeats.is_handled(&notification.id) {
                let targets = match &notification.to {
                    Some(to) if to.is_empty() => BTreeSet::new(),
                    Some(to) => BTreeSet::from([to.clone()]),
                    None => matcher::targets(matchers, &notification, zone),
                };
                let plan = repeats.plan(&notification, &targets);
                is_changed = true;
                sorted.folded += plan.folded.len();
                let left = Unfinished::of(path.clone(), plan.sends);
                if self.go_on(
                    left,
                    &notification.id,
                    now,
                    &mut sorting.unfinished,
                    &mut sorted,
                ) {
                    continue;
                }
                // Kept before the file is removed: it is not planned twice then.
                if sorting.unfinished.is_empty() {
                    self.store(&repeats, &mut sorted.problems);
                    is_changed = false;
                }
            }
            remove(path.as_deref(), &mut sorted.problems);
        }
        // What is remembered says that all were told. As long as some were not, it stays in memory, and their files on the disk: after a
        // crash they are planned anew.
        if !sorting.unfinished.is_empty() {
            sorting.ahead = Some(repeats);
        } else if is_changed || sorted.queued > 0 {
            self.store(&repeats, &mut sorted.problems);
        }
        Ok(sorted)
    }

    /// Gives a notification to the lanes that it was not given to before; says whether some of it is left.
    fn go_on(
        &self,
        mut left: Unfinished,
        id: &Uuid,
        now: i64,
        unfinished: &mut BTreeMap<Uuid, Unfinished>,
        sorted: &mut Sorted,
    ) -> bool {
        left.sends.retain_mut(
            |send| match self.spool.add(&send.target, &send.telling, now) {
                Ok(_) => {
                    sorted.queued += 1;
                    false
                }
                Err(err) => {
                    if send.is_due(now) {
                        let target = &send.target;
                        sorted
                            .problems
                            .push(format!("'{target}' is told without being kept - {err}"));
                        sorted.unkept.push((target.clone(), send.telling.clone()));
                    }
                    true
                }
            },
        );
        if left.sends.is_empty() {
            return false;
        }
        let in_memory = unfinished.values().filter(|left| left.path.is_none());
        if left.path.is_none() && in_memory.count() >= MOST_UNKEPT {
            sorted.problems.push(format!(
                "a notification is lost: {MOST_UNKEPT} are in memory, as the disk refuses them"
            ));
            return true;
        }
        unfinished.insert(*id, left);
        true
    }

    fn finish(&self, unfinished: &mut BTreeMap<Uuid, Unfinished>, now: i64, sorted: &mut Sorted) {
        for (id, left) in std::mem::take(unfinished) {
            let path = left.path.clone();
            if !self.go_on(left, &id, now, unfinished, sorted) {
                remove(path.as_deref(), &mut sorted.problems);
            }
        }
    }

    /// All that was accepted and not begun with. What cannot be read is set aside, so that it is said once.
    fn read_incoming(
        &self,
        unfinished: &BTreeMap<Uuid, Unfinished>,
        sorted: &mut Sorted,
    ) -> Result<Vec<Incoming>, DispatchError> {
        let list = std::fs::read_dir(&self.incoming).map_err(io("list", &self.incoming))?;
        let mut found = Vec::new();
        for entry in list {
            let path = entry.map_err(io("list", &self.incoming))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(incoming) if unfinished.contains_key(&incoming.notification.id) => {}
                Ok(incoming) => found.push(incoming),
                Err(reason) => {
                    let aside = path.with_extension("unreadable");
                    let moved = std::fs::rename(&path, &aside);
                    let moved = moved.map_or_else(
                        |err| format!("and cannot be set aside - {err}"),
                        |()| format!("set aside as {aside:?}"),
                    );
                    sorted.problems.push(format!(
                        "the notification {path:?} cannot be read: {reason}; {moved}"
                    ));
                }
            }
        }
        Ok(found)
    }
}

fn read(path: &Path) -> Result<Incoming, String> {
    let failed = |err: std::io::Error| err.to_string();
    let found = std::fs::symlink_metadata(path).map_err(failed)?;
    if !found.is_file() || found.len() > MAX_SIZE {
        return Err("it is no file of a notification".to_owned());
    }
    let text = std::fs::read(path).map_err(failed)?;
    Ok(Incoming {
        path: Some(path.to_owned()),
        modified: found.modified().map_err(failed)?,
        notification: serde_json::from_slice(&text).map_err(|err| err.to_string())?,
    })
}
