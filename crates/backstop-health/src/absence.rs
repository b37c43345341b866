//! Groups and datastores that were there and are not any more: which of them somebody has removed on purpose, and which are lost.
//!
//! What is removed through this program is noted before. A note is kept until the place was looked at after it. What is lost is
//! remembered until it is there again, or somebody has acknowledged it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::facts::{Facts, GoneFacts};
use crate::{Check, Code, Learnt, Scope};

/// Lost things that are named one by one, and notes that are kept.
const MOST_GONE: usize = 1000;
const MOST_NOTES: usize = 20_000;
/// A group whose directory is empty for so long is lost, in seconds: one that is being removed is empty for a moment.
const EMPTY: i64 = 600;
/// A note of a datastore that is still configured after this time is of a removal that has failed, in seconds.
const FAILED: i64 = 600;
/// What was acknowledged for good is shown for so long, in seconds.
const SHOWN: i64 = 86_400;

/// What is remembered of something that is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Gone {
    since: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest: Option<i64>,
    #[serde(default)]
    more: u64,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absences {
    /// What is lost, by `group/…` and `datastore/…`.
    #[serde(default)]
    gone: BTreeMap<String, Gone>,
    /// What was removed on purpose, and when that was heard of.
    #[serde(default)]
    removed: BTreeMap<String, i64>,
    /// Groups that have no snapshot, and since when.
    #[serde(default)]
    empty: BTreeMap<String, i64>,
}

impl Absences {
    /// Takes in what was removed on purpose: `group/…` or `datastore/…`.
    pub fn note(&mut self, objects: impl IntoIterator<Item = String>, now: i64) {
        for object in objects {
            if self.removed.len() < MOST_NOTES || self.removed.contains_key(&object) {
                self.removed.insert(object, now);
            }
        }
    }

    /// Compares what was learnt with what is there, and adds to the facts what is lost. `is_configured` says whether the facts hold all
    /// datastores that are configured.
    pub fn observe(&mut self, facts: &mut Facts, learnt: &Learnt, is_configured: bool, now: i64) {
        let mut back = Vec::new();
        let configured: BTreeSet<&str> = facts
            .datastores
            .iter()
            .map(|datastore| datastore.name.as_str())
            .collect();
        if is_configured {
            self.datastores(&configured, learnt, now, &mut back);
        }
        self.groups(facts, learnt, now, &mut back);
        if is_configured {
            self.forget_notes(facts, &configured, learnt, now);
        }
        let lost = self.gone.iter().map(|(object, gone)| GoneFacts {
            object: object.clone(),
            since: gone.since,
            newest: gone.newest,
            more: gone.more,
            is_back: false,
        });
        facts.gone.extend(back.into_iter().chain(lost));
    }

    fn datastores(
        &mut self,
        configured: &BTreeSet<&str>,
        learnt: &Learnt,
        now: i64,
        back: &mut Vec<GoneFacts>,
    ) {
        for name in learnt.datastores() {
            let object = format!("datastore/{name}");
            let below = format!("group/{name}/");
            if configured.contains(name) {
                let is_back = |gone: &Gone| gone.more == 0;
                if self.gone.get(&object).is_some_and(is_back) {
                    self.returns(&object, now, back);
                }
            } else if self.removed.contains_key(&object) {
                // Whoever removes the whole knows what was in it.
                let is_of = |lost: &str| lost == object || lost.starts_with(&below);
                self.gone.retain(|lost, _| !is_of(lost));
            } else {
                let groups = learnt.groups().filter(|group| group.starts_with(&below));
                let newest = groups
                    .filter_map(|group| learnt.backups(group).first().copied())
                    .max();
                let lost = Gone {
                    since: now,
                    newest,
                    more: 0,
                };
                let known = self.gone.entry(object).or_insert_with(|| lost.clone());
                if known.more > 0 {
                    *known = lost;
                }
            }
        }
    }

    fn groups(&mut self, facts: &Facts, learnt: &Learnt, now: i64, back: &mut Vec<GoneFacts>) {
        let mut there = BTreeSet::new();
        let mut empty = BTreeSet::new();
        for group in &facts.groups {
            match group.snapshots {
                0 => empty.insert(group.object()),
                _ => there.insert(group.object()),
            };
        }
        self.empty.retain(|group, _| empty.contains(group));
        let is_listed = |group: &str| {
            let store = Scope::of_object(group).datastore;
            store.is_some_and(|store| facts.listed.contains(&store))
        };
        let returned: Vec<String> = self
            .gone
            .keys()
            .filter(|lost| there.contains(*lost))
            .cloned()
            .collect();
        for group in returned {
            self.returns(&group, now, back);
        }
        for group in learnt.groups() {
            if there.contains(group) || self.removed.contains_key(group) || !is_listed(group) {
                continue;
            }
            if empty.contains(group) {
                let since = *self.empty.entry(group.to_owned()).or_insert(now);
                if now.saturating_sub(since) < EMPTY {
                    continue;
                }
            }
            if self.gone.contains_key(group) {
                continue;
            }
            if self.gone.len() < MOST_GONE {
                let newest = learnt.backups(group).first().copied();
                let lost = Gone {
                    since: now,
                    newest,
                    more: 0,
                };
                self.gone.insert(group.to_owned(), lost);
            } else if let Some(store) = Scope::of_object(group).datastore {
                let rest = self
                    .gone
                    .entry(format!("datastore/{store}"))
                    .or_insert(Gone {
                        since: now,
                        newest: None,
                        more: 0,
                    });
                rest.more = rest.more.saturating_add(1);
            }
        }
    }

    fn returns(&mut self, object: &str, now: i64, back: &mut Vec<GoneFacts>) {
        if self.gone.remove(object).is_some() {
            back.push(GoneFacts {
                object: object.to_owned(),
                since: now,
                newest: None,
                more: 0,
                is_back: true,
            });
        }
    }

    /// Forgets notes that have served: what they are of is gone and not known any more, or is there though it was looked at later.
    fn forget_notes(
        &mut self,
        facts: &Facts,
        configured: &BTreeSet<&str>,
        learnt: &Learnt,
        now: i64,
    ) {
        if self.removed.is_empty() {
            return;
        }
        let looked: BTreeMap<&str, i64> = facts
            .datastores
            .iter()
            .filter(|datastore| facts.listed.contains(&datastore.name))
            .filter_map(|datastore| {
                Some((datastore.name.as_str(), datastore.listing.as_ref()?.at?))
            })
            .collect();
        self.removed.retain(|object, noted| {
            let Some(store) = Scope::of_object(object).datastore else {
                return false;
            };
            let is_configured = configured.contains(store.as_str());
            match object.strip_prefix("datastore/") {
                Some(name) if is_configured => {
                    now.saturating_sub(*noted) < FAILED
                        && learnt.datastores().any(|known| known == name)
                }
                Some(_) => false,
                // A second more, as times have no fractions.
                None => {
                    is_configured
                        && looked
                            .get(store.as_str())
                            .is_none_or(|at| *at <= noted.saturating_add(1))
                }
            }
        });
    }

    /// Whether what is known of an object is still needed.
    pub fn holds(&self, object: &str) -> bool {
        let is_lost = |name: &str| self.gone.get(name).is_some_and(|gone| gone.more == 0);
        if is_lost(object) {
            return true;
        }
        let store = Scope::of_object(object).datastore;
        store.is_some_and(|store| is_lost(&format!("datastore/{store}")))
    }

    /// The datastores that are lost.
    pub fn datastores_gone(&self) -> impl Iterator<Item = &str> {
        let lost = self.gone.iter().filter(|(_, gone)| gone.more == 0);
        lost.filter_map(|(object, _)| object.strip_prefix("datastore/"))
    }

    /// Forgets what somebody has acknowledged for good, a day later. Returns what it was, to be forgotten elsewhere, too.
    pub fn settle(&mut self, checks: &[Check], now: i64) -> Vec<String> {
        let mut known = Vec::new();
        for check in checks {
            let finding = &check.finding;
            let is_over = check
                .acknowledged
                .as_ref()
                .is_some_and(|made| made.until.is_none() && now.saturating_sub(made.at) >= SHOWN);
            if finding.code == Code::BackupGone
                && is_over
                && self.gone.remove(&finding.object).is_some()
            {
                // What was learnt of it is forgotten next time, as of what somebody has removed.
                self.removed.insert(finding.object.clone(), now);
                known.push(finding.object.clone());
            }
        }
        known
    }
}
