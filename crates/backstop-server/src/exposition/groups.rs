//! Backup groups, as health saw them last.

use backstop_health::facts::GroupFacts;

use super::families::{ExpositionError, Families, number, seconds};
use crate::health::Checked;

/// Shows a number of a group.
type OfGroup = (&'static str, &'static str, fn(&GroupFacts) -> Option<f64>);

const OF_GROUP: &[OfGroup] = &[
    (
        "backstop_group_last_snapshot_timestamp_seconds",
        "Time of the newest finished snapshot of a group.",
        |group| group.newest.first().map(|newest| seconds(newest.time)),
    ),
    (
        "backstop_group_last_snapshot_bytes",
        "Size of the newest finished snapshot of a group, as its files were.",
        |group| {
            group
                .newest
                .first()
                .and_then(|newest| newest.size)
                .map(number)
        },
    ),
    (
        "backstop_group_damaged_snapshots",
        "Snapshots of a group in which verification found damage.",
        |group| Some(number(group.damaged.len() as u64)),
    ),
    (
        "backstop_group_verified_timestamp_seconds",
        "When a snapshot of a group was last verified.",
        |group| group.verified.map(seconds),
    ),
];

pub(super) fn add(checked: &Checked, families: &Families) -> Result<(), ExpositionError> {
    for (name, help, value) in OF_GROUP {
        let gauges = families.gauges(name, help, &["datastore", "namespace", "group"])?;
        for group in &checked.groups {
            let namespace = group.namespace.to_string();
            let labels = [group.datastore.as_str(), &namespace, &group.group];
            gauges.show(&labels, value(group))?;
        }
    }
    Ok(())
}
