//! Which groups a filter selects, and what a limit of the traffic limits, in both directions.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::World;

/// The groups of which a dry run says that something would be copied or sent.
fn chosen(log: &str) -> BTreeSet<String> {
    let lines = log.lines().filter(|line| line.contains("]: would "));
    let groups = lines.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0));
    groups.map(str::to_owned).collect()
}

#[test]
fn every_kind_of_filter_selects_the_same_groups_whichever_way_they_go() {
    let world = World::new();
    world.write("disk", 80, 1);
    for group in ["vm/100", "vm/1000", "vm/20", "ct/100", "host/vm", "host/x"] {
        let (ty, id) = group.split_once('/').unwrap();
        world.backup_here(&["--backup-type", ty, "--backup-id", id], 1_700_000_000);
    }
    let (log, end) = world.push(json!({}));
    assert_eq!(end, "OK", "{log}");
    for (filter, expected) in [
        (json!([]), "ct/100 host/vm host/x vm/100 vm/1000 vm/20"),
        (json!(["type:vm"]), "vm/100 vm/1000 vm/20"),
        (
            json!(["include:type:ct", "type:host"]),
            "ct/100 host/vm host/x",
        ),
        (json!(["group:vm/100"]), "vm/100"),
        (json!(["regex:vm"]), "host/vm vm/100 vm/1000 vm/20"),
        (json!([r"regex:^vm/1\d{2,3}$"]), "vm/100 vm/1000"),
        (
            json!([r"exclude:regex:^vm/1\d{2,3}$"]),
            "ct/100 host/vm host/x vm/20",
        ),
        (
            json!(["exclude:type:host", "exclude:group:vm/20"]),
            "ct/100 vm/100 vm/1000",
        ),
        // Whatever the order.
        (json!(["exclude:group:vm/100", "type:vm"]), "vm/1000 vm/20"),
        (json!(["type:vm", "exclude:group:vm/100"]), "vm/1000 vm/20"),
        (json!(["type:vm", "exclude:regex:."]), ""),
    ] {
        let options = |place: &str| -> Value {
            json!({"group-filter": filter, place: "new", "dry-run": true, "max-depth": 0})
        };
        let expected: BTreeSet<String> = expected.split_whitespace().map(str::to_owned).collect();
        let (log, end) = world.push(options("remote-ns"));
        assert_eq!(end, "OK", "{log}");
        assert_eq!(chosen(&log), expected, "push {filter}:\n{log}");
        let (log, end) = world.pull(options("ns"));
        assert_eq!(end, "OK", "{log}");
        assert_eq!(chosen(&log), expected, "pull {filter}:\n{log}");
    }
    let error = world.api.post(
        "push",
        json!({"store": "store1", "remote": "there", "remote-store": "store1", "group-filter": ["vm"]}),
    );
    assert!(format!("{:#}", error.unwrap_err()).contains("group-filter"));
}

#[test]
fn a_limit_holds_for_all_connections_of_a_run_together_whichever_way_they_go() {
    /// Bytes of the data, which is in two groups.
    const SIZE: u64 = 6 << 20;
    const RATE: u64 = 2 << 20;
    const BURST: u64 = 1 << 20;
    let world = World::new();
    for (seed, id) in [(81, "x"), (82, "y")] {
        world.write("disk", seed, 3);
        world.backup_here(&["--backup-id", id], 1_700_000_000);
    }
    // What was saved up while nothing was moved is one burst at most.
    let least = Duration::from_secs_f64((SIZE - BURST - (256 << 10)) as f64 / RATE as f64);
    let limits = |rate: &str, burst: &str| json!({rate: RATE.to_string(), burst: BURST.to_string(), "worker-threads": 2, "max-depth": 0});
    let start = Instant::now();
    let (log, end) = world.push(limits("rate-out", "burst-out"));
    assert_eq!(end, "OK", "{log}");
    assert!(start.elapsed() >= least, "{:?}\n{log}", start.elapsed());
    assert_eq!(world.snapshots_there("").len(), 2);
    let mut options = limits("rate-in", "burst-in");
    options["ns"] = json!("back");
    let start = Instant::now();
    let (log, end) = world.pull(options);
    assert_eq!(end, "OK", "{log}");
    assert!(start.elapsed() >= least, "{:?}\n{log}", start.elapsed());
    assert_eq!(world.snapshots("back").len(), 2);
}
