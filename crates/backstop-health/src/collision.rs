//! Sync jobs that get into each other's way, or into that of backups made here.

use backstop_types::Namespace;

use crate::facts::{Facts, GroupFacts, TargetFacts, reaches};
use crate::{Code, Finding, State};

pub fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    let by_datastore = facts.groups_by_datastore();
    for target in &facts.targets {
        // What cannot be looked at keeps what was said of it.
        if facts.listed.contains(&target.datastore) {
            let groups = by_datastore.get(target.datastore.as_str());
            findings.push(owners(target, groups.map_or(&[], Vec::as_slice)));
        }
        findings.push(others(target, &facts.targets));
    }
}

fn writes_to(target: &TargetFacts, namespace: &Namespace) -> bool {
    reaches(&target.namespace, target.depth, namespace)
}

/// Groups at its target that somebody else owns: they are not synced, and one of the same name from the source is refused.
fn owners(target: &TargetFacts, groups: &[&GroupFacts]) -> Finding {
    let object = format!("job/sync/{}", target.job);
    let foreign: Vec<_> = groups
        .iter()
        .filter(|group| writes_to(target, &group.namespace))
        .filter(|group| !owns(&target.owner, group.owner.as_deref()))
        .collect();
    let code = Code::OwnerCollision;
    let Some(first) = foreign.first() else {
        return Finding::ok(
            code,
            &object,
            &target.scope,
            "nobody else owns groups where it writes to",
        );
    };
    let count = foreign.len();
    let noun = if count == 1 { "group" } else { "groups" };
    let text = format!(
        "{count} {noun} where it writes to belong to others than {}, such as {} of {}",
        target.owner,
        first.object(),
        first.owner.as_deref().unwrap_or("nobody")
    );
    Finding::ok(code, &object, &target.scope, text).bad(
        State::Warning,
        None,
        format!(
            "let it write to a namespace of its own, so that equal names are no trouble: proxmox-backup-manager sync-job update {} --ns \
             NAMESPACE",
            target.job
        ),
    )
}

/// Whether an owner is the wanted one, or a token of the same user.
fn owns(wanted: &str, owner: Option<&str>) -> bool {
    let Some(owner) = owner else { return false };
    let user = |auth_id: &str| auth_id.split('!').next().unwrap_or_default().to_owned();
    owner == wanted || (!wanted.contains('!') && user(owner) == wanted)
}

/// Other jobs that write to the same place from somewhere else.
fn others(target: &TargetFacts, all: &[TargetFacts]) -> Finding {
    let object = format!("job/sync/{}", target.job);
    let meets = |other: &&TargetFacts| {
        other.job != target.job
            && other.datastore == target.datastore
            && other.source != target.source
            && other.takes_all
            && target.takes_all
            && (writes_to(target, &other.namespace) || writes_to(other, &target.namespace))
    };
    let jobs: Vec<&str> = all
        .iter()
        .filter(meets)
        .map(|other| other.job.as_str())
        .collect();
    let code = Code::TargetCollision;
    if jobs.is_empty() {
        return Finding::ok(
            code,
            &object,
            &target.scope,
            "no other job writes to its place",
        );
    }
    let text = format!(
        "also written to from elsewhere by {}; groups of the same name get mixed up",
        jobs.join(", ")
    );
    Finding::ok(code, &object, &target.scope, text).bad(
        State::Warning,
        None,
        format!(
            "give each source a namespace of its own: proxmox-backup-manager sync-job update {} --ns NAMESPACE",
            target.job
        ),
    )
}
