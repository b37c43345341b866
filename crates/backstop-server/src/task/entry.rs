//! One line of a task list.

use backstop_types::Upid;
use backstop_types::record::TaskState;

/// A task as the lists know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEntry {
    /// Its id.
    pub upid: Upid,
    /// When it ended (Unix seconds) and how; `None` while it runs.
    pub end: Option<(i64, TaskState)>,
}

impl TaskEntry {
    /// Parses a line: `UPID`, or `UPID ENDTIME STATUS` with the time in hexadecimal digits.
    pub fn parse(line: &str) -> Option<Self> {
        let Some((upid, rest)) = line.split_once(' ') else {
            return Some(Self {
                upid: line.parse().ok()?,
                end: None,
            });
        };
        let (time, status) = rest.split_once(' ')?;
        let time = i64::from_str_radix(time, 16).ok()?;
        Some(Self {
            upid: upid.parse().ok()?,
            end: Some((time, TaskState::parse(status))),
        })
    }

    /// The line, without its end.
    pub fn line(&self) -> String {
        match &self.end {
            None => self.upid.to_string(),
            // A line break in an error text would break the list.
            Some((time, status)) => format!(
                "{} {time:08X} {}",
                self.upid,
                status.to_string().replace('\n', " ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn every_line_of_the_reference_archives_survives() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
        for version in ["pbs-3.2.4", "pbs-4.2.3"] {
            let archive = format!("{root}/{version}/var-log-proxmox-backup/tasks/archive");
            for line in std::fs::read_to_string(archive).unwrap().lines() {
                assert_eq!(TaskEntry::parse(line).unwrap().line(), line);
            }
        }
    }

    #[test]
    fn a_broken_line_is_no_entry() {
        let upid = "UPID:vm:00005C0A:00053ECE:00000000:6B00B699:create-datastore:store1:root@pam:";
        assert!(TaskEntry::parse(upid).unwrap().end.is_none());
        for line in [
            "",
            "nope",
            &format!("{upid} XYZ OK"),
            &format!("{upid} 6B00B69B"),
        ] {
            assert!(TaskEntry::parse(line).is_none(), "{line}");
        }
    }
}
