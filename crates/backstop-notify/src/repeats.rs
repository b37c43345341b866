//! What has been told already: folds repeats of one failure, and finds the success that ends it.
//!
//! A topic is what a notification is about: all of its fields but the host; one that tells of many things of a kind at once has a topic for
//! each. The first failure of a topic is told at once; the same
//! failure again is folded, for each target, until [`REMIND`] has passed, and then told with how often it happened. A failure for
//! another reason is told at once, up to [`MOST_REASONS`]. The success that follows goes to everybody who was told of the failure, whatever
//! the matchers say of successes, once, and says that it ends a failure.
//!
//! Pure: whoever asks keeps the state, and the time is that of the notification.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::notification::{Notification, Severity};

/// How long the same failure is not told again to the same target, in seconds: a job that runs each day is told of each day.
pub const REMIND: i64 = 20 * 3600;
/// How many reasons of one topic are told to a target within that time; the last one says that further ones are not.
pub const MOST_REASONS: usize = 5;
/// A failure that nobody has heard of for so long, in seconds, is forgotten: the job is gone.
const FORGET: i64 = 60 * 24 * 3600;
/// Most topics that are remembered.
const MOST_TOPICS: usize = 10_000;
/// Most notifications that are known to have been handled.
const MOST_HANDLED: usize = 200;
/// Most characters of a reason that are compared.
const REASON: usize = 300;

/// The field of a success that ends a failure: `true`.
pub const RECOVERED: &str = "recovered";
/// The field of such a success that says how bad the failure was.
pub const RECOVERED_FROM: &str = "recovered-from";
/// The field of a failure that was folded: how often it happened.
pub const REPEATED: &str = "repeated";
/// What templates are told of a failure after which those for other reasons are not told one by one: `true`.
pub const MORE_REASONS: &str = "more-reasons";
/// What templates are told of a verification: the snapshots that failed.
const FAILED: &str = "failed-snapshot-list";
/// What templates are told of many things of a kind: the field `subject` of each, as a list of texts.
pub const SUBJECTS: &str = "subjects";
/// What templates are told of a repeat or recovery: when the failure began.
pub const SINCE: &str = "failing-since";
/// What templates are told of a repeat or recovery: how often it failed.
pub const FAILURES: &str = "failures";

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeats {
    /// By topic.
    #[serde(default)]
    topics: BTreeMap<String, Failing>,
    /// The last notifications that were handled.
    #[serde(default)]
    handled: Vec<Uuid>,
}

/// A topic that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Failing {
    since: i64,
    last: i64,
    count: u64,
    severity: Severity,
    /// By target and reason: when it was told.
    told: BTreeMap<String, BTreeMap<String, i64>>,
    /// Targets at which such a message has arrived.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    reached: BTreeSet<String>,
}

/// What a notification is about; `None` for one that is about nothing that can end, such as a test.
#[must_use]
pub fn topic(notification: &Notification) -> Option<String> {
    notification.field("type")?;
    let own = [
        "hostname",
        "severity",
        RECOVERED,
        RECOVERED_FROM,
        REPEATED,
        "state",
    ];
    let fields = notification.fields.iter();
    let fields = fields.filter(|(name, _)| !own.contains(&name.as_str()));
    let fields: Vec<String> = fields
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    Some(fields.join("\n"))
}

/// The topics of a notification that tells of many things; the only one of any other.
fn topics(notification: &Notification) -> Vec<String> {
    let subjects = notification.data().and_then(|data| data.get(SUBJECTS));
    let subjects = subjects.and_then(Value::as_array);
    let Some(subjects) = subjects.filter(|subjects| !subjects.is_empty()) else {
        return topic(notification).into_iter().collect();
    };
    let mut one = notification.clone();
    let mut of_subject = |subject: &str| {
        let subject = subject.to_owned();
        one.fields.insert("subject".to_owned(), subject);
        topic(&one)
    };
    let subjects = subjects.iter().filter_map(Value::as_str);
    subjects.filter_map(&mut of_subject).collect()
}

/// What differs from one failure to the next of the same kind: ids of tasks, times, digests, and numbers that are no part of a name.
static PASSING: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let pattern = r"(?x)
        UPID:\S+
        | \b[0-9a-f]{16,}\b
        | (?P<before> ^ | [^\w-] ) \d{4}-\d\d-\d\d [T\ ] \d\d:\d\d (?: :\d\d )? (?: \.\d+ )? Z?
        | (?P<ahead> ^ | [^\w/-] ) \d+ (?: [.:]\d+ )* [a-zA-Z]{0,3} \b
    ";
    Regex::new(pattern).ok()
});

/// Why it failed, without what differs from time to time.
fn reason(notification: &Notification) -> String {
    let data = notification.data();
    let text = |key: &str| match data.and_then(|data| data.get(key)) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    };
    let text = [
        notification.template().to_owned(),
        text("error"),
        text("text"),
    ]
    .join(" ");
    let masked = match &*PASSING {
        Some(passing) => passing
            .replace_all(&text, "${before}${ahead}#")
            .into_owned(),
        None => text,
    };
    let mut reason: String = masked.chars().take(REASON).collect();
    // Of a list each item counts, as it is; it is compared by a hash.
    let list = data.and_then(|data| data.get(FAILED));
    if let Some(list) = list.and_then(Value::as_array) {
        let mut items: Vec<String> = list.iter().map(ToString::to_string).collect();
        items.sort_unstable();
        // Another build of this program may hash otherwise, and tells once more then.
        let mut hasher = DefaultHasher::new();
        items.hash(&mut hasher);
        reason.push_str(&format!(" {:016x}", hasher.finish()));
    }
    reason
}

/// Who gets a notification, in which form.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Target and what it gets.
    pub sends: Vec<(String, Notification)>,
    /// Targets that are spared a repeat.
    pub folded: Vec<String>,
}

impl Repeats {
    /// Whether this one was planned already.
    #[must_use]
    pub fn is_handled(&self, id: &Uuid) -> bool {
        self.handled.contains(id)
    }

    /// Decides who gets a notification that the matchers send to `targets`, and remembers it.
    pub fn plan(&mut self, notification: &Notification, targets: &BTreeSet<String>) -> Plan {
        self.handled.push(notification.id);
        let surplus = self.handled.len().saturating_sub(MOST_HANDLED);
        self.handled.drain(..surplus);
        let to_all = |targets: &BTreeSet<String>, notification: &Notification| Plan {
            sends: targets
                .iter()
                .map(|target| (target.clone(), notification.clone()))
                .collect(),
            folded: Vec::new(),
        };
        let topics = topics(notification);
        if topics.is_empty() {
            return to_all(targets, notification);
        }
        if notification.severity.is_failure() {
            return self.failure(topics, notification, targets);
        }
        if notification.severity == Severity::Unknown {
            return to_all(targets, notification);
        }
        let ended = topics.iter().filter_map(|topic| self.topics.remove(topic));
        let ended: Vec<Failing> = ended.filter(|ended| !ended.told.is_empty()).collect();
        let Some(worst) = ended.iter().map(|ended| ended.severity).max() else {
            return to_all(targets, notification);
        };
        let mut recovery = notification.clone();
        let mut set = |name: &str, value: &str| {
            recovery.fields.insert(name.to_owned(), value.to_owned());
        };
        set(RECOVERED, "true");
        set(RECOVERED_FROM, worst.as_str());
        recovery.show(SINCE, ended.iter().map(|ended| ended.since).min().into());
        let count = ended.iter().map(|ended| ended.count).max();
        recovery.show(FAILURES, count.into());
        let mut all = targets.clone();
        all.extend(ended.into_iter().flat_map(|ended| ended.told.into_keys()));
        to_all(&all, &recovery)
    }

    fn failure(
        &mut self,
        topics: Vec<String>,
        notification: &Notification,
        targets: &BTreeSet<String>,
    ) -> Plan {
        let now = notification.time;
        let reason = reason(notification);
        // What each target is told, of all topics that it is to hear of: since when it fails, how often it did at most, and whether it
        // hears of no further reasons.
        let mut wanted: BTreeMap<&String, (i64, u64, bool)> = BTreeMap::new();
        for topic in topics {
            self.forget(now);
            let failing = self.topics.entry(topic).or_insert_with(|| Failing {
                since: now,
                last: now,
                count: 0,
                severity: notification.severity,
                told: BTreeMap::new(),
                reached: BTreeSet::new(),
            });
            failing.last = now;
            failing.count = failing.count.saturating_add(1);
            let is_worse = notification.severity > failing.severity;
            failing.severity = failing.severity.max(notification.severity);
            for target in targets {
                let told = failing.told.entry(target.clone()).or_default();
                // A clock that was set back tells again.
                told.retain(|_, time| (0..REMIND).contains(&now.saturating_sub(*time)));
                if !is_worse && (told.contains_key(&reason) || told.len() >= MOST_REASONS) {
                    continue;
                }
                told.insert(reason.clone(), now);
                let (since, count, is_last) = wanted.entry(target).or_insert((now, 0, false));
                *since = failing.since.min(*since);
                *count = failing.count.max(*count);
                *is_last |= told.len() == MOST_REASONS;
            }
        }
        let mut plan = Plan::default();
        for target in targets {
            let Some((since, count, is_last)) = wanted.get(target) else {
                plan.folded.push(target.clone());
                continue;
            };
            let mut telling = notification.clone();
            if *count > 1 {
                let fields = &mut telling.fields;
                fields.insert(REPEATED.to_owned(), count.to_string());
                telling.show(SINCE, (*since).into());
                telling.show(FAILURES, (*count).into());
            }
            if *is_last {
                telling.show(MORE_REASONS, true.into());
            }
            plan.sends.push((target.clone(), telling));
        }
        plan
    }

    /// Remembers that the message of a failure has arrived at a target; says whether that is news.
    pub fn arrived(&mut self, target: &str, notification: &Notification) -> bool {
        let mut is_news = false;
        for topic in topics(notification) {
            if let Some(failing) = self.topics.get_mut(&topic) {
                is_news |= failing.reached.insert(target.to_owned());
            }
        }
        is_news
    }

    /// Forgets that a target was told of a failure, as the message will not arrive: unless another has, or is on its way, its end is not
    /// told there, and the next failure is told at once. Says whether that changes anything.
    pub fn lost(&mut self, target: &str, notification: &Notification) -> bool {
        let mut is_news = false;
        for topic in topics(notification) {
            let Some(failing) = self.topics.get_mut(&topic) else {
                continue;
            };
            let Some(told) = failing.told.get_mut(target) else {
                continue;
            };
            let before = told.len();
            told.retain(|_, time| *time != notification.time);
            is_news |= told.len() < before;
            if told.is_empty() && !failing.reached.contains(target) {
                failing.told.remove(target);
                is_news = true;
            }
        }
        is_news
    }

    /// Forgets what targets were told that do not exist any more; says whether there was something.
    pub fn retain_targets(&mut self, exists: impl Fn(&str) -> bool) -> bool {
        let mut is_news = false;
        for failing in self.topics.values_mut() {
            let before = failing.told.len();
            failing.told.retain(|target, _| exists(target));
            failing.reached.retain(|target| exists(target));
            is_news |= failing.told.len() < before;
        }
        is_news
    }

    fn forget(&mut self, now: i64) {
        self.topics
            .retain(|_, failing| now.saturating_sub(failing.last) < FORGET);
        while self.topics.len() >= MOST_TOPICS {
            let oldest = self.topics.iter().min_by_key(|(_, failing)| failing.last);
            let Some(oldest) = oldest.map(|(topic, _)| topic.clone()) else {
                return;
            };
            self.topics.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn run(time: i64, error: Option<&str>) -> Notification {
        let (severity, template) = match error {
            Some(_) => (Severity::Error, "sync-err"),
            None => (Severity::Info, "sync-ok"),
        };
        let fields = [
            ("type", "sync".to_owned()),
            ("job-id", "j".to_owned()),
            ("hostname", "h".to_owned()),
        ];
        Notification::new(time, severity, template, json!({ "error": error }), fields)
    }

    fn to(targets: &[&str]) -> BTreeSet<String> {
        targets.iter().map(|target| (*target).to_owned()).collect()
    }

    fn told(plan: &Plan) -> Vec<&str> {
        plan.sends
            .iter()
            .map(|(target, _)| target.as_str())
            .collect()
    }

    #[test]
    fn the_same_failure_is_told_at_once_and_then_once_a_day_with_its_count() {
        let mut repeats = Repeats::default();
        let hour = 3600;
        let mut sent = Vec::new();
        for number in 0..48 {
            let error = format!("task UPID:h:{number:08X} failed after {number} seconds");
            let plan = repeats.plan(&run(number * hour, Some(&error)), &to(&["a"]));
            if let [(_, notification)] = plan.sends.as_slice() {
                let count = notification.field(REPEATED).map(str::to_owned);
                sent.push((number, count));
            }
        }
        let wanted = [(0, None), (20, Some("21".into())), (40, Some("41".into()))];
        assert_eq!(sent, wanted);
    }

    #[test]
    fn a_daily_failure_is_told_each_day() {
        let mut repeats = Repeats::default();
        for day in 0..5 {
            // not always at the same minute
            let time = day * 86_400 - day * 60;
            assert_eq!(
                told(&repeats.plan(&run(time, Some("no")), &to(&["a"]))),
                ["a"]
            );
        }
    }

    #[test]
    fn another_reason_is_told_at_once_but_not_without_end() {
        let mut repeats = Repeats::default();
        let mut sent = Vec::new();
        for (time, error) in (0..).zip([
            "a", "b", "a", "b", "c", "c", "d", "e", "f", "g", "a", "h", "i",
        ]) {
            let plan = repeats.plan(&run(time, Some(error)), &to(&["t"]));
            sent.extend(plan.sends.into_iter().map(|(_, sent)| sent));
        }
        let is_last = |sent: &Notification| sent.data().unwrap().get(MORE_REASONS).is_some();
        let last: Vec<_> = sent.iter().map(is_last).collect();
        assert_eq!(last, [false, false, false, false, true]);
    }

    #[test]
    fn what_differs_by_a_name_is_another_reason_and_what_differs_by_a_time_is_not() {
        let same =
            |one: &str, other: &str| reason(&run(1, Some(one))) == reason(&run(2, Some(other)));
        assert!(same(
            "UPID:h:01:02: failed at 2026-11-28T02:00:00Z after 12 seconds, 3.5 MiB from 10.0.0.1:5000",
            "UPID:h:03:04: failed at 2026-11-29T02:00:07Z after 7 seconds, 12 MiB from 10.0.0.1:6001"
        ));
        assert!(same(
            "chunk 0123456789abcdef0123456789abcdef is bad",
            "chunk ffffffffffffffffffffffffffffffff is bad"
        ));
        assert!(!same("group vm/100: no", "group vm/101: no"));
        assert!(!same("datastore 'store1'", "datastore 'store2'"));
        assert!(!same("host-1", "host-2"));
        let verified = |list: &[&str]| {
            let data = json!({ "error": "verification failed", FAILED: list });
            reason(&Notification::new(
                1,
                Severity::Error,
                "verify-err",
                data,
                [],
            ))
        };
        assert_eq!(verified(&["a", "b"]), verified(&["b", "a"]));
        assert_ne!(verified(&["a", "b"]), verified(&["a", "b", "c"]));
    }

    #[test]
    fn the_success_after_a_failure_goes_once_to_whoever_was_told() {
        let mut repeats = Repeats::default();
        repeats.plan(&run(1, Some("no")), &to(&["errors-only"]));
        repeats.plan(&run(2, Some("no")), &to(&["errors-only"]));
        let plan = repeats.plan(&run(3, None), &to(&["all"]));
        assert_eq!(told(&plan), ["all", "errors-only"]);
        let recovery = &plan.sends[0].1;
        assert_eq!(recovery.field(RECOVERED), Some("true"));
        assert_eq!(recovery.field(RECOVERED_FROM), Some("error"));
        assert_eq!(recovery.data().unwrap()[FAILURES], json!(2));
        let plan = repeats.plan(&run(4, None), &to(&["all"]));
        assert_eq!(told(&plan), ["all"]);
        assert_eq!(plan.sends[0].1.field(RECOVERED), None);
        // and the next failure is told at once
        assert_eq!(
            told(&repeats.plan(&run(5, Some("no")), &to(&["errors-only"]))),
            ["errors-only"]
        );
    }

    fn health(time: i64, severity: Severity, subject: &str, subjects: &[&str]) -> Notification {
        let fields = [
            ("type", "health".to_owned()),
            ("check", "backup-stale".to_owned()),
            ("subject", subject.to_owned()),
        ];
        let data = json!({ "text": "old", SUBJECTS: subjects });
        Notification::new(time, severity, "health-err", data, fields)
    }

    #[test]
    fn what_is_told_of_many_at_once_ends_for_each_of_them_and_hides_no_new_failure() {
        let (bad, good) = (Severity::Error, Severity::Info);
        let mut repeats = Repeats::default();
        let many = ["a", "b", "c", "d", "e"];
        let all = to(&["t"]);
        assert_eq!(
            told(&repeats.plan(&health(1, bad, "store", &many), &all)),
            ["t"]
        );
        // some of them are well again, one alone and two together; whoever was told hears of it, whatever matchers say
        let nobody = to(&[]);
        assert_eq!(
            told(&repeats.plan(&health(2, good, "a", &[]), &nobody)),
            ["t"]
        );
        let plan = repeats.plan(&health(3, good, "store", &["b", "c"]), &nobody);
        assert_eq!(told(&plan), ["t"]);
        assert_eq!(plan.sends[0].1.field(RECOVERED), Some("true"));
        // and again they are no news
        assert!(
            repeats
                .plan(&health(4, good, "store", &["a", "b", "c"]), &nobody)
                .sends
                .is_empty()
        );
        // the same trouble with one that was well, and with one that was not
        assert_eq!(told(&repeats.plan(&health(5, bad, "b", &[]), &all)), ["t"]);
        assert_eq!(repeats.plan(&health(6, bad, "e", &[]), &all).folded, ["t"]);
        let plan = repeats.plan(&health(7, bad, "store", &["d", "e", "c"]), &all);
        assert_eq!(told(&plan), ["t"]);
        assert_eq!(
            repeats
                .plan(&health(8, bad, "store", &["d", "e"]), &all)
                .folded,
            ["t"]
        );
    }

    #[test]
    fn where_the_failure_did_not_arrive_its_end_is_not_told() {
        let mut repeats = Repeats::default();
        let failure = run(1, Some("no"));
        repeats.plan(&failure, &to(&["a", "b"]));
        assert!(repeats.arrived("a", &failure) && !repeats.arrived("a", &failure));
        assert!(repeats.lost("b", &failure) && !repeats.lost("b", &failure));
        // The next one is told there at once.
        let again = run(2, Some("no"));
        let plan = repeats.plan(&again, &to(&["a", "b"]));
        assert_eq!(
            (told(&plan), plan.folded.clone()),
            (vec!["b"], vec!["a".to_owned()])
        );
        repeats.lost("b", &again);
        assert_eq!(told(&repeats.plan(&run(3, None), &to(&[]))), ["a"]);
    }

    #[test]
    fn whoever_was_told_once_hears_of_the_end_though_a_reminder_was_lost() {
        let mut repeats = Repeats::default();
        let first = run(1, Some("no"));
        repeats.plan(&first, &to(&["a"]));
        repeats.arrived("a", &first);
        let reminder = run(REMIND + 1, Some("no"));
        assert_eq!(told(&repeats.plan(&reminder, &to(&["a"]))), ["a"]);
        repeats.lost("a", &reminder);
        assert_eq!(told(&repeats.plan(&run(REMIND + 2, None), &to(&[]))), ["a"]);
    }

    #[test]
    fn one_of_two_that_are_on_their_way_is_enough_for_the_end() {
        let mut repeats = Repeats::default();
        let first = run(1, Some("no"));
        repeats.plan(&first, &to(&["a"]));
        repeats.plan(&run(2, Some("another")), &to(&["a"]));
        repeats.lost("a", &first);
        assert_eq!(told(&repeats.plan(&run(3, None), &to(&[]))), ["a"]);
    }

    #[test]
    fn a_target_that_is_gone_is_told_no_end_and_one_of_its_name_begins_anew() {
        let mut repeats = Repeats::default();
        repeats.plan(&run(1, Some("no")), &to(&["a", "gone"]));
        assert!(repeats.retain_targets(|target| target != "gone"));
        assert!(!repeats.retain_targets(|target| target != "gone"));
        let plan = repeats.plan(&run(2, Some("no")), &to(&["a", "gone"]));
        assert_eq!(told(&plan), ["gone"]);
        repeats.retain_targets(|target| target != "gone");
        assert_eq!(told(&repeats.plan(&run(3, None), &to(&[]))), ["a"]);
    }

    #[test]
    fn a_failure_that_nobody_was_told_of_has_no_recovery() {
        let mut repeats = Repeats::default();
        repeats.plan(&run(1, Some("no")), &to(&[]));
        let plan = repeats.plan(&run(2, None), &to(&["all"]));
        assert_eq!(plan.sends[0].1.field(RECOVERED), None);
    }

    #[test]
    fn a_target_that_wants_it_only_by_day_is_told_of_what_began_at_night() {
        let mut repeats = Repeats::default();
        repeats.plan(&run(1, Some("no")), &to(&["night"]));
        let plan = repeats.plan(&run(3600, Some("no")), &to(&["night", "day"]));
        assert_eq!(told(&plan), ["day"]);
        assert_eq!(plan.folded, ["night"]);
    }

    #[test]
    fn what_is_worse_than_before_is_told() {
        let mut repeats = Repeats::default();
        let mut warning = run(1, Some("no"));
        warning.severity = Severity::Warning;
        repeats.plan(&warning, &to(&["a"]));
        assert_eq!(told(&repeats.plan(&run(2, Some("no")), &to(&["a"]))), ["a"]);
    }

    #[test]
    fn jobs_hosts_and_tests_are_not_mixed_up() {
        let mut repeats = Repeats::default();
        repeats.plan(&run(1, Some("no")), &to(&["a"]));
        let mut other = run(2, Some("no"));
        other.fields.insert("job-id".into(), "k".into());
        assert_eq!(told(&repeats.plan(&other, &to(&["a"]))), ["a"]);
        let test = Notification::new(3, Severity::Info, "test", json!({}), []);
        assert_eq!(told(&repeats.plan(&test, &to(&["a"]))), ["a"]);
        assert!(repeats.is_handled(&test.id));
    }

    proptest! {
        #[test]
        fn each_told_failure_has_exactly_one_recovery(runs in proptest::collection::vec((any::<bool>(), 0_i64..90_000), 1..60)) {
            let mut repeats = Repeats::default();
            let mut time = 0;
            let mut open = false;
            for (fails, pause) in runs {
                time += pause;
                let plan = repeats.plan(&run(time, fails.then_some("no")), &to(&["a"]));
                let recovered = plan.sends.iter().filter(|(_, n)| n.field(RECOVERED).is_some()).count();
                if fails {
                    prop_assert_eq!(recovered, 0);
                    prop_assert!(open || plan.sends.len() == 1);
                } else {
                    prop_assert_eq!(recovered, usize::from(open));
                }
                open = fails;
                let text = serde_json::to_string(&repeats).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Repeats>(&text).unwrap(), &repeats);
            }
        }
    }
}
