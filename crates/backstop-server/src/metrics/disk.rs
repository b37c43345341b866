//! How full the file system of a directory is, and what its disk has read and written. Blocks, possibly for ever.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::kernel::{self, DiskActivity};
use super::{Kind, Reading, float};
use crate::rrd::Measured;

/// The state of one file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(super) total: u64,
    pub(super) used: u64,
    pub(super) available: u64,
    /// `None` for file systems that are not on one local disk.
    pub(super) activity: Option<DiskActivity>,
}

impl Disk {
    /// The file system that holds `path`.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let space = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        Ok(Self {
            total: bytes(space.f_blocks),
            used: bytes(space.f_blocks.saturating_sub(space.f_bfree)),
            available: bytes(space.f_bavail),
            activity: activity(path),
        })
    }

    pub(super) fn readings(&self) -> Vec<Reading> {
        let mut readings = vec![
            Reading::bytes("disk_total", self.total),
            Reading::bytes("disk_used", self.used),
            Reading::bytes("disk_available", self.available),
        ];
        if let Some(activity) = self.activity {
            readings.push(Reading::traffic("disk_read", activity.read_bytes));
            readings.push(Reading::traffic("disk_write", activity.write_bytes));
        }
        readings
    }

    /// All of it, under the names that metric servers know.
    pub(super) fn values(&self) -> Vec<(&'static str, f64)> {
        let mut values = vec![
            ("total", float(self.total)),
            ("used", float(self.used)),
            ("avail", float(self.available)),
        ];
        if let Some(activity) = self.activity {
            values.extend([
                ("read_ios", float(activity.read_ios)),
                ("read_bytes", float(activity.read_bytes)),
                ("write_ios", float(activity.write_ios)),
                ("write_bytes", float(activity.write_bytes)),
                ("io_ticks", float(activity.busy)),
            ]);
        }
        values
    }

    /// What only the long history keeps.
    pub(super) fn more(&self) -> Vec<Measured<'static>> {
        let Some(activity) = self.activity else {
            return Vec::new();
        };
        vec![
            ("read_ios", Kind::Derive, float(activity.read_ios)),
            ("write_ios", Kind::Derive, float(activity.write_ios)),
            ("io_ticks", Kind::Derive, float(activity.busy) / 1000.0),
        ]
    }
}

/// What the disk below a file system has read and written, if that can be found out.
fn activity(path: &Path) -> Option<DiskActivity> {
    let statistics = fs::read_to_string("/proc/diskstats").ok()?;
    let device = fs::metadata(path).ok()?.dev();
    let numbers = |device| (rustix::fs::major(device), rustix::fs::minor(device));
    let of = |device| {
        let (major, minor) = numbers(device);
        kernel::disk_activity(&statistics, major, minor)
    };
    of(device).or_else(|| {
        // Some file systems have numbers of their own, not those of their disk.
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let (major, minor) = numbers(device);
        let source = kernel::mount_source(&mounts, major, minor)?;
        of(fs::metadata(source).ok()?.rdev())
    })
}
