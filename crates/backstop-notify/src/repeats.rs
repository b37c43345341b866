//! What has been told already: folds repeats of one failure, and finds the success that ends it.
//!
//! A topic is what a notification is about: all of its fields but the host. The first failure of a topic is told at once; the same
//! failure again is folded, for each target, until [`REMIND`] has passed, and then told with how often it happened. A failure for
//! another reason is told at once, up to [`MOST_REASONS`]. The success that follows goes to everybody who was told of the failure, whatever
//! the matchers say of successes, once, and says that it ends a failure.
//!
//! Pure: whoever asks keeps the state, and the time is that of the notification.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::notification::{Notification, Severity};

/// How long the same failure is not told again to the same target, in seconds: a job that runs each day is told of each day.
pub const REMIND: i64 = 20 * 3600;
/// How many reasons of one topic are told to a target within that time.
pub const MOST_REASONS: usize = 4;
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

/// Why it failed, without what differs from time to time: numbers.
fn reason(notification: &Notification) -> String {
    let data = notification.data();
    let text = |key: &str| {
        let value = data.and_then(|data| data.get(key));
        match value {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => String::new(),
            Some(other) => other.to_string(),
        }
    };
    let text = [
        notification.template().to_owned(),
        text("error"),
        text("text"),
    ]
    .join(" ");
    let mut reason = String::new();
    let mut digits = false;
    for c in text.chars() {
        // hexadecimal digits are parts of task ids and digests
        let is_digit = c.is_ascii_digit() || (digits && c.is_ascii_hexdigit());
        if !is_digit {
            reason.push(c);
        } else if !digits {
            reason.push('#');
        }
        digits = is_digit;
    }
    reason.chars().take(REASON).collect()
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
        let Some(topic) = topic(notification) else {
            return to_all(targets, notification);
        };
        if notification.severity.is_failure() {
            self.forget(notification.time);
            return self.failure(topic, notification, targets);
        }
        let ended = match notification.severity {
            Severity::Unknown => None,
            _ => self.topics.remove(&topic),
        };
        let Some(ended) = ended.filter(|ended| !ended.told.is_empty()) else {
            return to_all(targets, notification);
        };
        let mut recovery = notification.clone();
        let mut set = |name: &str, value: &str| {
            recovery.fields.insert(name.to_owned(), value.to_owned());
        };
        set(RECOVERED, "true");
        set(RECOVERED_FROM, ended.severity.as_str());
        recovery.show(SINCE, ended.since.into());
        recovery.show(FAILURES, ended.count.into());
        let mut all = targets.clone();
        all.extend(ended.told.into_keys());
        to_all(&all, &recovery)
    }

    fn failure(
        &mut self,
        topic: String,
        notification: &Notification,
        targets: &BTreeSet<String>,
    ) -> Plan {
        let now = notification.time;
        let failing = self.topics.entry(topic).or_insert_with(|| Failing {
            since: now,
            last: now,
            count: 0,
            severity: notification.severity,
            told: BTreeMap::new(),
        });
        failing.last = now;
        failing.count = failing.count.saturating_add(1);
        let is_worse = notification.severity > failing.severity;
        failing.severity = failing.severity.max(notification.severity);
        let reason = reason(notification);
        let mut plan = Plan::default();
        for target in targets {
            let told = failing.told.entry(target.clone()).or_default();
            // A clock that was set back tells again.
            told.retain(|_, time| (0..REMIND).contains(&now.saturating_sub(*time)));
            if !is_worse && (told.contains_key(&reason) || told.len() >= MOST_REASONS) {
                plan.folded.push(target.clone());
                continue;
            }
            told.insert(reason.clone(), now);
            let mut telling = notification.clone();
            if failing.count > 1 {
                let count = failing.count.to_string();
                telling.fields.insert(REPEATED.to_owned(), count);
                telling.show(SINCE, failing.since.into());
                telling.show(FAILURES, failing.count.into());
            }
            plan.sends.push((target.clone(), telling));
        }
        plan
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
        let mut count = 0;
        for (time, error) in (0..).zip([
            "a", "b", "a", "b", "c", "c", "d", "e", "f", "g", "a", "h", "i",
        ]) {
            count += repeats
                .plan(&run(time, Some(error)), &to(&["t"]))
                .sends
                .len();
        }
        assert_eq!(count, MOST_REASONS);
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
