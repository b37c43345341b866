//! What holds for all facts and all sequences.
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        any::<i64>(),
        Just(i64::MIN),
        Just(i64::MAX),
        START - 400 * DAY..START + 400 * DAY
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Ok),
        any::<u64>().prop_map(Outcome::Warnings),
        Just(failed()),
        Just(Outcome::Unknown)
    ]
}

prop_compose! {
    fn job()(schedule in option::of(prop_oneof![Just("daily"), Just("*:0/7"), Just("x"), Just("2020-1-1")]),
        reference in time(), running in option::of(time()), run in option::of((time(), time(), outcome())),
        last_success in option::of(time()), failures in any::<u64>(), disabled in any::<bool>()) -> JobFacts {
        JobFacts {
            kind: "sync", id: "j".to_owned(), schedule: schedule.map(str::to_owned), reference, running, last_success, failures,
            disabled,
            last: run.map(|(start, end, outcome)| RunFacts { start, end, outcome, task: "t".to_owned() }),
            ..JobFacts::default()
        }
    }
}

prop_compose! {
    fn any_group()(newest in vec((time(), option::of(any::<u64>())), 0..9), oldest in option::of(time()),
        damaged in vec(time(), 0..5), verified in option::of(time())) -> GroupFacts {
        let mut newest: Vec<_> = newest.into_iter().map(|(time, size)| SnapshotFacts { time, size }).collect();
        newest.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.time));
        GroupFacts { datastore: "store1".to_owned(), group: "vm/1".to_owned(), newest, oldest, damaged, verified,
            ..GroupFacts::default() }
    }
}

prop_compose! {
    fn any_datastore()(space in option::of(any::<(u64, u64)>()), history in vec((time(), any::<f64>()), 0..20),
        collected in option::of((time(), any::<u64>())), oldest in option::of(time()), silent in option::of(any::<i64>()))
        -> DatastoreFacts {
        DatastoreFacts { name: "store1".to_owned(), space, history, collected, oldest, first_seen: None, collects: false, looked: true, listing: None,
            reachable: silent.map_or(Reachable::Yes, Reachable::Silent) }
    }
}

prop_compose! {
    fn facts()(job in job(), group in any_group(), datastore in any_datastore(), started in time(),
        validity in (time(), time()), next in option::of(time()), jump in (time(), any::<i64>()),
        delivery in (any::<u64>(), any::<u64>(), option::of(time())), again_after in option::of(any::<i64>())) -> Facts {
        Facts {
            started,
            jobs: vec![job],
            groups: vec![group],
            datastores: vec![datastore],
            verifications: vec![VerificationFacts { datastore: "store1".to_owned(), again_after, ..VerificationFacts::default() }],
            certificates: vec![CertificateFacts { validity: Some(validity), next, ..CertificateFacts::default() }],
            clock: ClockFacts { jumps: vec![jump], ahead: vec![("store1".to_owned(), jump.1)] },
            deliveries: vec![DeliveryFacts { waiting: delivery.0, lost: delivery.1, since: delivery.2, ..DeliveryFacts::default() }],
            listed: ["store1".to_owned()].into(),
            ..Facts::default()
        }
    }
}

prop_compose! {
    fn window()(schedule in option::of(prop_oneof![Just("daily"), Just("*:*:*"), Just("x")]), start in option::of(time()),
        duration in time()) -> Window {
        Window { id: "w".to_owned(), schedule: schedule.map(str::to_owned), start, duration, place: None, codes: Vec::new(),
            object: None, comment: String::new(), made_by: String::new(), made_at: 0 }
    }
}

fn finding(object: u8, state: u8) -> Finding {
    let state = State::ALL[usize::from(state) % 4];
    let finding = Finding::ok(
        Code::JobFailed,
        &format!("job/{object}"),
        &Scope::default(),
        "e",
    );
    match state {
        State::Ok => finding,
        state => finding.bad(state, None, "r"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_number_is_too_large_or_too_small(first in facts(), second in facts(), windows in vec(window(), 0..2), now in time(),
        every in prop_oneof![Just(Every::Never), any::<i64>().prop_map(Every::Seconds)], made_at in time()) {
        let mut ledger = Ledger::default();
        let mut learnt = Learnt::default();
        let mut settings = Settings { windows, ..Settings::default() };
        let place = Place { datastore: "store1".to_owned(), namespace: None, group: None };
        settings.expect(Expectation { place, every, made_by: String::new(), made_at }).unwrap();
        for facts in [&first, &second] {
            let moment = Moment::new(now, TimeZone::UTC);
            for group in &facts.groups {
                let times: Vec<i64> = group.newest.iter().map(|snapshot| snapshot.time).collect();
                learnt.note_backups(&group.object(), &times, now);
                learnt.note_backups(&group.object(), &times, now.saturating_add(DAY));
            }
            for job in &facts.jobs {
                learnt.note_lateness(job, facts.started, &moment);
            }
            for job in &facts.jobs {
                if let Some(run) = &job.last {
                    learnt.note_run(&job.object(), run.start, run.end);
                }
            }
            let findings = judge(facts, &settings, &learnt, &moment);
            let seen = ledger.observe(findings, &[], &settings.windows, &moment);
            plugin::render(&seen.checks, &Overall::of(&seen.checks, now));
            serde_json::to_string(&ledger).unwrap();
        }
    }

    /// Each step: seconds that pass, states of objects by number (absent: not found), and whether what is absent was looked at.
    #[test]
    fn trouble_ends_in_a_recovery_and_windows_swallow_nothing(
        steps in vec((0_i64..4 * HOUR, vec((0_u8..4, any::<u8>()), 0..4), any::<bool>(), any::<bool>()), 1..30),
        length in 1_i64..DAY)
    {
        let mut world = World::new();
        world.window(length);
        let windows = std::mem::take(&mut world.settings.windows);
        let (mut ledger, mut plain) = (Ledger::default(), Ledger::default());
        // What somebody was told of, and what was bad when it was seen last.
        let mut told: BTreeMap<String, State> = BTreeMap::new();
        let mut bad: BTreeMap<String, State> = BTreeMap::new();
        for (seconds, states, is_held, acknowledges) in steps {
            world.now += seconds;
            let moment = world.moment();
            let findings: BTreeMap<u8, Finding> = states.iter().map(|(object, state)| (*object, finding(*object, *state))).collect();
            let findings: Vec<Finding> = findings.into_values().collect();
            let held = match is_held {
                true => vec![Held { prefix: "job/".to_owned(), reason: "x".to_owned() }],
                false => Vec::new(),
            };
            let seen = ledger.observe(findings.clone(), &held, &windows, &moment);
            let without = plain.observe(findings, &held, &[], &moment);
            // The same states, whether there is a window and an acknowledgement or not.
            let states = |seen: &Observation| -> Vec<(String, State)> {
                seen.checks.iter().map(|check| (check.finding.object.clone(), check.finding.state)).collect()
            };
            prop_assert_eq!(states(&seen), states(&without));
            for change in &seen.changes {
                if change.from != change.to {
                    prop_assert_eq!(bad.get(&change.object).copied().unwrap_or(State::Ok), change.from);
                    bad.insert(change.object.clone(), change.to);
                }
                if change.loud && change.to.is_bad() {
                    told.insert(change.object.clone(), change.to);
                } else if change.loud {
                    prop_assert!(told.remove(&change.object).is_some());
                } else if !change.to.is_bad() {
                    prop_assert!(!told.contains_key(&change.object), "the end of {} was not told", change.object);
                }
            }
            for (object, state) in bad.iter().filter(|(_, state)| state.is_bad()) {
                let check = seen.checks.iter().find(|check| check.finding.object == *object);
                let check = check.unwrap_or_else(|| panic!("{object} has vanished"));
                prop_assert_eq!(check.finding.state, *state);
                // Whatever is loud was told.
                prop_assert!(!check.is_loud() || told.contains_key(object), "{} is loud, and nobody was told", object);
            }
            if acknowledges {
                for check in seen.checks.iter().filter(|check| check.finding.state.is_bad()) {
                    let _ = ledger.acknowledge(Code::JobFailed, &check.finding.object, "a", "", Some(world.now + HOUR), world.now);
                }
            }
        }
    }
}
