#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::config_schema;
use proptest::prelude::*;
use serde_json::json;

fn parse(text: &str) -> Result<SectionConfig, String> {
    SectionConfig::parse(config_schema::SYNC, "sync.cfg", text).map_err(|error| {
        error
            .to_string()
            .replace("parsing \"sync.cfg\" failed: ", "")
    })
}

const BASE: &str = "\tstore aaa\n\tremote-store bbb\n";

#[test]
fn loose_forms_mean_the_same_as_the_canonical_one() {
    let canonical = parse(&format!("sync: job1\n{BASE}")).unwrap();
    for text in [
        format!("sync:job1\n{BASE}"),
        "sync :   job1  \n   store    aaa  \n  remote-store\tbbb".to_string(),
        format!("sync: job1\n{BASE}").replace('\n', "\r\n"),
        format!("\n\n  \nsync: job1\n{BASE}\n \n"),
    ] {
        assert_eq!(parse(&text).unwrap(), canonical, "{text:?}");
    }
    assert_eq!(
        canonical.to_text("x").unwrap(),
        "sync: job1\n\tremote-store bbb\n\tstore aaa\n"
    );
}

#[test]
fn broken_lines_are_reported_as_by_the_original_parser() {
    for (text, error) in [
        (
            format!("sync: job1\n\tcomment\n{BASE}"),
            "line 2 - syntax error (expected section properties)",
        ),
        (
            format!("# hi\nsync: job1\n{BASE}"),
            "line 1 - syntax error (expected header)",
        ),
        (
            format!(" sync: job1\n{BASE}"),
            "line 1 - syntax error (expected header)",
        ),
        (
            format!("sync job1\n{BASE}"),
            "line 1 - syntax error (expected header)",
        ),
        (
            format!("sync: job1\n# hi\n{BASE}"),
            "line 2 - syntax error (expected section properties)",
        ),
        (
            format!("sync: job1\n\t# hi\n{BASE}"),
            "line 2 - unknown property '#'",
        ),
        (
            format!("sync: job1\n{BASE}sync: job2\n{BASE}"),
            "line 4 - syntax error (expected section properties)",
        ),
        (
            "sync: job1\n\tstore aaa\n\t \n\tremote-store bbb\n".to_string(),
            "line 3 - property 'remote-store' is missing and it is not optional.",
        ),
        (
            "sync: job1\n\tstore aaa\n".to_string(),
            "line 2 - property 'remote-store' is missing and it is not optional.",
        ),
        (
            format!("sync: job1\n{BASE}\tstore ccc\n"),
            "line 4 - duplicate property 'store'",
        ),
        (
            format!("sync: job1\n{BASE}\tmax-depth 8\n"),
            "line 4 - property 'max-depth': value must have a maximum value of 7 (got 8)",
        ),
        (
            format!("sync: job1\n{BASE}\tremove-vanished maybe\n"),
            "line 4 - property 'remove-vanished': Unable to parse boolean option.",
        ),
        (
            "sync: a\n".to_string(),
            "line 1 - syntax error in section identifier: value must be at least 3 characters long",
        ),
        (
            "foo: job1\n".to_string(),
            "line 1 - unknown section type 'foo'",
        ),
    ] {
        assert_eq!(parse(&text).unwrap_err(), error, "{text:?}");
    }
}

#[test]
fn the_file_is_named_in_errors() {
    let error =
        SectionConfig::parse(config_schema::SYNC, "/etc/x/sync.cfg", "foo: bar").unwrap_err();
    assert_eq!(
        error.to_string(),
        "parsing \"/etc/x/sync.cfg\" failed: line 1 - unknown section type 'foo'"
    );
}

#[test]
fn values_are_normalised_only_where_they_must_be() {
    let text = format!(
        "sync: job1\n{BASE}\tmax-depth 007\n\tremove-vanished ON\n\tcomment \n\trate-in 20MiB\n\tgroup-filter type:vm\n\tgroup-filter group:host/a\n"
    );
    let config = parse(&text).unwrap();
    assert_eq!(
        config.to_text("x").unwrap(),
        "sync: job1\n\tcomment \n\tgroup-filter type:vm\n\tgroup-filter group:host/a\n\tmax-depth 7\n\trate-in 20MiB\n\tremote-store bbb\n\tremove-vanished true\n\tstore aaa\n"
    );
    let config = parse(&format!("sync: job1\n{BASE}\tcomment a # b\n")).unwrap();
    assert_eq!(
        config.get("job1").unwrap().properties["comment"],
        json!("a # b")
    );
}

#[test]
fn a_repeated_id_is_written_back_as_the_original_does() {
    let text = format!("sync: job1\n\tcomment 1\n{BASE}\nsync: job1\n\tcomment 2\n{BASE}");
    let config = parse(&text).unwrap();
    let second = "sync: job1\n\tcomment 2\n\tremote-store bbb\n\tstore aaa\n";
    assert_eq!(config.to_text("x").unwrap(), format!("{second}\n{second}"));
    assert_eq!(config.iter().count(), 1);
}

#[test]
fn sections_are_added_replaced_and_removed() {
    let mut config = parse(&format!("sync: job2\n{BASE}\nsync: job1\n{BASE}")).unwrap();
    let section = json!({"store": "ccc", "remote-store": "ddd"})
        .as_object()
        .unwrap()
        .clone();
    config.set("sync", "job2", section.clone()).unwrap();
    config.set("sync", "job0", section.clone()).unwrap();
    assert!(config.remove("job1") && !config.remove("job1"));
    assert_eq!(
        config.to_text("x").unwrap(),
        "sync: job2\n\tremote-store ddd\n\tstore ccc\n\nsync: job0\n\tremote-store ddd\n\tstore ccc\n"
    );
    assert_eq!(config.to_api("job0").unwrap()["id"], json!("job0"));
    assert!(config.set("sync", "x", section.clone()).is_err());
    assert!(config.set("nope", "job9", section).is_err());
    assert!(config.set("sync", "job9", Map::new()).is_err());
}

#[test]
fn control_characters_are_never_written() {
    let mut config = parse("").unwrap();
    let section = json!({"store": "ccc", "remote-store": "ddd"})
        .as_object()
        .unwrap()
        .clone();
    config.set("sync", "job0", section).unwrap();
    config
        .get_mut("job0")
        .unwrap()
        .properties
        .insert("owner".into(), json!("a@pbs\n\tx y"));
    assert!(
        config
            .to_text("x")
            .unwrap_err()
            .to_string()
            .starts_with("writing \"x\" failed: ")
    );
}

#[test]
fn a_schedule_that_makes_no_sense_does_not_make_the_file_unusable() {
    let text = "prune: job1\n\tschedule 24:00\n\tstore store1\n";
    let config = SectionConfig::parse(config_schema::PRUNE, "prune.cfg", text).unwrap();
    assert_eq!(config.to_text("prune.cfg").unwrap(), text);
    let set = config_schema::job::PRUNE.parse_form([("store", "store1"), ("schedule", "24:00")]);
    assert_eq!(
        set.unwrap_err().to_string(),
        "parameter verification failed - 'schedule': unable to parse calendar event at '24:00' - \
         Context(\"date or time specification\")"
    );
}

#[test]
fn every_section_file_of_the_reference_servers_is_written_back_unchanged() {
    let mut count = 0;
    for version in ["pbs-3.2.4", "pbs-4.2.3"] {
        for (file, types) in config_schema::FILES {
            let path = format!(
                "{}/../../tests/fixtures/{version}/etc-proxmox-backup/{file}",
                env!("CARGO_MANIFEST_DIR")
            );
            let Ok(text) = std::fs::read_to_string(&path) else {
                continue;
            };
            let config = SectionConfig::parse(types, file, &text).unwrap();
            assert_eq!(config.to_text(file).unwrap(), text, "{path}");
            count += 1;
        }
    }
    assert!(count >= 18, "only {count} files were found");
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        jobs in proptest::collection::btree_map("[a-z]{3,6}", ("[!-~]([ -~]{0,9}[!-~])?", proptest::option::of(0i64..8), proptest::option::of(any::<bool>()), proptest::collection::vec("type:(vm|ct|host)", 0..3)), 0..4)
    ) {
        let mut config = SectionConfig::empty(config_schema::SYNC);
        for (id, (comment, depth, vanished, filters)) in jobs {
            let mut section = json!({"store": "aaa", "remote-store": "bbb", "comment": comment}).as_object().unwrap().clone();
            if let Some(depth) = depth { section.insert("max-depth".into(), json!(depth)); }
            if let Some(vanished) = vanished { section.insert("remove-vanished".into(), json!(vanished)); }
            if !filters.is_empty() { section.insert("group-filter".into(), json!(filters)); }
            config.set("sync", &id, section).unwrap();
        }
        let text = config.to_text("x").unwrap();
        prop_assert_eq!(parse(&text).unwrap(), config);
    }

    #[test]
    fn no_text_panics(text in "(sync: [a-z]{2,4}\n|[ \t][a-z-]{0,8}[ \t]?[\\PC]{0,8}\n|\\PC{0,10}\n){0,6}") {
        let _ = parse(&text);
    }
}
