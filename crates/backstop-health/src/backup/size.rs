//! Shrunk or grown beyond reason.

use super::{About, bytes};
use crate::number::{float, median};
use crate::{Code, Finding, State};

/// Earlier backups whose sizes must be known.
const ENOUGH: usize = 4;
/// Earlier backups whose sizes count.
const SIZES: usize = 12;
/// Smaller differences are none, in bytes.
const LEAST_DIFFERENCE: i64 = 64 << 20;
/// What is usually smaller holds next to nothing anyway, in bytes.
const LEAST_CONTENT: i64 = 16 << 10;

impl About<'_> {
    pub(super) fn size(&self) -> Finding {
        let code = Code::BackupSize;
        let mut sizes = self.group.newest.iter().filter_map(|snapshot| {
            let size = snapshot.size?;
            Some((snapshot.time, i64::try_from(size).unwrap_or(i64::MAX)))
        });
        let Some((time, size)) = sizes.next() else {
            return self.ok(code, "the size of no backup is known");
        };
        let mut earlier: Vec<i64> = sizes.map(|(_, size)| size).take(SIZES).collect();
        let known = earlier.len();
        let usual = match median(&mut earlier) {
            Some(usual) if known >= ENOUGH => usual,
            _ => {
                let text = format!(
                    "{known} of the {ENOUGH} earlier backups are known that tell what is usual"
                );
                return self.ok(code, text);
            }
        };
        // A group whose sizes vary is given more room: eight times the middle deviation.
        let mut deviations: Vec<i64> = earlier
            .iter()
            .map(|size| size.saturating_sub(usual).saturating_abs())
            .collect();
        let deviation = median(&mut deviations).unwrap_or(0);
        let room = deviation.saturating_mul(8).max(LEAST_DIFFERENCE);
        let (smaller, larger) = (usual.saturating_sub(size), size.saturating_sub(usual));
        let (shrunk, grown) = (smaller > room, larger > room);
        // Next to nothing is left: that counts for small groups, too, and for those that vary.
        let vanished =
            size < usual / 100 && smaller > deviation.saturating_mul(2).max(LEAST_CONTENT);
        let state = match () {
            () if vanished || (shrunk && size < usual / 10) => State::Critical,
            () if shrunk && size < usual / 2 => State::Warning,
            () if grown && size / 3 > usual => State::Warning,
            () => State::Ok,
        };
        let text = format!(
            "the backup of {} has {}; {} is usual",
            self.moment.text(time),
            bytes(size),
            bytes(usual)
        );
        let finding = self.ok(code, text);
        let finding = match state {
            State::Ok => finding,
            state if size < usual => finding.bad(
                state,
                Some(time),
                "see whether something is missing in it, such as a disk or a directory that was not mounted",
            ),
            state => finding.bad(state, Some(time), "see what has grown in it, and whether the datastore has room for more"),
        };
        finding.measured(float(size), "B", None, None)
    }
}
