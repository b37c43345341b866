//! Places of which backups are expected, and that hold no group at all, or are not there.

use super::stale::NO_BACKUP;
use crate::facts::{Facts, GroupFacts, group_object};
use crate::{Code, Expectation, Finding, Moment, Place, Scope, Settings, State};

pub(super) fn judge(
    facts: &Facts,
    settings: &Settings,
    moment: &Moment,
    findings: &mut Vec<Finding>,
) {
    let groups = facts.groups_by_datastore();
    for made in &settings.expectations {
        let place = &made.place;
        let Some((limit, _)) = made.every.limits() else {
            continue;
        };
        let is_configured = |name: &str| facts.datastores.iter().any(|known| known.name == name);
        if facts.knows_datastores && !is_configured(&place.datastore) {
            findings.push(nowhere(made));
            continue;
        }
        let known = groups.get(place.datastore.as_str());
        let is_listed = facts.listed.contains(&place.datastore);
        if !is_listed || known.is_some_and(|groups| groups.iter().any(|one| is_here(place, one))) {
            continue;
        }
        let due = made.made_at.saturating_add(limit);
        let text = format!(
            "there is no backup of {place}; one every {} is expected",
            made.every
        );
        let finding = of_place(place, text);
        findings.push(match moment.now > due {
            true => finding.bad(State::Critical, Some(due), NO_BACKUP),
            false => finding,
        });
    }
}

fn is_here(place: &Place, group: &GroupFacts) -> bool {
    match (&place.group, &place.namespace) {
        (Some(wanted), _) => group.group == *wanted && group.namespace == place.of_group(),
        (None, Some(namespace)) => namespace.contains(&group.namespace),
        (None, None) => true,
    }
}

/// What is expected of a datastore that there is not, which nothing else would ever say.
fn nowhere(made: &Expectation) -> Finding {
    let name = &made.place.datastore;
    let text = format!(
        "there is no datastore '{name}'; a backup every {} is expected of {}",
        made.every, made.place
    );
    of_place(&made.place, text).bad(
        State::Critical,
        None,
        "bring the datastore back; or say that nothing is expected of it: backstop health expect list, backstop health expect remove",
    )
}

fn of_place(place: &Place, text: String) -> Finding {
    let namespace = place.of_group();
    let name = place.group.as_deref().unwrap_or("*");
    let object = group_object(&place.datastore, &namespace, name);
    let scope = Scope {
        datastore: Some(place.datastore.clone()),
        namespace: Some(namespace),
        group: place.group.clone(),
        ..Scope::default()
    };
    Finding::ok(Code::BackupStale, &object, &scope, text)
}
