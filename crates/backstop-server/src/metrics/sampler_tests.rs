#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::mpsc::channel;

use parking_lot::Mutex;

use super::*;
use crate::config::ConfigStore;
use crate::rrd::{Consolidation, Timeframe};

/// No test waits as long as this.
const LONG: Duration = Duration::from_secs(60);

fn disk(total: u64) -> Disk {
    Disk {
        total,
        used: 0,
        available: total,
        activity: None,
    }
}

fn later(time: Duration) -> Instant {
    Instant::now() + time
}

#[test]
fn a_hanging_file_system_holds_up_nobody_and_keeps_its_last_state() {
    let (release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let calls = Mutex::new(0);
    let read = move |path: &Path| {
        if path.ends_with("hangs") {
            let call = {
                let mut calls = calls.lock();
                *calls += 1;
                *calls
            };
            // The second call hangs until it is released.
            if call == 2 {
                gate.lock().recv().unwrap();
            }
            return Ok(disk(call));
        }
        Ok(disk(100))
    };
    let (events, incoming) = channel();
    let mut disks = Disks::new(Arc::new(read), events);
    let (hangs, well) = (Path::new("/hangs"), Path::new("/well"));
    let question = |disks: &Disks, path| disks.known[path].question;

    disks.ask([hangs, well].into_iter());
    disks
        .listen(&incoming, later(LONG), Disks::are_known)
        .unwrap();
    assert_eq!(disks.last(hangs), Some(disk(1)));

    disks.ask([hangs, well].into_iter());
    disks
        .listen(&incoming, later(LONG), |disks| {
            question(disks, well) == Question::Answered
        })
        .unwrap();
    assert_eq!(question(&disks, hangs), Question::Asked);
    disks.give_up_waiting();
    assert_eq!(disks.last(hangs), Some(disk(1)));
    assert_eq!(disks.last(well), Some(disk(100)));

    // It is neither asked again nor waited for, also when nobody wants it in between.
    disks.ask([well].into_iter());
    disks.ask([hangs, well].into_iter());
    disks
        .listen(&incoming, later(LONG), Disks::are_known)
        .unwrap();
    assert_eq!(question(&disks, hangs), Question::Late);

    release.send(()).unwrap();
    disks
        .listen(&incoming, later(LONG), |disks| {
            question(disks, hangs) == Question::Answered
        })
        .unwrap();
    assert_eq!(disks.last(hangs), Some(disk(2)));
}

#[test]
fn a_file_system_that_fails_or_panics_has_no_state() {
    let read = |path: &Path| match path.to_str() {
        Some("/panics") => panic!("in a reader"),
        Some("/fails") => Err(io::Error::other("no")),
        _ => Ok(disk(1)),
    };
    let (events, incoming) = channel();
    let mut disks = Disks::new(Arc::new(read), events);
    disks.ask(["/panics", "/fails", "/well"].into_iter().map(Path::new));
    disks
        .listen(&incoming, later(LONG), Disks::are_known)
        .unwrap();
    assert!(disks.are_known());
    assert_eq!(disks.last(Path::new("/panics")), None);
    assert_eq!(disks.last(Path::new("/fails")), None);
    assert_eq!(disks.last(Path::new("/well")), Some(disk(1)));
    disks.ask([Path::new("/well")].into_iter());
    assert_eq!(disks.known.len(), 1);
}

fn work(dir: &Path) -> (Work, Receiver<Event>) {
    let config = Arc::new(ConfigStore::new(dir));
    let (events, incoming) = channel();
    let work = Work {
        datastores: DatastoreRegistry::new(config, &crate::roots::Roots::below(dir)),
        history: Arc::default(),
        long: Arc::new(LongHistory::open(dir.join("rrdb"))),
        cpu: CpuTimes::START,
        disks: Disks::new(Arc::new(Disk::read), events),
        complaint: Complaint::default(),
    };
    (work, incoming)
}

#[test]
fn a_sample_has_all_values_of_the_host_and_of_each_datastore_that_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().display();
    let text = format!(
        "datastore: store1\n\tpath {here}\n\n\
         datastore: closed\n\tmaintenance-mode offline\n\tpath {here}\n\n\
         datastore: missing\n\tpath {here}/missing\n"
    );
    fs::write(dir.path().join("datastore.cfg"), text).unwrap();
    let (mut work, incoming) = work(dir.path());
    work.sample(&incoming).unwrap();
    let sample = work.history.newest().unwrap();
    assert!(sample.time > 1_700_000_000);
    let names = |readings: &[Reading]| -> Vec<&str> {
        let names = readings.iter().map(|reading| reading.metric);
        // Not every file system is on a disk.
        names
            .filter(|name| !["disk_read", "disk_write"].contains(name))
            .collect()
    };
    assert_eq!(
        names(&sample.host).join(" "),
        "cpu_current cpu_iowait cpu_avg1 cpu_avg5 cpu_avg15 mem_total mem_used swap_total swap_used net_in net_out \
         disk_total disk_used disk_available"
    );
    let [(name, readings)] = &sample.datastores[..] else {
        panic!("{:?}", sample.datastores)
    };
    assert_eq!(name.to_string(), "store1");
    assert_eq!(
        names(readings),
        ["disk_total", "disk_used", "disk_available"]
    );
    assert!(readings[0].value > 0.0);
    // the long history has the same under the names of the archives
    let kept = |object: &str, names: &[&'static str]| -> Vec<&str> {
        let cf = Consolidation::Average;
        let extract = work
            .long
            .extract(object, names, Timeframe::MONTH, cf, sample.time);
        let measured = extract
            .values
            .into_iter()
            .filter(|(_, values)| values.last() != Some(&None));
        measured.map(|(name, _)| name).collect()
    };
    assert_eq!(
        kept(
            "host",
            &[
                "cpu", "iowait", "loadavg", "memtotal", "memused", "netin", "netout", "total",
                "used"
            ]
        ),
        [
            "cpu", "iowait", "loadavg", "memtotal", "memused", "netin", "netout", "total", "used"
        ]
    );
    assert_eq!(
        kept("datastore/store1", &["available", "total", "used"]),
        ["available", "total", "used"]
    );
    for object in ["datastore/closed", "datastore/missing"] {
        assert!(kept(object, &["total"]).is_empty(), "{object}");
    }
}

#[test]
fn a_stopped_sampler_ends_without_another_sample() {
    let dir = tempfile::tempdir().unwrap();
    let config = Arc::new(ConfigStore::new(dir.path()));
    let registry = DatastoreRegistry::new(config, &crate::roots::Roots::below(dir.path()));
    let history = Arc::new(History::default());
    let long = Arc::new(LongHistory::open(dir.path().join("rrdb")));
    let sampler = Sampler::start(registry, Arc::clone(&history), long).unwrap();
    let begin = Instant::now();
    sampler.stop();
    assert!(begin.elapsed() < INTERVAL);
    assert!(history.since(0).len() <= 1);
    assert_eq!(Arc::strong_count(&history), 1);
}
