//! How full the file system of a directory is, and what its disk has read and written. Blocks, possibly for ever.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Reading;
use super::kernel::{self, Traffic};

/// The state of one file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) total: u64,
    pub(super) used: u64,
    pub(super) available: u64,
    /// `None` for file systems that are not on one local disk.
    pub(super) traffic: Option<Traffic>,
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
            traffic: traffic(path),
        })
    }

    pub(super) fn readings(&self) -> Vec<Reading> {
        let mut readings = vec![
            Reading::bytes("disk_total", self.total),
            Reading::bytes("disk_used", self.used),
            Reading::bytes("disk_available", self.available),
        ];
        if let Some(traffic) = self.traffic {
            readings.push(Reading::traffic("disk_read", traffic.input));
            readings.push(Reading::traffic("disk_write", traffic.output));
        }
        readings
    }
}

/// What the disk below a file system has read and written, if that can be found out.
fn traffic(path: &Path) -> Option<Traffic> {
    let statistics = fs::read_to_string("/proc/diskstats").ok()?;
    let device = fs::metadata(path).ok()?.dev();
    let numbers = |device| (rustix::fs::major(device), rustix::fs::minor(device));
    let of = |device| {
        let (major, minor) = numbers(device);
        kernel::disk_traffic(&statistics, major, minor)
    };
    of(device).or_else(|| {
        // Some file systems have numbers of their own, not those of their disk.
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let (major, minor) = numbers(device);
        let source = kernel::mount_source(&mounts, major, minor)?;
        of(fs::metadata(source).ok()?.rdev())
    })
}
