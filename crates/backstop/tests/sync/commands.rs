//! The command lines that people have in their notes, word for word.

use serde_json::Value;

use crate::world::World;

#[test]
fn the_commands_of_the_manual_work_as_they_are_written_there() {
    let world = World::new();
    let fingerprint = world.there.fingerprint.clone();
    let local = world.here.root.join("datastore/local");
    let words = ["datastore", "create", "local", local.to_str().unwrap()];
    world.manager(&words);
    let run = |line: &str, more: &[&str]| {
        let words: Vec<&str> = line.split(' ').chain(more.iter().copied()).collect();
        world.manager(&words)
    };
    // The old name of the option; newer releases call it --auth-id.
    run(
        "remote create pbs2 --host pbs2.mydomain.example --userid sync@pam --password SECRET --fingerprint",
        &[&fingerprint],
    );
    run("remote update pbs2 --host pbs2.example", &[]);
    let list = run("remote list", &[]);
    for word in ["pbs2", "pbs2.example", "sync@pam", &fingerprint] {
        assert!(list.contains(word), "no {word} in\n{list}");
    }
    assert!(!list.contains("SECRET"), "{list}");
    let one = run("remote show pbs2", &[]);
    assert!(one.contains("sync@pam") && !one.contains("SECRET"), "{one}");

    run(
        "sync-job create pbs2-local --remote pbs2 --remote-store local --store local --schedule",
        &["Wed 02:30"],
    );
    run("sync-job update pbs2-local --comment offsite", &[]);
    run(
        "sync-job update pbs2-local --group-filter",
        &[r"exclude:regex:^vm/1\d{2,3}$"],
    );
    run("sync-job update pbs2-local --rate-in 20MiB", &[]);
    let list = run("sync-job list --output-format json", &[]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let job = &list[0];
    for (key, value) in [
        ("id", "pbs2-local"),
        ("remote", "pbs2"),
        ("remote-store", "local"),
        ("store", "local"),
        ("schedule", "Wed 02:30"),
        ("comment", "offsite"),
        ("rate-in", "20 MiB"),
    ] {
        assert_eq!(job[key], value, "{key} in {job}");
    }
    assert_eq!(job["group-filter"][0], r"exclude:regex:^vm/1\d{2,3}$");
    let table = run("sync-job list", &[]);
    assert!(
        table.contains("offsite") && table.contains("Wed 02:30"),
        "{table}"
    );
    run("sync-job show pbs2-local", &[]);
    run("sync-job remove pbs2-local", &[]);
    run("remote remove pbs2", &[]);
    assert!(!run("remote list", &[]).contains("pbs2"));
}
