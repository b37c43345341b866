//! The files `active` and `archive`, and the rotated archives.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use backstop_datastore::ownership;

use backstop_types::Upid;
use rustix::fs::{FlockOperation, flock};

use super::TaskError;
use super::entry::TaskEntry;
use super::log::read_status;

const LOCK_WAIT: Duration = Duration::from_secs(15);
/// Most that is read of one list file, after decompression. Stock rotates at 512 KiB.
const MAX_LIST: u64 = 64 * 1024 * 1024;

/// The task lists of one log directory. All methods block.
#[derive(Debug, Clone)]
pub struct TaskList {
    folder: PathBuf,
}

impl TaskList {
    /// The lists in `folder`, which is `tasks` below the log directory.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The log directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds a new task to `active` and moves every entry that `is_running` denies to `archive`.
    ///
    /// # Errors
    /// When the lock cannot be had in 15 s, or a file cannot be read or written.
    pub fn update(
        &self,
        add: Option<&Upid>,
        is_running: &dyn Fn(&Upid) -> bool,
    ) -> Result<(), TaskError> {
        let _lock = self.lock(FlockOperation::NonBlockingLockExclusive)?;
        let active_path = self.folder.join("active");
        let before = read_list(&active_path)?;
        let (mut active, finished): (Vec<_>, Vec<_>) = before
            .iter()
            .partition(|entry| entry.end.is_none() && is_running(&entry.upid));
        let mut finished: Vec<TaskEntry> = finished
            .into_iter()
            .map(|entry| match &entry.end {
                Some(_) => entry.clone(),
                None => TaskEntry {
                    upid: entry.upid.clone(),
                    end: Some(read_status(&self.folder, &entry.upid)),
                },
            })
            .collect();
        finished.sort_by_key(|entry| entry.end.as_ref().map(|(time, _)| *time));
        let new = add.map(|upid| TaskEntry {
            upid: upid.clone(),
            end: None,
        });
        active.extend(new.as_ref());
        // The archive comes first: a crash in between leaves an entry in both, not in neither.
        if !finished.is_empty() {
            append(&self.folder.join("archive"), &lines(finished.iter()))?;
        }
        if new.is_some() || !finished.is_empty() {
            replace(&active_path, &lines(active.into_iter()))?;
        }
        Ok(())
    }

    /// Visits tasks, newest first: those in `active`, then, unless `active_only`, the archives.
    ///
    /// # Errors
    /// When the lock cannot be had or a file cannot be read. A line that cannot be understood is skipped.
    pub fn visit(
        &self,
        active_only: bool,
        visitor: &mut dyn FnMut(TaskEntry) -> ControlFlow<()>,
    ) -> Result<(), TaskError> {
        let _lock = self.lock(FlockOperation::NonBlockingLockShared)?;
        let mut files = vec![self.folder.join("active")];
        if !active_only {
            files.extend(self.archives()?);
        }
        for file in files {
            for entry in read_list(&file)?.into_iter().rev() {
                if visitor(entry).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    pub(super) fn lock(&self, operation: FlockOperation) -> Result<File, TaskError> {
        let path = self.folder.join(".active.lock");
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o660)
            .open(&path)
            .map_err(TaskError::file("open", &path))?;
        ownership::inherit(&file, &path).map_err(TaskError::file("set the owner of", &path))?;
        let begin = Instant::now();
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR)
                    if begin.elapsed() < LOCK_WAIT =>
                {
                    sleep(Duration::from_millis(20));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(TaskError::Locked {
                        path,
                        seconds: LOCK_WAIT.as_secs(),
                    });
                }
                Err(err) => return Err(TaskError::file("lock", &path)(err.into())),
            }
        }
    }
}

fn lines<'a>(entries: impl Iterator<Item = &'a TaskEntry>) -> String {
    entries.map(|entry| entry.line() + "\n").collect()
}

/// The entries of one file; a missing file has none.
pub(super) fn read_list(path: &Path) -> Result<Vec<TaskEntry>, TaskError> {
    let read = || {
        let file = match File::open(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        let mut content = Vec::new();
        if path.extension().is_some_and(|extension| extension == "zst") {
            zstd::stream::read::Decoder::new(file)?
                .take(MAX_LIST)
                .read_to_end(&mut content)?;
        } else {
            file.take(MAX_LIST).read_to_end(&mut content)?;
        }
        Ok(content)
    };
    let content = read().map_err(TaskError::file("read", path))?;
    let text = String::from_utf8_lossy(&content);
    let entries = text.lines().filter(|line| !line.is_empty()).filter_map(|line| {
        let entry = TaskEntry::parse(line);
        if entry.is_none() {
            tracing::warn!(path = %path.display(), line, "skipping a line of a task list that makes no sense");
        }
        entry
    });
    Ok(entries.collect())
}

fn append(path: &Path, text: &str) -> Result<(), TaskError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o660)
        .open(path)
        .and_then(|mut file| {
            ownership::inherit(&file, path)?;
            file.write_all(text.as_bytes())
        })
        .map_err(TaskError::file("append to", path))
}

/// Puts a new file in the place of `path`.
fn replace(path: &Path, text: &str) -> Result<(), TaskError> {
    let temporary = path.with_extension(format!("tmp_{}", std::process::id()));
    let write = || {
        fs::write(&temporary, text)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o660))?;
        ownership::inherit(&File::open(&temporary)?, &temporary)?;
        fs::rename(&temporary, path)
    };
    write().map_err(TaskError::file("write", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use backstop_types::record::TaskState;

    fn upid(number: u64) -> Upid {
        format!("UPID:vm:00005C0A:00053ECE:{number:08X}:6B00B699:prune:store1:root@pam:")
            .parse()
            .unwrap()
    }

    fn all(list: &TaskList) -> Vec<(u64, bool)> {
        let mut seen = Vec::new();
        list.visit(false, &mut |entry| {
            seen.push((entry.upid.task_id, entry.end.is_some()));
            ControlFlow::Continue(())
        })
        .unwrap();
        seen
    }

    #[test]
    fn a_task_moves_from_the_list_of_running_ones_to_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        let list = TaskList::new(dir.path().to_owned());
        list.update(Some(&upid(1)), &|_| true).unwrap();
        list.update(Some(&upid(2)), &|_| true).unwrap();
        assert_eq!(all(&list), [(2, false), (1, false)]);
        list.update(None, &|upid| upid.task_id == 2).unwrap();
        assert_eq!(all(&list), [(2, false), (1, true)]);
        let archive = fs::read_to_string(dir.path().join("archive")).unwrap();
        assert_eq!(archive, format!("{} 6B00B699 unknown\n", upid(1)));
    }

    #[test]
    fn rotated_archives_come_after_the_current_one() {
        let dir = tempfile::tempdir().unwrap();
        let list = TaskList::new(dir.path().to_owned());
        let line = |number| {
            TaskEntry {
                upid: upid(number),
                end: Some((7, TaskState::Ok)),
            }
            .line()
                + "\n"
        };
        fs::write(
            dir.path().join("archive"),
            line(9) + "rubbish\n" + &line(10),
        )
        .unwrap();
        fs::write(dir.path().join("archive.1"), line(8)).unwrap();
        let packed = zstd::encode_all((line(6) + &line(7)).as_bytes(), 1).unwrap();
        fs::write(dir.path().join("archive.2.zst"), packed).unwrap();
        fs::write(dir.path().join("archive.10"), line(1)).unwrap();
        fs::write(dir.path().join("archive.bak"), line(2)).unwrap();
        let ids: Vec<u64> = all(&list).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [10, 9, 8, 7, 6, 1]);
    }
}
