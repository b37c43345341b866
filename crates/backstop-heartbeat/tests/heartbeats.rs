//! Which run is told to whom, and how.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use backstop_heartbeat::{
    Event, Job, Monitor, Outcome, Place, Push, Receiver, RunId, Signal, Source, WaitingPush,
    check_url,
};
use proptest::prelude::*;
use serde_json::json;

fn monitor(properties: serde_json::Value) -> Monitor {
    let mut whole = json!({"url": "https://kuma.example.org/api/push/s3cr3t"});
    for (name, value) in properties.as_object().unwrap() {
        whole[name] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn event(source: Source, outcome: Outcome) -> Event {
    Event {
        source,
        outcome,
        started: 1000,
        duration: 2500,
        run: RunId::of_bits(7),
    }
}

fn place(store: &str, ns: &str) -> Place {
    Place {
        store: store.parse().unwrap(),
        ns: ns.parse().unwrap(),
    }
}

fn backup(store: &str, ns: &str, group: &str) -> Source {
    Source::Backup(place(store, ns), group.parse().unwrap())
}

fn job(text: &str, at: Option<Place>) -> Source {
    Source::Job(text.parse().unwrap(), at)
}

#[test]
fn a_monitor_is_told_of_what_it_watches_and_of_nothing_else() {
    let sources = [
        backup("tank", "", "vm/100"),
        backup("tank", "", "vm/101"),
        backup("tank", "site/a", "vm/100"),
        backup("other", "", "vm/100"),
        job("sync:s1", Some(place("tank", "site"))),
        job("gc:tank", Some(place("tank", ""))),
        job("realm-sync:ldap", None),
    ];
    for (properties, told) in [
        (json!({}), vec![0, 1, 2, 3, 4, 5, 6]),
        (json!({"job": "sync:s1"}), vec![4]),
        (json!({"job": "gc:tank"}), vec![5]),
        (json!({"job": "verify:s1"}), vec![]),
        (json!({"store": "tank"}), vec![0, 1, 2, 4, 5]),
        (json!({"store": "tank", "ns": "site"}), vec![2, 4]),
        (json!({"store": "tank", "ns": "site/a"}), vec![2]),
        (json!({"store": "tank", "group": "vm/100"}), vec![0]),
        (
            json!({"store": "tank", "ns": "site/a", "group": "vm/100"}),
            vec![2],
        ),
        (json!({"disable": true}), vec![]),
    ] {
        let monitor = monitor(properties);
        monitor.check().unwrap();
        let wanted = sources
            .iter()
            .enumerate()
            .filter(|(_, source)| monitor.wants(&event((*source).clone(), Outcome::Ok)));
        assert_eq!(
            wanted.map(|(n, _)| n).collect::<Vec<_>>(),
            told,
            "{monitor:?}"
        );
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    for properties in [
        json!({"job": "sync:s1", "store": "tank"}),
        json!({"job": "nonsense"}),
        json!({"job": "sync:"}),
        json!({"job": "sync:a/b"}),
        json!({"group": "vm/100"}),
        json!({"ns": "a"}),
        json!({"store": "tank", "group": "vm100"}),
        json!({"store": "../x"}),
        json!({"url": "ftp://host/x"}),
        json!({"url": "not a url"}),
        json!({"start": true}),
        json!({"exit-code": true}),
    ] {
        let error = monitor(properties.clone()).check().unwrap_err().to_string();
        assert!(!error.contains("s3cr3t"), "{error}");
    }
}

fn asked(push: &Push, receiver: Receiver, url: &str) -> (String, String, String) {
    let request = push.request(receiver, url, false).unwrap().unwrap();
    let body = String::from_utf8(request.body().clone()).unwrap();
    (
        request.method().to_string(),
        request.uri().to_string(),
        body,
    )
}

#[test]
fn uptime_kuma_is_told_status_message_and_duration() {
    let url = "https://10.0.0.5:3001/api/push/T0ken?status=up&msg=OK&ping=";
    let good = event(backup("tank", "a", "vm/100"), Outcome::Ok).push();
    let (method, uri, body) = asked(&good, Receiver::UptimeKuma, url);
    assert_eq!((method.as_str(), body.as_str()), ("GET", ""));
    assert_eq!(
        uri,
        "https://10.0.0.5:3001/api/push/T0ken?status=up&msg=backup%20tank%3Aa%2Fvm%2F100%3A%20OK&ping=2500"
    );
    let reason = Outcome::Failed("ESTALE: Stale file handle\nmore & more".to_owned());
    let bad = event(job("sync:s1", None), reason).push();
    let (_, uri, _) = asked(&bad, Receiver::UptimeKuma, "http://kuma/api/push/T?x=1");
    assert_eq!(
        uri,
        "http://kuma/api/push/T?x=1&status=down&msg=sync%3As1%3A%20ESTALE%3A%20Stale%20file%20handle%20more%20%26%20more&ping=2500"
    );
    // Days are told as they are, up to what fits into its column.
    let mut long = event(job("sync:s1", None), Outcome::Ok);
    for (days, ping) in [(3, "259200000"), (30, "2147483647")] {
        long.duration = days * 86_400_000;
        let (_, uri, _) = asked(&long.push(), Receiver::UptimeKuma, "http://kuma/api/push/T");
        assert!(uri.ends_with(&format!("&ping={ping}")), "{uri}");
    }
    let begun = event(job("sync:s1", None), Outcome::Started).push();
    assert!(
        begun
            .request(Receiver::UptimeKuma, url, false)
            .unwrap()
            .is_none()
    );
}

#[test]
fn healthchecks_is_told_start_end_and_failure_of_one_run() {
    let url = "https://hc-ping.com/5a1b/";
    let rid = "00000000-0000-8000-8000-000000000007";
    let at = |outcome| event(job("gc:tank", None), outcome).push();
    let failed = || Outcome::Failed("no space".to_owned());
    for (outcome, below, body) in [
        (Outcome::Started, "/start", "gc:tank: started"),
        (Outcome::Ok, "", "gc:tank: OK"),
        (Outcome::Warnings(3), "", "gc:tank: OK, 3 warnings"),
        (failed(), "/fail", "gc:tank: no space"),
    ] {
        let expected = format!("https://hc-ping.com/5a1b{below}?rid={rid}");
        let told = asked(&at(outcome), Receiver::Healthchecks, url);
        assert_eq!(told, ("POST".to_owned(), expected, body.to_owned()));
    }
    for (outcome, below) in [(Outcome::Ok, "/0"), (failed(), "/1")] {
        let request = at(outcome).request(Receiver::Healthchecks, url, true);
        let uri = request.unwrap().unwrap().uri().path().to_owned();
        assert_eq!(uri, format!("/5a1b{below}"));
    }
}

#[test]
fn a_push_counts_as_taken_only_when_the_receiver_took_it() {
    let said = |receiver: Receiver, body: &str| {
        let objection = receiver.objection(body.as_bytes());
        objection.map(|objection| (objection.reason, objection.wait.is_some()))
    };
    let kuma = |body: &str| said(Receiver::UptimeKuma, body);
    assert_eq!(kuma(r#"{"ok":true}"#), None);
    assert_eq!(kuma(r#"{"ok":true,"msg":"OK"}"#), None);
    for refused in [
        r#"{"ok":false,"msg":"Monitor not found or not active."}"#,
        r#"{"ok":"true"}"#,
        "{}",
        "OK",
        "",
        "<html>log in</html>",
        "[true]",
        "\u{0}",
    ] {
        assert!(kuma(refused).is_some(), "{refused}");
    }
    let checks = |body: &str| said(Receiver::Healthchecks, body);
    for taken in ["OK", "", "ok\n"] {
        assert_eq!(checks(taken), None, "{taken}");
    }
    let (reason, waits) = checks("OK (not found)").unwrap();
    assert!(reason.contains("does not know") && !waits, "{reason}");
    let (_, waits) = checks("OK (rate limited)").unwrap();
    assert!(waits, "it takes more in a minute");
}

#[test]
fn the_start_is_told_only_to_who_asked_for_it() {
    let begun = event(job("sync:s1", None), Outcome::Started);
    assert!(!monitor(json!({})).wants(&begun));
    assert!(monitor(json!({"receiver": "healthchecks", "start": true})).wants(&begun));
}

#[test]
fn warnings_are_good_unless_the_monitor_says_otherwise() {
    let warned = event(job("prune:p", None), Outcome::Warnings(2));
    let signal = |monitor: Monitor| monitor.counted(warned.clone()).push().signal;
    assert_eq!(signal(monitor(json!({}))), Signal::Up);
    assert_eq!(
        signal(monitor(json!({"warnings-are-down": true}))),
        Signal::Down
    );
}

#[test]
fn a_push_that_comes_late_says_when_its_run_ended() {
    let mut event = event(backup("tank", "", "vm/100"), Outcome::Ok);
    (event.started, event.duration) = (1_000_000, 60_000);
    let waiting = WaitingPush::of(&event);
    let text = serde_json::to_string(&waiting).unwrap();
    assert_eq!(serde_json::from_str::<WaitingPush>(&text).unwrap(), waiting);
    let shown = |time: i64| format!("at {time}");
    let told = |now: i64| waiting.told(now, shown).unwrap().message;
    assert_eq!(told(1_000_060 + 300), "backup tank:vm/100: OK");
    assert_eq!(
        told(1_000_060 + 301),
        "backup tank:vm/100: OK (ended at 1000060)"
    );
    event.outcome = Outcome::Failed("é".repeat(500));
    let long = WaitingPush::of(&event)
        .told(2_000_000, shown)
        .unwrap()
        .message;
    assert!(long.ends_with("… (ended at 1000060)"), "{long}");
    assert!(long.chars().count() <= 201, "{long}");
    event.outcome = Outcome::Started;
    let start = WaitingPush::of(&event);
    assert!(start.told(1_000_100, shown).is_some());
    // A receiver would wait for its end from then on.
    assert_eq!(start.told(2_000_000, shown), None);
    // What an earlier version left has no time.
    let left = r#"{"signal":"up","message":"gc:s: OK"}"#;
    let left: WaitingPush = serde_json::from_str(left).unwrap();
    assert_eq!(left.told(2_000_000, shown).unwrap().message, "gc:s: OK");
}

#[test]
fn of_old_pushes_only_the_newest_of_each_source_is_told() {
    let ended = |source: Source, started: i64| {
        let event = event(source, Outcome::Ok);
        WaitingPush::of(&Event {
            started,
            duration: 0,
            ..event
        })
    };
    let vm = |started| ended(backup("tank", "", "vm/100"), started);
    let mut newest = vm(10_000);
    assert!(newest.replaces(&vm(6_399), 10_000));
    assert!(
        !newest.replaces(&vm(6_400), 10_000),
        "young enough to be news"
    );
    assert!(!newest.replaces(&ended(backup("tank", "", "vm/101"), 0), 10_000));
    let mut earlier = vm(1000);
    earlier.absorb(&vm(0));
    newest.absorb(&earlier);
    newest.absorb(&vm(2000));
    let told = newest.told(10_000, |_| String::new()).unwrap().message;
    assert_eq!(told, "backup tank:vm/100: OK (3 earlier runs not told)");
    let mut start = vm(10_000);
    start.push.signal = Signal::Start;
    assert!(
        !start.replaces(&vm(0), 10_000),
        "a start says nothing of how it went"
    );
}

#[test]
fn an_event_can_be_kept_until_it_is_known_whom_it_concerns() {
    let at = place("tank", "a/b");
    for source in [
        backup("tank", "a/b", "vm/100"),
        backup("tank", "", "host/x"),
        job("sync:offsite", Some(at)),
        job("gc:s", None),
    ] {
        for outcome in [
            Outcome::Ok,
            Outcome::Warnings(2),
            Outcome::Failed("no".into()),
            Outcome::Started,
        ] {
            let event = event(source.clone(), outcome);
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(
                serde_json::from_str::<Event>(&text).unwrap(),
                event,
                "{text}"
            );
        }
    }
}

#[test]
fn the_url_of_a_monitor_is_not_printed() {
    let monitor = monitor(json!({"url": "https://u:geheim@host:1/api/push/s3cr3t?x=geheim"}));
    assert_eq!(monitor.server(), "https://host:1");
    let text = format!("{monitor:?}");
    assert!(
        !text.contains("s3cr3t") && !text.contains("geheim"),
        "{text}"
    );
}

#[test]
fn each_task_is_a_run_of_its_own() {
    let upid = |text: &str| text.parse::<backstop_types::Upid>().unwrap();
    let one = upid("UPID:elsa:00004F37:0039E469:00000000:5CA78B83:garbage_collection::root@pam:");
    let two = upid("UPID:elsa:00004F37:0039E469:00000001:5CA78B83:garbage_collection::root@pam:");
    assert_eq!(RunId::of_task(&one), RunId::of_task(&one));
    assert_ne!(RunId::of_task(&one), RunId::of_task(&two));
    assert_eq!(RunId::of_task(&one).to_string().len(), 36);
}

#[test]
fn jobs_are_named_as_their_tasks_are() {
    let job = Job::of_worker_type("verificationjob", "v-1").unwrap();
    assert_eq!(job.to_string(), "verify:v-1");
    assert_eq!(job.to_string().parse::<Job>().unwrap(), job);
    assert_eq!(Job::of_worker_type("aptupdate", ""), None);
}

proptest! {
    /// Whatever a URL and a message hold, the request is one to the same server, or none.
    #[test]
    fn a_push_goes_to_the_server_of_its_url(url in "https?://[a-z]{1,8}(:[0-9]{1,5})?(/[ -~]{0,20})?", message in ".{0,300}") {
        let push = Push { signal: Signal::Down, message, duration: Some(1), run: Some(RunId::of_bits(1)) };
        for receiver in [Receiver::UptimeKuma, Receiver::Healthchecks] {
            if let Ok(Some(request)) = push.request(receiver, &url, false) {
                let asked = check_url(&url).unwrap();
                prop_assert_eq!(request.uri().authority(), asked.authority());
                prop_assert!(!request.uri().to_string().contains(char::is_whitespace));
            }
        }
    }
}
