//! Reading the kernel's text files below `/proc`.
//!
//! All functions take the text, and none of them fails: what is not there or not understood is left out.

/// Processor time of all cores since the host's start, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuTimes {
    total: u64,
    idle: u64,
    waiting: u64,
}

/// Shares of the processor time, 0 to 1.
pub(crate) struct CpuUse {
    pub(crate) busy: f64,
    pub(crate) waiting: f64,
}

impl CpuTimes {
    /// The host's start.
    pub(crate) const START: Self = Self {
        total: 0,
        idle: 0,
        waiting: 0,
    };

    /// Of `/proc/stat`.
    pub(crate) fn parse(stat: &str) -> Self {
        let times = processor_times(stat);
        let time = |index: usize| times.get(index).copied().unwrap_or_default();
        Self {
            // What guests use is part of the first two already.
            total: times
                .iter()
                .take(8)
                .fold(0, |sum: u64, time| sum.saturating_add(*time)),
            idle: time(3).saturating_add(time(4)),
            waiting: time(4),
        }
    }

    /// The use since `last`.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share of clock ticks needs no more precision than a float has"
    )]
    pub(crate) fn since(self, last: Self) -> CpuUse {
        let total = self.total.saturating_sub(last.total).max(1) as f64;
        let idle = self.idle.saturating_sub(last.idle) as f64;
        let waiting = self.waiting.saturating_sub(last.waiting) as f64;
        CpuUse {
            busy: (1.0 - idle / total).clamp(0.0, 1.0),
            waiting: (waiting / total).clamp(0.0, 1.0),
        }
    }
}

/// Processor time of all cores by use, in clock ticks, of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal,
/// guest, guest_nice, as far as the kernel tells them.
pub(super) fn processor_times(stat: &str) -> Vec<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let times = line.unwrap_or_default().split_ascii_whitespace();
    times.filter_map(|time| time.parse().ok()).collect()
}

/// Number of cores in `/proc/stat`.
pub(super) fn processors(stat: &str) -> u64 {
    let is_core = |line: &&str| {
        let number = line.strip_prefix("cpu");
        number.is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
    };
    stat.lines().filter(is_core).count() as u64
}

/// One line of `/proc/meminfo`, in bytes.
pub(crate) fn memory_value(meminfo: &str, name: &str) -> u64 {
    let value = meminfo
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes =
        value.and_then(|value| value.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or_default().saturating_mul(1024)
}

/// Processor time of a process, in clock ticks, of its `/proc/PID/stat`.
pub(crate) fn process_ticks(stat: &str) -> Option<u64> {
    // The name of the program is in parentheses and can hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    Some(
        user.parse::<u64>()
            .ok()?
            .saturating_add(system.parse().ok()?),
    )
}

/// The load averages of 1, 5 and 15 minutes of `/proc/loadavg`.
pub(crate) fn load_averages(text: &str) -> Vec<f64> {
    text.split_ascii_whitespace()
        .take(3)
        .filter_map(|load| load.parse().ok())
        .collect()
}

/// Bytes in and out since some start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// Received or read.
    pub(super) input: u64,
    /// Sent or written.
    pub(super) output: u64,
}

/// The network interfaces in `/proc/net/dev` with their traffic.
pub(super) fn interfaces(text: &str) -> impl Iterator<Item = (&str, Traffic)> {
    // The two lines of headings have no colon.
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(name, values)| {
        let value = |index| {
            let text = values.split_ascii_whitespace().nth(index);
            text.and_then(|text| text.parse::<u64>().ok())
                .unwrap_or_default()
        };
        let traffic = Traffic {
            input: value(0),
            output: value(8),
        };
        (name.trim(), traffic)
    })
}

/// The traffic of all network interfaces in `/proc/net/dev` that `counts` admits.
pub(super) fn network_traffic(text: &str, counts: impl Fn(&str) -> bool) -> Traffic {
    let mut sum = Traffic::default();
    for (_, traffic) in interfaces(text).filter(|(name, _)| counts(name)) {
        sum.input = sum.input.saturating_add(traffic.input);
        sum.output = sum.output.saturating_add(traffic.output);
    }
    sum
}

/// What a block device did since some start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DiskActivity {
    pub(super) read_ios: u64,
    pub(super) read_bytes: u64,
    pub(super) write_ios: u64,
    pub(super) write_bytes: u64,
    /// Time during which it had something to do, milliseconds.
    pub(super) busy: u64,
}

/// The activity of one block device in `/proc/diskstats`.
pub(super) fn disk_activity(text: &str, major: u32, minor: u32) -> Option<DiskActivity> {
    /// The kernel counts in these, whatever the device has.
    const SECTOR: u64 = 512;
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(13).collect();
        let is = |index: usize, wanted: u32| {
            fields.get(index).and_then(|text| text.parse().ok()) == Some(wanted)
        };
        if !is(0, major) || !is(1, minor) {
            return None;
        }
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(DiskActivity {
            read_ios: number(3)?,
            read_bytes: number(5)?.saturating_mul(SECTOR),
            write_ios: number(7)?,
            write_bytes: number(9)?.saturating_mul(SECTOR),
            // partitions of old kernels have none
            busy: number(12).unwrap_or_default(),
        })
    })
}

/// The device file behind a file system whose device number is not one of a disk, of `/proc/self/mountinfo`.
pub(super) fn mount_source(text: &str, major: u32, minor: u32) -> Option<&str> {
    let device = format!("{major}:{minor}");
    text.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        if mount.split(' ').nth(2)? != device {
            return None;
        }
        let source = file_system.split(' ').nth(1)?;
        source.starts_with("/dev/").then_some(source)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn processor_use_is_the_share_of_time_that_was_not_idle() {
        let first = CpuTimes::parse("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n");
        assert_eq!(
            first,
            CpuTimes {
                total: 1000,
                idle: 800,
                waiting: 100
            }
        );
        let second = CpuTimes::parse("cpu  130 0 120 730 120 0 0 0 0 0\n");
        let used = second.since(first);
        assert!((used.busy - 0.5).abs() < 1e-9);
        assert!((used.waiting - 0.2).abs() < 1e-9);
        assert!(CpuTimes::START.since(second).busy.is_finite());
    }

    #[test]
    fn memory_is_told_in_bytes() {
        let text = "MemTotal:       2 kB\nMemAvailable: 1 kB\n";
        assert_eq!(memory_value(text, "MemTotal"), 2048);
        assert_eq!(memory_value(text, "MemAvailable"), 1024);
        assert_eq!(memory_value(text, "Mem"), 0);
        assert_eq!(memory_value("", "MemTotal"), 0);
    }

    #[test]
    fn the_load_has_three_averages() {
        assert_eq!(
            load_averages("0.19 0.29 0.38 4/123 412\n"),
            [0.19, 0.29, 0.38]
        );
        assert!(load_averages("").is_empty());
    }

    #[test]
    fn only_admitted_interfaces_are_summed() {
        let text = "Inter-|   Receive                    |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n    \
                    lo: 99 1 0 0 0 0 0 0 99 1 0 0 0 0 0 0\n  \
                    eth0: 1000 7 0 0 0 0 0 0 50 3 0 0 0 0 0 0\n  \
                    eth1:234 7 0 0 0 0 0 0 5 3 0 0 0 0 0 0\n";
        let traffic = network_traffic(text, |name| name.starts_with("eth"));
        assert_eq!(
            traffic,
            Traffic {
                input: 1234,
                output: 55
            }
        );
        let cut = network_traffic("eth0: 1000 7\neth1:\n", |_| true);
        assert_eq!(
            cut,
            Traffic {
                input: 1000,
                output: 0
            }
        );
    }

    #[test]
    fn the_activity_of_a_disk_is_found_by_its_number() {
        let text =
            "   8       0 sda 1 2 3 4 5 6 7 8 0 1\n 254       1 vda1 9 9 100 9 9 9 200 9 0 9 9 9\n";
        let activity = disk_activity(text, 254, 1).unwrap();
        assert_eq!(
            (activity.read_bytes, activity.write_bytes),
            (51_200, 102_400)
        );
        let full = "8 1 sda1 11 2 33 4 55 6 77 8 9 1000 11 12";
        assert_eq!(
            disk_activity(full, 8, 1),
            Some(DiskActivity {
                read_ios: 11,
                read_bytes: 33 * 512,
                write_ios: 55,
                write_bytes: 77 * 512,
                busy: 1000
            })
        );
        assert_eq!(disk_activity(text, 254, 0), None);
        assert_eq!(disk_activity("254 1 vda1 9 9 100\n", 254, 1), None);
        assert_eq!(
            disk_activity(
                "8 0 sda 1 1 99999999999999999999 1 1 1 18446744073709551615",
                8,
                0
            ),
            None
        );
    }

    #[test]
    fn a_file_system_without_disk_number_leads_to_its_device_file() {
        let text = "22 27 0:21 / /proc rw - proc proc rw\n\
                    30 1 0:35 /sub /srv rw,noatime shared:1 master:2 - btrfs /dev/sda2 rw\n\
                    31 1 0:36 / /mnt rw - nfs4 server:/dev/x rw\n40 1 0:37";
        assert_eq!(mount_source(text, 0, 35), Some("/dev/sda2"));
        assert_eq!(mount_source(text, 0, 36), None);
        assert_eq!(mount_source(text, 0, 37), None);
    }
}
