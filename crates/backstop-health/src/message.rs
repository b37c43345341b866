//! What somebody is told of changes: one message each, unless many things of the same kind change at once, as all groups of a datastore
//! do whose source is gone.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::{Change, Code, Reason, State};

/// So many changes of a kind are told one by one.
const SINGLE: usize = 3;
/// So many objects are named in a message about more.
const NAMED: usize = 20;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What was checked.
    pub code: Code,
    /// On what; for several, what they have in common.
    pub object: String,
    /// Each object that it tells of, when they are several.
    pub objects: Vec<String>,
    /// How bad it is now.
    pub state: State,
    /// One line.
    pub title: String,
    /// All that is known of it, and what to do.
    pub text: String,
}

/// What changes have in common that are told together: the state, the worst first, what was checked, and the datastore.
type Kind<'a> = (std::cmp::Reverse<State>, Code, Option<&'a str>);

/// What to tell of these changes: of those that are loud.
pub fn messages(changes: &[Change]) -> Vec<Message> {
    let mut kinds: BTreeMap<Kind, Vec<&Change>> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.loud) {
        let datastore = change.scope.datastore.as_deref();
        let kind = (std::cmp::Reverse(change.to), change.code, datastore);
        kinds.entry(kind).or_default().push(change);
    }
    let mut messages = Vec::new();
    for ((_, _, datastore), changes) in kinds {
        match changes.as_slice() {
            [first, ..] if changes.len() > SINGLE => {
                messages.push(several(first, datastore, &changes));
            }
            few => messages.extend(few.iter().map(|change| one(change))),
        }
    }
    messages
}

/// One line about `what`.
fn title(change: &Change, what: &str) -> String {
    match (change.to.is_bad(), change.reason) {
        (true, _) => format!("{}: {what}", change.to.as_str().to_uppercase()),
        (false, Reason::Gone) => format!("{what} is gone"),
        (false, _) => format!("{what} is well again"),
    }
}

fn one(change: &Change) -> Message {
    let mut text = change.evidence.clone();
    match change.reason {
        Reason::OutlastedWindow => text.push_str("\nIt has lasted beyond its maintenance window."),
        Reason::AcknowledgementEnded => text.push_str("\nIt is not acknowledged any more."),
        Reason::Changed | Reason::Gone => {}
    }
    if let Some(remedy) = change.remedy.as_ref().filter(|_| change.to.is_bad()) {
        let _ = write!(text, "\nWhat to do: {remedy}");
    }
    Message {
        code: change.code,
        object: change.object.clone(),
        objects: Vec::new(),
        state: change.to,
        title: title(change, &format!("{} on {}", change.code, change.object)),
        text,
    }
}

fn several(first: &Change, datastore: Option<&str>, changes: &[&Change]) -> Message {
    let object = match datastore {
        Some(datastore) => format!("datastore/{datastore}"),
        None => "several".to_owned(),
    };
    let count = changes.len();
    let mut text = String::new();
    for change in changes.iter().take(NAMED) {
        let _ = writeln!(text, "{}: {}", change.object, change.evidence);
    }
    if count > NAMED {
        let _ = writeln!(text, "and {} more; see 'backstop health'", count - NAMED);
    }
    if let Some(remedy) = first.remedy.as_ref().filter(|_| first.to.is_bad()) {
        let _ = write!(text, "What to do: {remedy}");
    }
    let place = datastore.map_or(String::new(), |datastore| {
        format!(" of datastore {datastore}")
    });
    Message {
        code: first.code,
        object,
        objects: changes.iter().map(|change| change.object.clone()).collect(),
        state: first.to,
        title: title(first, &format!("{} on {count} objects{place}", first.code)),
        text: text.trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::Scope;

    fn change(object: &str, to: State, loud: bool) -> Change {
        Change {
            at: 1,
            code: Code::BackupStale,
            object: format!("group/store1/{object}"),
            scope: Scope::datastore("store1"),
            from: State::Ok,
            to,
            reason: Reason::Changed,
            since: 1,
            evidence: format!("{object} is old"),
            remedy: Some("look".to_owned()),
            loud,
        }
    }

    #[test]
    fn a_few_are_told_one_by_one_the_worst_first_and_quiet_ones_never() {
        let told = messages(&[
            change("vm/1", State::Ok, true),
            change("vm/2", State::Critical, true),
            change("vm/3", State::Critical, false),
            change("vm/4", State::Warning, true),
        ]);
        let titles: Vec<_> = told.iter().map(|message| message.title.as_str()).collect();
        assert_eq!(
            titles,
            [
                "CRITICAL: backup-stale on group/store1/vm/2",
                "WARNING: backup-stale on group/store1/vm/4",
                "backup-stale on group/store1/vm/1 is well again",
            ]
        );
        assert_eq!(told[0].text, "vm/2 is old\nWhat to do: look");
        assert_eq!(told[2].text, "vm/1 is old");
    }

    #[test]
    fn many_at_once_are_one_message() {
        let many: Vec<_> = (0..50)
            .map(|id| change(&format!("vm/{id}"), State::Critical, true))
            .collect();
        let told = messages(&many);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].objects.len(), 50);
        assert_eq!(
            told[0].title,
            "CRITICAL: backup-stale on 50 objects of datastore store1"
        );
        assert!(told[0].text.contains("vm/19 is old\nand 30 more"));
        assert!(!told[0].text.contains("vm/20"));
    }
}
