//! Groups whose owner cannot be told, and backups whose manifest cannot be read: they are on the disk, and cannot be restored as they
//! are.

use crate::facts::GroupFacts;
use crate::number::float_u;
use crate::{Code, Finding, Moment, State};

/// Backups that are named.
const NAMED: usize = 3;

pub fn judge(group: &GroupFacts, moment: &Moment, findings: &mut Vec<Finding>) {
    let object = group.object();
    let scope = group.scope();
    let count = group.unreadable.len();
    let mut parts = Vec::new();
    if count > 0 {
        let shown = group.unreadable.iter().take(NAMED);
        let shown: Vec<String> = shown.map(|time| moment.text(*time)).collect();
        let more = match count.saturating_sub(shown.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let noun = if count == 1 { "backup" } else { "backups" };
        parts.push(format!(
            "the manifest of {count} {noun} cannot be read: of {}{more}",
            shown.join(", ")
        ));
    }
    if let Some(reason) = &group.ownerless {
        parts.push(format!(
            "its owner cannot be told, so that nobody can back it up: {reason}"
        ));
    }
    let ok = |text: String| Finding::ok(Code::BackupUnreadable, &object, &scope, text);
    let finding = match parts.is_empty() {
        true => ok("its manifests and its owner can be read".to_owned()),
        false => ok(parts.join("; ")).bad(
            State::Critical,
            None,
            "look at the disk; sync a damaged backup anew from a good copy, or forget it; set an owner with 'proxmox-backup-client \
             change-owner'",
        ),
    };
    findings.push(finding.measured(float_u(count as u64), "", None, 0.0));
}
