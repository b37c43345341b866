#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::notification::Severity;

fn notification(template: &str, data: Value) -> Notification {
    Notification::new(0, Severity::Info, template, data, [])
}

fn subject(template: &str, data: Value) -> String {
    Templates::default()
        .render(&notification(template, data))
        .subject
}

#[test]
fn subjects_are_those_of_stock_servers() {
    let store = json!({ "datastore": "s", "job-id": "j" });
    for (template, data, wanted) in [
        ("gc-ok", &store, "Garbage Collect Datastore 's' successful"),
        ("gc-err", &store, "Garbage Collect Datastore 's' failed"),
        ("prune-ok", &store, "Pruning datastore 's' successful"),
        ("prune-err", &store, "Pruning datastore 's' failed"),
        ("verify-ok", &store, "Verify Datastore 's' successful"),
        ("verify-err", &store, "Verify Datastore 's' failed"),
        ("sync-ok", &store, "Sync local datastore 's' successful"),
        (
            "sync-err",
            &json!({ "datastore": "s", "remote": "r" }),
            "Sync remote 'r' datastore 's' failed",
        ),
        (
            "tape-backup-ok",
            &json!({ "datastore": "s", "job-id": "j", "job-duration": 1 }),
            "Tape Backup 'j' datastore 's' successful",
        ),
        (
            "tape-load",
            &json!({ "tape-label": "l", "drive-type": "drive", "tape-drive": "d" }),
            "Load Media 'l' request for drive 'd'",
        ),
        (
            "package-updates",
            &json!({ "hostname": "h" }),
            "New software packages available (h)",
        ),
        ("acme-err", &store, "Could not renew certificate"),
        (
            "thresholds-exceeded",
            &store,
            "Threshold Exceeded For Datastore 's'",
        ),
        ("test", &store, "Test notification"),
    ] {
        assert_eq!(subject(template, data.clone()), wanted, "{template}");
    }
}

#[test]
fn a_text_says_what_there_is_to_say() {
    let data = json!({
        "datastore": "s", "hostname": "vm", "index-file-count": 3, "index-data-bytes": 2048, "disk-bytes": 1024,
        "disk-chunks": 2, "deduplication-factor": "2.00", "removed-bytes": 0, "removed-chunks": 0, "removed-bad": 0,
        "pending-bytes": 0, "pending-chunks": 0, "still-bad": 7, "upid": "UPID:x", "base-url": "https://vm:8007",
    });
    let text = Templates::default()
        .render(&notification("gc-ok", data))
        .text;
    for part in [
        "1 KiB in 2 chunks (50.00%)",
        "Bad chunks that stay: 7",
        "https://vm:8007/#DataStore-s",
        "Deduplication factor: 2.00",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let data = json!({ "datastore": "s", "failed-snapshot-list": ["vm/1/x", "<b>"] });
    let rendered = Templates::default().render(&notification("verify-err", data));
    assert!(
        rendered.text.contains("  vm/1/x\n  <b>\n"),
        "{}",
        rendered.text
    );
    assert!(rendered.html.contains("&lt;b&gt;"), "{}", rendered.html);
}

#[test]
fn an_override_goes_first_and_a_broken_one_does_not_lose_anything() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let templates = Templates::with_overrides(folder.path());
    let render = || {
        templates.render(&notification(
            "gc-err",
            json!({ "datastore": "<s>", "error": "no" }),
        ))
    };
    assert_eq!(render().subject, "Garbage Collect Datastore '<s>' failed");
    write("gc-err-subject.txt.hbs", "two\nlines {{datastore}}\n");
    write("gc-err-body.html.hbs", "<p>{{datastore}}</p>");
    assert_eq!(render().subject, "two lines <s>");
    assert_eq!(render().html, "<p>&lt;s&gt;</p>");
    write("gc-err-subject.txt.hbs", "{{#if");
    assert_eq!(render().subject, "Garbage Collect Datastore '<s>' failed");
    // A name from outside leads to no other file.
    let outside = notification("../../etc/passwd", json!({ "a": 1 }));
    assert!(templates.render(&outside).text.contains("\"a\": 1"));
}

#[test]
fn helpers_do_what_those_of_stock_servers_do() {
    let folder = tempfile::tempdir().unwrap();
    let text = |source: &str, data: Value| {
        std::fs::write(folder.path().join("x-body.txt.hbs"), source).unwrap();
        Templates::with_overrides(folder.path())
            .render(&notification("x", data))
            .text
    };
    for (source, data, wanted) in [
        ("{{human-bytes 1024}}", json!({}), "1 KiB"),
        ("{{human-bytes a}}", json!({ "a": "1536" }), "1.5 KiB"),
        ("{{human-bytes a}}", json!({ "a": {} }), "ERROR"),
        ("{{duration 3725}}", json!({}), "1h 2m 5s"),
        ("{{duration 0}}", json!({}), "0s"),
        ("{{relative-percentage 1 3}}", json!({}), "33.33%"),
        ("{{relative-percentage 1 0}}", json!({}), "-"),
        ("{{object a}}", json!({ "a": 1 }), "\n1\n"),
        (
            "{{table t}}",
            json!({ "t": { "schema": { "columns": [
                { "label": "Name", "id": "n" }, { "label": "Size", "id": "s", "renderer": "human-bytes" }
            ] }, "data": [{ "n": "a", "s": 1024 }] } }),
            "Name    Size\na       1 KiB\n",
        ),
    ] {
        assert_eq!(text(source, data), wanted, "{source}");
    }
}

#[test]
fn a_repeat_and_a_recovery_say_so_in_their_subjects() {
    let mut failure = notification("gc-err", json!({ "datastore": "s", SINCE: 0 }));
    failure.fields.insert(REPEATED.to_owned(), "7".to_owned());
    let subject = Templates::default().render(&failure).subject;
    let begins = "Garbage Collect Datastore 's' failed (7 times since 19";
    assert!(subject.starts_with(begins), "{subject}");
    let mut success = notification("gc-ok", json!({ "datastore": "s" }));
    success
        .fields
        .insert(RECOVERED.to_owned(), "true".to_owned());
    assert_eq!(
        Templates::default().render(&success).subject,
        "Recovered: Garbage Collect Datastore 's' successful"
    );
}

#[test]
fn warnings_are_in_the_subject() {
    for (count, wanted) in [
        (0, "Pruning datastore 's' successful"),
        (1, "Pruning datastore 's' successful with 1 warning"),
        (2, "Pruning datastore 's' successful with 2 warnings"),
    ] {
        let data = json!({ "datastore": "s", WARNINGS: count });
        assert_eq!(subject("prune-ok", data), wanted);
    }
}

#[test]
fn a_template_that_nobody_knows_is_sent_with_what_it_would_show() {
    let rendered = Templates::default().render(&notification("new", json!({ "a": "b" })));
    assert_eq!(rendered.subject, "Notification 'new'");
    assert!(rendered.text.contains("\"a\": \"b\""));
}

proptest! {
    #[test]
    fn no_value_breaks_a_text(index in 0..BUILT_IN.len(), value in "\\PC{0,20}", number in any::<i64>()) {
        let (template, _, _) = BUILT_IN[index];
        let data = json!({
            "datastore": value, "error": value, "hostname": value, "days": number, "not-after": number,
            "disk-bytes": number, "index-data-bytes": number, "failed-snapshot-list": [value],
        });
        let rendered = Templates::default().render(&notification(template, data));
        prop_assert!(!rendered.subject.contains('\n'));
        prop_assert!(!rendered.text.is_empty());
    }
}
