#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use backstop_outgoing::Delivery;
use jiff::tz::TimeZone;
use serde_json::json;

use super::*;
use crate::matcher::Matcher;
use crate::notification::Severity;
use crate::repeats::RECOVERED;

struct Place {
    folder: tempfile::TempDir,
    dispatch: Dispatch,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let dispatch = Dispatch::open(folder.path()).unwrap();
    Place { folder, dispatch }
}

impl Place {
    /// As if the process had been killed and started again.
    fn restarted(self) -> Self {
        let Self { folder, dispatch } = self;
        drop(dispatch);
        let dispatch = Dispatch::open(folder.path()).unwrap();
        Self { folder, dispatch }
    }

    fn sort(&self, now: i64) -> Sorted {
        let matchers = ["a", "b"].map(|target| {
            let properties = json!({ "target": [target] });
            Matcher::of(target, properties.as_object().unwrap()).unwrap()
        });
        self.dispatch.sort(&matchers, &TimeZone::UTC, now).unwrap()
    }

    /// What arrives; targets in `refusing` take nothing.
    fn deliver(&self, now: i64, refusing: &[&str]) -> Vec<(String, Notification)> {
        let mut arrived = Vec::new();
        let deliver = |target: &str, notification: &Notification| {
            if refusing.contains(&target) {
                return Delivery::Failed("no".to_owned());
            }
            arrived.push((target.to_owned(), notification.clone()));
            Delivery::Delivered
        };
        self.dispatch.spool().deliver(now, deliver).unwrap();
        arrived
    }
}

fn event(time: i64, severity: Severity) -> Notification {
    let fields = [("type", "gc".to_owned()), ("datastore", "s".to_owned())];
    Notification::new(time, severity, "gc-err", json!({ "error": "no" }), fields)
}

#[test]
fn what_was_accepted_arrives_at_each_target_whatever_ends_the_process_in_between() {
    let place = place();
    let notification = event(1, Severity::Error);
    place.dispatch.accept(&notification).unwrap();
    let place = place.restarted();
    assert_eq!(place.sort(2).queued, 2);
    let place = place.restarted();
    let arrived = place.deliver(3, &["b"]);
    assert_eq!(arrived, [("a".to_owned(), notification.clone())]);
    let place = place.restarted();
    assert_eq!(place.dispatch.undelivered(0).unwrap().len(), 1);
    assert_eq!(place.deliver(3, &[]), []);
    assert_eq!(
        place.deliver(60, &[]),
        [("b".to_owned(), notification.clone())]
    );
    assert_eq!(place.deliver(1000, &[]), []);
    assert_eq!(place.dispatch.undelivered(0).unwrap(), []);
}

#[test]
fn one_that_was_planned_before_a_crash_is_not_planned_twice() {
    let place = place();
    let notification = event(1, Severity::Error);
    place.dispatch.accept(&notification).unwrap();
    place.sort(2);
    // the file is there still, as if the process had ended before it was removed
    place.dispatch.accept(&notification).unwrap();
    let place = place.restarted();
    assert_eq!(place.sort(3).queued, 0);
    assert_eq!(place.deliver(4, &[]).len(), 2);
}

#[test]
fn what_a_stock_server_left_is_sent_and_what_is_malformed_holds_up_nothing() {
    let place = place();
    let incoming = place.folder.path().join("notifications");
    let stock = serde_json::to_string(&event(5, Severity::Info)).unwrap();
    std::fs::write(incoming.join("0.json"), "{ not json").unwrap();
    std::fs::write(incoming.join("1.json"), stock).unwrap();
    std::fs::create_dir(incoming.join("2.json")).unwrap();
    std::fs::write(incoming.join("3.json"), "{}").unwrap();
    std::fs::write(incoming.join("note.txt"), "x").unwrap();
    let sorted = place.sort(6);
    assert_eq!((sorted.queued, sorted.problems.len()), (2, 3));
    // said once
    assert!(place.sort(7).problems.is_empty());
    assert!(incoming.join("0.unreadable").exists());
    assert!(incoming.join("note.txt").exists());
    assert_eq!(place.deliver(8, &[]).len(), 2);
}

#[test]
fn repeats_and_recoveries_are_known_after_a_restart() {
    let mut place = place();
    for time in 1..4 {
        place
            .dispatch
            .accept(&event(time, Severity::Error))
            .unwrap();
        place.sort(time);
        place = place.restarted();
    }
    assert_eq!(place.deliver(5, &[]).len(), 2);
    place.dispatch.accept(&event(6, Severity::Info)).unwrap();
    place.sort(6);
    let arrived = place.restarted().deliver(7, &[]);
    assert_eq!(arrived.len(), 2);
    assert!(arrived.iter().all(|(_, n)| n.field(RECOVERED).is_some()));
}

/// A spool that takes nothing, and one that does again.
struct FullDisk(PathBuf);

impl FullDisk {
    fn of(place: &Place) -> Self {
        let spool = place.folder.path().join("backstop-notifications/spool");
        std::fs::remove_dir_all(&spool).unwrap();
        std::fs::write(&spool, "").unwrap();
        Self(spool)
    }

    fn freed(self) {
        std::fs::remove_file(&self.0).unwrap();
        std::fs::create_dir(&self.0).unwrap();
    }
}

fn targets(sends: &[(String, Notification)]) -> Vec<&str> {
    sends.iter().map(|(target, _)| target.as_str()).collect()
}

#[test]
fn a_disk_that_refuses_is_no_reason_for_silence_nor_for_losing_anything() {
    let place = place();
    let disk = FullDisk::of(&place);
    place.dispatch.accept(&event(1, Severity::Error)).unwrap();
    let sorted = place.sort(2);
    assert_eq!(targets(&sorted.unkept), ["a", "b"]);
    // Tried once, which failed at b; not again at once.
    assert_eq!(place.dispatch.arrived("a", &sorted.unkept[0].1), [""; 0]);
    assert_eq!(place.sort(3).unkept, []);
    assert_eq!(targets(&place.sort(12).unkept), ["b"]);
    disk.freed();
    assert_eq!(place.sort(13).queued, 1);
    let place = place.restarted();
    assert_eq!(targets(&place.deliver(14, &[])), ["b"]);
    assert_eq!(
        (place.sort(15).queued, place.sort(15).unkept),
        (0, Vec::new())
    );
    // Both are told of the end.
    place.dispatch.accept(&event(16, Severity::Info)).unwrap();
    place.sort(16);
    let arrived = place.deliver(17, &[]);
    assert!(arrived.iter().all(|(_, n)| n.field(RECOVERED).is_some()));
    assert_eq!(targets(&arrived), ["a", "b"]);
}

#[test]
fn what_a_full_disk_kept_from_the_spool_survives_a_crash() {
    let place = place();
    let disk = FullDisk::of(&place);
    place.dispatch.accept(&event(1, Severity::Error)).unwrap();
    assert_eq!(place.sort(2).unkept.len(), 2);
    disk.freed();
    let place = place.restarted();
    assert_eq!((place.sort(3).queued, place.sort(3).folded), (2, 0));
    assert_eq!(place.deliver(4, &[]).len(), 2);
}

#[test]
fn what_no_file_could_be_written_of_is_told_all_the_same() {
    let place = place();
    let incoming = place.folder.path().join("notifications");
    std::fs::remove_dir(&incoming).unwrap();
    let failure = event(1, Severity::Error);
    place.dispatch.accept(&failure).unwrap_err();
    std::fs::create_dir(&incoming).unwrap();
    let disk = FullDisk::of(&place);
    assert_eq!(targets(&place.sort(2).unkept), ["a", "b"]);
    disk.freed();
    assert_eq!(place.sort(3).queued, 2);
}

#[test]
fn what_happens_within_a_second_is_told_in_its_order() {
    let place = place();
    let kinds = (0..40).map(|number| match number % 2 {
        0 => Severity::Error,
        _ => Severity::Info,
    });
    let events: Vec<Notification> = kinds.map(|severity| event(7, severity)).collect();
    for event in &events {
        place.dispatch.accept(event).unwrap();
    }
    place.sort(8);
    let arrived = place.deliver(9, &["b"]);
    let ids: Vec<_> = arrived.iter().map(|(_, told)| told.id).collect();
    assert_eq!(ids, events.iter().map(|event| event.id).collect::<Vec<_>>());
}

#[test]
fn a_target_that_is_gone_is_told_nothing_and_its_name_inherits_nothing() {
    let place = place();
    place.dispatch.accept(&event(1, Severity::Error)).unwrap();
    place.sort(1);
    place.deliver(2, &["b"]);
    let problems = place.dispatch.retain_targets(|target| target != "b");
    assert_eq!(problems.unwrap(), [""; 0]);
    assert_eq!(place.dispatch.undelivered(100).unwrap(), []);
    let mut success = event(3, Severity::Info);
    success.to = Some(String::new());
    place.dispatch.accept(&success).unwrap();
    place.sort(3);
    assert_eq!(targets(&place.deliver(4, &[])), ["a"]);
    assert_eq!(place.dispatch.dropped().unwrap().count, 0);
}

#[test]
fn the_end_of_a_failure_is_told_where_the_failure_arrived() {
    let place = place();
    let failure = event(1, Severity::Error);
    place.dispatch.accept(&failure).unwrap();
    place.sort(1);
    place.deliver(2, &["b"]);
    place.dispatch.arrived("a", &failure);
    let stuck = place.dispatch.undelivered(2).unwrap();
    assert!(place.dispatch.discard(&stuck[0].id).unwrap());
    for lost in place.dispatch.spool().take_lost() {
        let lost_one = serde_json::from_value(lost.item).unwrap();
        assert_eq!(place.dispatch.lost(&lost.lane, &lost_one), [""; 0]);
    }
    let mut success = event(3, Severity::Info);
    success.to = Some(String::new());
    place.dispatch.accept(&success).unwrap();
    place.sort(3);
    assert_eq!(targets(&place.restarted().deliver(4, &[])), ["a"]);
}

#[test]
fn mail_for_one_user_goes_to_no_target_of_the_matchers() {
    let place = place();
    let mut failure = event(1, Severity::Error);
    failure.to = Some("user:root@pam".to_owned());
    place.dispatch.accept(&failure).unwrap();
    let mut success = event(2, Severity::Info);
    success.to = Some(String::new());
    place.dispatch.accept(&success).unwrap();
    place.sort(3);
    let arrived = place.deliver(4, &[]);
    let lanes: Vec<&str> = arrived.iter().map(|(lane, _)| lane.as_str()).collect();
    assert_eq!(lanes, ["user:root@pam"; 2]);
    assert_eq!(arrived[1].1.field(RECOVERED), Some("true"));
}

#[test]
fn one_that_is_given_up_is_gone() {
    let place = place();
    place.dispatch.accept(&event(1, Severity::Error)).unwrap();
    place.sort(1);
    place.deliver(2, &["a", "b"]);
    let stuck = place.dispatch.undelivered(0).unwrap();
    let found = place.dispatch.find(&stuck[0].id).unwrap().unwrap();
    assert_eq!(found.template(), "gc-err");
    assert!(place.dispatch.discard(&stuck[0].id).unwrap());
    assert!(!place.dispatch.discard(&stuck[0].id).unwrap());
    assert!(!place.dispatch.discard("../../x").unwrap());
    place.dispatch.retry(3).unwrap();
    assert_eq!(place.deliver(3, &[]).len(), 1);
}

#[test]
fn what_nobody_wants_though_it_was_told_without_being_kept_is_done_with() {
    let place = place();
    let disk = FullDisk::of(&place);
    let failure = event(1, Severity::Error);
    place.dispatch.accept(&failure).unwrap();
    assert_eq!(targets(&place.sort(2).unkept), ["a", "b"]);
    assert_eq!(place.dispatch.lost("a", &failure), [""; 0]);
    assert_eq!(place.dispatch.arrived("b", &failure), [""; 0]);
    disk.freed();
    assert_eq!(
        (place.sort(100).queued, place.sort(100).unkept),
        (0, Vec::new())
    );
    let incoming = place.folder.path().join("notifications");
    assert_eq!(std::fs::read_dir(incoming).unwrap().count(), 0);
    let mut success = event(101, Severity::Info);
    success.to = Some(String::new());
    place.dispatch.accept(&success).unwrap();
    place.sort(101);
    assert_eq!(targets(&place.deliver(102, &[])), ["b"]);
}
