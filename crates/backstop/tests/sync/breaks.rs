//! Connections that break, servers that are killed, a source that changes meanwhile: what is there stays, no snapshot shows
//! before it is whole, the error names the snapshot, and what has arrived is not fetched again.

use std::fs;

use serde_json::json;
use testbed::link::{Link, LinkSpec};
use testbed::random::Random;

use crate::world::{World, fetched};

/// Plain size of a chunk.
const CHUNK: u64 = 4 << 20;
/// Chunks of the second snapshot, all of them new.
const CHUNKS: u64 = 7;
/// More than a login, the lists, the manifest and the index take.
const PREAMBLE: u64 = 128 << 10;

const FIRST: &str = "host/x/1700000000";
const SECOND: &str = "host/x/1700000001";
const SECOND_NAME: &str = "host/x/2023-11-14T22:13:21Z";

/// One snapshot that is here, and one that is to come.
fn world() -> (World, Link) {
    let world = World::new();
    world.write("disk", 13, 8);
    world.backup_image("x", 1_700_000_000);
    world.add_job("job1", &["--owner", "admin@pbs"]);
    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    world.write("disk", 14, ((CHUNKS * CHUNK) >> 20) as usize);
    world.backup_image("x", 1_700_000_001);
    let link = world.line(LinkSpec::default());
    (world, link)
}

/// The seed of this run, printed so that a failure can be repeated: `SYNC_SEED`, else the time.
pub fn random(name: &str) -> Random {
    let seed = std::env::var("SYNC_SEED").ok();
    let seed = seed.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_nanos() as u64
    });
    println!("{name}: SYNC_SEED={seed}");
    Random::new(seed)
}

/// A number below `limit`.
pub fn below(random: &mut Random, limit: u64) -> u64 {
    let bytes: [u8; 8] = random.bytes(8).try_into().unwrap();
    u64::from_le_bytes(bytes) % limit
}

/// The next run brings the rest, and no more than that; then all is as at the source.
fn completes(world: &World) {
    let rest = CHUNKS - world.noted();
    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    assert_eq!(fetched(&log), rest, "{log}");
    assert_eq!(world.snapshots(""), [FIRST, SECOND]);
    assert!(world.restored(SECOND_NAME) == world.read("disk"));
    world.manager(&["verify", "store1", "--ignore-verified", "false"]);
    assert_eq!(world.runs()["backstop"]["failures"], 0);
}

#[test]
fn a_connection_that_breaks_again_and_again_costs_no_chunk_twice() {
    let (world, link) = world();
    let mut random = random("breaks");
    let mut arrived = 0;
    for round in 1..=4 {
        let left = (CHUNKS - arrived) * CHUNK;
        // Always within the chunks, wherever that is.
        link.cut_after(PREAMBLE + below(&mut random, left.saturating_sub(2 * PREAMBLE).max(1)));
        let (log, end) = world.run_job("job1");
        assert!(link.is_cut(), "{log}");
        assert!(
            end.contains(&format!(
                "sync group host/x failed - snapshot {SECOND_NAME}: "
            )),
            "{end}\n{log}"
        );
        assert_eq!(world.snapshots(""), [FIRST]);
        assert!(world.noted() >= arrived);
        arrived = world.noted();
        let runs = world.runs();
        assert_eq!(runs["backstop"]["failures"], round, "{runs}");
        assert_eq!(runs["backstop"]["missing"], 1, "{runs}");
        link.mend();
        if arrived == CHUNKS {
            break;
        }
    }
    completes(&world);
}

#[test]
fn a_source_that_is_killed_at_any_moment_leaves_the_target_as_it_is() {
    let (mut world, link) = world();
    let mut random = random("killed sources");
    for _ in 0..3 {
        let left = (CHUNKS - world.noted()) * CHUNK;
        // From before the login to the last chunk.
        link.stop_after(below(&mut random, left.max(1)));
        let upid = world.api.post("admin/sync/job1/run", json!({})).unwrap();
        link.wait_until_stopped().unwrap();
        world.restart_there();
        link.lead_to(world.there.address);
        link.cut();
        let (log, end) = world.ended(&upid);
        // Before the source has shown its lists, there is no snapshot to name.
        let named = end.contains(SECOND_NAME) || !log.contains("start sync");
        assert!(end != "OK" && named, "{end}\n{log}");
        assert_eq!(world.snapshots(""), [FIRST]);
        link.mend();
    }
    completes(&world);
}

#[test]
fn a_server_that_is_killed_while_it_pulls_shows_no_half_snapshot_and_goes_on() {
    let (mut world, link) = world();
    let mut random = random("killed targets");
    for round in 1..=3 {
        let left = (CHUNKS - world.noted()) * CHUNK;
        link.stop_after(below(&mut random, left.max(1)));
        world.api.post("admin/sync/job1/run", json!({})).unwrap();
        link.wait_until_stopped().unwrap();
        world.restart_here();
        link.mend();
        // A folder that is not whole shows as an unfinished snapshot, which nothing takes for one.
        let list = world.api.get("admin/datastore/store1/snapshots").unwrap();
        let whole = list.as_array().unwrap().iter();
        let whole: Vec<_> = whole.filter(|item| item["size"].is_u64()).collect();
        assert_eq!(whole.len(), 1, "{list}");
        assert_eq!(whole[0]["backup-time"], 1_700_000_000);
        // A run that died is one that failed.
        let runs = world.runs();
        assert_eq!(runs["backstop"]["failures"], round, "{runs}");
        assert!(runs["backstop"].get("lag").is_none(), "{runs}");
    }
    // What was stored just before the end need not be noted.
    let most = CHUNKS - world.noted();
    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    assert!(fetched(&log) <= most, "{most} were missing\n{log}");
    assert_eq!(world.snapshots(""), [FIRST, SECOND]);
    assert!(world.restored(SECOND_NAME) == world.read("disk"));
    world.manager(&["verify", "store1", "--ignore-verified", "false"]);
}

#[test]
fn what_comes_and_goes_at_the_source_during_a_run_is_no_failure() {
    let (world, link) = world();
    world.backup_image("x", 1_700_000_002);
    link.stop_after(PREAMBLE + CHUNK);
    let upid = world.api.post("admin/sync/job1/run", json!({})).unwrap();
    link.wait_until_stopped().unwrap();
    // The first of both is on its way: the second goes, a third and another group come.
    let forget = ["snapshot", "forget", "host/x/2023-11-14T22:13:22Z"];
    world.there.ok("client", &forget).unwrap();
    world.backup_image("x", 1_700_000_003);
    world.backup_image("y", 1_700_000_000);
    link.go_on();
    let (log, end) = world.ended(&upid);
    assert_eq!(end, "OK", "{log}");
    assert!(
        log.contains("2023-11-14T22:13:22Z: skipped because vanished since start of sync"),
        "{log}"
    );
    assert_eq!(world.snapshots(""), [FIRST, SECOND]);
    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    let all = [FIRST, SECOND, "host/x/1700000003", "host/y/1700000000"];
    assert_eq!(world.snapshots(""), all);

    // A snapshot that is removed while its chunks are fetched is kept by the source until they are.
    world.write("disk", 15, 8);
    world.backup_image("x", 1_700_000_004);
    link.stop_after(PREAMBLE + CHUNK);
    let upid = world.api.post("admin/sync/job1/run", json!({})).unwrap();
    link.wait_until_stopped().unwrap();
    let forget = ["snapshot", "forget", "host/x/2023-11-14T22:13:24Z"];
    assert!(!world.there.run("client", &forget).unwrap().status.success());
    link.go_on();
    let (log, end) = world.ended(&upid);
    assert_eq!(end, "OK", "{log}");
    assert!(world.restored("host/x/2023-11-14T22:13:24Z") == fs::read(world.path("disk")).unwrap());
}
