//! Task log files: written line by line, read in pages, and asked how the task ended.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use backstop_datastore::ownership;

use backstop_types::Upid;
use backstop_types::record::TaskState;
use jiff::{Timestamp, Zoned};
use parking_lot::Mutex;

use super::TaskError;
use super::repeats::Repeats;

/// Length of the time stamp before each line, as in `2026-11-20T21:08:12+00:00`.
const STAMP: usize = 25;
/// How much of a log's end is searched for the status.
const TAIL: u64 = 8192;
/// Longest line that a reply carries, in bytes; the rest of such a line is left out.
const MAX_LINE: u64 = 64 * 1024;

/// Where the log of a task is.
pub fn path_of(tasks: &Path, upid: &Upid) -> PathBuf {
    tasks.join(upid.log_dir_name()).join(upid.to_string())
}

/// The log of a running task.
#[derive(Debug)]
pub struct TaskLog {
    path: PathBuf,
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    file: File,
    repeats: Repeats,
}

impl TaskLog {
    /// Creates the log of a new task.
    ///
    /// # Errors
    /// When the file exists already or cannot be created.
    pub fn create(tasks: &Path, upid: &Upid) -> Result<Self, TaskError> {
        let path = path_of(tasks, upid);
        let folder = path.parent().unwrap_or(tasks);
        ownership::create_dir_all(folder, 0o755).map_err(TaskError::file("create", folder))?;
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)
            .map_err(TaskError::file("create", &path))?;
        ownership::inherit(&file, &path).map_err(TaskError::file("set the owner of", &path))?;
        Ok(Self {
            path,
            writer: Mutex::new(Writer {
                file,
                repeats: Repeats::default(),
            }),
        })
    }

    /// Appends a message; only its first line gets a time stamp. A message that comes again and again is counted.
    pub fn write(&self, text: &str) {
        let mut writer = self.writer.lock();
        let lines = writer.repeats.take(Instant::now(), text);
        self.append(&mut writer.file, &Zoned::now(), &lines);
    }

    /// Appends the last message, after what is left to be told about repeated ones.
    pub fn finish(&self, text: &str) {
        let mut writer = self.writer.lock();
        let mut lines: Vec<String> = writer.repeats.flush().into_iter().collect();
        lines.push(text.to_owned());
        self.append(&mut writer.file, &Zoned::now(), &lines);
    }

    fn append(&self, file: &mut File, now: &Zoned, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        let stamp = now.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        let text: String = lines
            .iter()
            .map(|line| format!("{stamp}: {line}\n"))
            .collect();
        if let Err(err) = file.write_all(text.as_bytes()) {
            tracing::error!(path = %self.path.display(), %err, line = text.trim_end(), "unable to write to a task log");
        }
    }
}

/// How and when a finished task ended, as its log tells. The start time stands in when the log tells nothing.
pub fn read_status(tasks: &Path, upid: &Upid) -> (i64, TaskState) {
    let unknown = (upid.starttime, TaskState::Unknown);
    let Ok(tail) = read_tail(&path_of(tasks, upid)) else {
        return unknown;
    };
    let text = String::from_utf8_lossy(&tail);
    for line in text.trim_end_matches('\n').rsplit('\n') {
        let Some(time) = line
            .get(..STAMP)
            .and_then(|stamp| stamp.parse::<Timestamp>().ok())
        else {
            continue;
        };
        let Some(message) = line.get(STAMP..).and_then(|rest| rest.strip_prefix(": ")) else {
            continue;
        };
        return (
            time.as_second(),
            state_of_log_line(message).unwrap_or(TaskState::Unknown),
        );
    }
    unknown
}

/// Understands the last line of a log, without its time stamp; `None` for an ordinary line.
fn state_of_log_line(line: &str) -> Option<TaskState> {
    let text = line.strip_prefix("TASK ")?;
    match text.strip_prefix("ERROR: ") {
        Some(error) => Some(TaskState::Error(error.to_owned())),
        None => match TaskState::parse(text) {
            TaskState::Error(_) => None,
            state => Some(state),
        },
    }
}

fn read_tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    Ok(tail)
}

/// Some lines of a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// Line numbers, counted from 1, and texts.
    pub lines: Vec<(u64, String)>,
    /// Number of lines in the whole log.
    pub total: u64,
}

/// Reads up to `limit` lines from line `start` on (0 and 1 both mean the first); a `limit` of 0 means all. Blocking.
///
/// # Errors
/// When the log cannot be read.
pub fn read_page(path: &Path, start: u64, limit: u64) -> Result<LogPage, TaskError> {
    let read = || {
        let mut reader = BufReader::new(File::open(path)?);
        let mut page = LogPage::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader
                .by_ref()
                .take(MAX_LINE)
                .read_until(b'\n', &mut line)?
                == 0
            {
                return Ok(page);
            }
            if line.last() != Some(&b'\n') {
                reader.skip_until(b'\n')?;
            }
            page.total += 1;
            let wanted = page.total >= start && (limit == 0 || (page.lines.len() as u64) < limit);
            if wanted {
                let text = line.strip_suffix(b"\n").unwrap_or(&line);
                page.lines
                    .push((page.total, String::from_utf8_lossy(text).into_owned()));
            }
        }
    };
    read().map_err(TaskError::file("open file", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::fs;

    use super::*;

    fn upid() -> Upid {
        "UPID:vm:00005C0A:00053ECE:00000000:6B00B699:create-datastore:store1:root@pam:"
            .parse()
            .unwrap()
    }

    fn log_with(text: &str) -> (tempfile::TempDir, (i64, TaskState)) {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), &upid());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let status = read_status(dir.path(), &upid());
        (dir, status)
    }

    #[test]
    fn a_line_starts_with_local_time_and_offset() {
        let dir = tempfile::tempdir().unwrap();
        let log = TaskLog::create(dir.path(), &upid()).unwrap();
        let now = "2026-11-20T21:08:12+02:00[+02:00]".parse().unwrap();
        log.append(
            &mut log.writer.lock().file,
            &now,
            &["one\ntwo".to_owned(), "three".to_owned()],
        );
        let text = fs::read_to_string(path_of(dir.path(), &upid())).unwrap();
        assert_eq!(
            text,
            "2026-11-20T21:08:12+02:00: one\ntwo\n2026-11-20T21:08:12+02:00: three\n"
        );
        assert!(TaskLog::create(dir.path(), &upid()).is_err());
    }

    #[test]
    fn repeated_messages_are_counted_before_the_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = TaskLog::create(dir.path(), &upid()).unwrap();
        (0..500).for_each(|_| log.write("stale"));
        log.finish("TASK OK");
        let page = read_page(&path_of(dir.path(), &upid()), 0, 0).unwrap();
        let messages: Vec<&str> = page.lines.iter().map(|(_, line)| &line[27..]).collect();
        assert_eq!(
            messages,
            ["stale", "last message repeated 499 times", "TASK OK"]
        );
    }

    #[test]
    fn the_last_line_with_a_time_tells_how_the_task_ended() {
        let ok = "2026-11-20T21:08:12+00:00: x\n2026-11-20T21:08:13+00:00: TASK ERROR: it broke\nin two lines\n\n";
        assert_eq!(
            log_with(ok).1,
            (1795208893, TaskState::Error("it broke".into()))
        );
        let died = "2026-11-20T21:08:12+00:00: x\n";
        assert_eq!(log_with(died).1, (1795208892, TaskState::Unknown));
        assert_eq!(
            log_with("nothing of use").1,
            (upid().starttime, TaskState::Unknown)
        );
    }

    #[test]
    fn a_state_survives_the_log() {
        for state in [
            TaskState::Ok,
            TaskState::Warnings(2),
            TaskState::Error("no such thing".into()),
            TaskState::Unknown,
        ] {
            assert_eq!(state_of_log_line(&state.log_line()), Some(state));
        }
        assert_eq!(state_of_log_line("TASK is a word"), None);
        assert_eq!(state_of_log_line("verify done"), None);
    }

    #[test]
    fn pages_count_from_one_and_know_the_whole() {
        let (dir, _) = log_with("a\nb\nc\nd");
        let path = path_of(dir.path(), &upid());
        for start in [0, 1] {
            let page = read_page(&path, start, 2).unwrap();
            assert_eq!(
                page,
                LogPage {
                    lines: vec![(1, "a".into()), (2, "b".into())],
                    total: 4
                }
            );
        }
        assert_eq!(
            read_page(&path, 3, 0).unwrap().lines,
            [(3, "c".into()), (4, "d".into())]
        );
        assert_eq!(
            read_page(&path, 9, 5).unwrap(),
            LogPage {
                lines: vec![],
                total: 4
            }
        );
    }

    #[test]
    fn a_line_of_any_length_is_one_line_of_bounded_size() {
        let (dir, _) = log_with(&format!("{}\nb\n", "a".repeat(200_000)));
        let page = read_page(&path_of(dir.path(), &upid()), 0, 0).unwrap();
        assert_eq!(page.total, 2);
        assert_eq!(page.lines[0].1.len() as u64, MAX_LINE);
        assert_eq!(page.lines[1].1, "b");
    }
}
