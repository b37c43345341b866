//! Against receivers on the loopback that answer as they are told and keep what they were sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Map, Value, json};

use super::*;
use crate::notification::Severity;
use crate::recipe;
use crate::repeats::{RECOVERED, RECOVERED_FROM};
use crate::settings::Settings;

/// A request as it came.
struct Got {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|err| panic!("{err}: {text}"))
    }
}

/// A server that answers one request with this status and text.
fn receiver(status: &'static str, answer: &'static str) -> (String, Receiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, got) = channel();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            match header.trim_end().split_once(": ") {
                Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
                None => break,
            }
        }
        let length = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.map_or(0, |(_, value)| value.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
            answer.len()
        );
        reader.get_mut().write_all(text.as_bytes()).unwrap();
        let line = line.trim_end().to_owned();
        let _ = sender.send(Got {
            line,
            headers,
            body,
        });
    });
    (format!("http://{address}"), got)
}

pub(super) fn surroundings() -> Surroundings {
    Surroundings {
        node: "vm".into(),
        fqdn: "vm.example.com".into(),
        mail_from: None,
        route: Route::Direct,
        mail_of: BTreeMap::new(),
        sendmail: "/nonexistent/sendmail".into(),
        templates: Templates::default(),
        limit: LIMIT,
    }
}

pub(super) fn failure() -> Notification {
    let data = json!({
        "datastore": "s1", "hostname": "vm", "error": "it said \"no\"\nand\tmore: ü", "base-url": "https://vm:8007"
    });
    let fields = [
        ("type", "gc".to_owned()),
        ("datastore", "s1".to_owned()),
        ("hostname", "vm".to_owned()),
    ];
    Notification::new(1_795_867_200, Severity::Error, "gc-err", data, fields)
}

fn recovery() -> Notification {
    let mut recovery = failure();
    recovery.severity = Severity::Info;
    recovery.content = crate::Content::Template {
        template_name: "gc-ok".into(),
        data: json!({ "datastore": "s1" }),
    };
    for (name, value) in [(RECOVERED, "true"), (RECOVERED_FROM, "error")] {
        recovery.fields.insert(name.into(), value.into());
    }
    recovery
}

pub(super) fn target(ty: &str, properties: Value) -> Target {
    let mut settings = Settings::default();
    let properties = properties.as_object().unwrap();
    settings.create(ty, "target", properties).unwrap();
    settings.target("target").unwrap()
}

fn made_by(name: &str, given: &[(&str, &str)]) -> Target {
    let given = given
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let settings: Map<String, Value> = recipe::find(name)
        .unwrap()
        .settings(&given.collect())
        .unwrap();
    target("webhook", Value::Object(settings))
}

/// What arrives at a receiver of a recipe for a failure, and for the recovery from it.
fn sent_by(name: &str, url_name: &str, given: &[(&str, &str)]) -> [Got; 2] {
    [failure(), recovery()].map(|notification| {
        let (url, got) = receiver("200 OK", "ok");
        let mut given = given.to_vec();
        given.push((url_name, &url));
        let target = made_by(name, &given);
        target.send(&notification, &surroundings()).unwrap();
        got.recv().unwrap()
    })
}

#[test]
fn the_recipe_for_keep_fires_and_resolves_one_alert() {
    let [fired, resolved] = sent_by("keep", "url", &[("api-key", "hush-hush")]);
    assert_eq!(fired.line, "POST /alerts/event HTTP/1.1");
    assert_eq!(fired.header("x-api-key"), Some("hush-hush"));
    let (fired, resolved) = (fired.json(), resolved.json());
    assert_eq!(fired["status"], "firing");
    assert_eq!(fired["severity"], "critical");
    assert_eq!(fired["lastReceived"], "2026-11-28T12:00:00Z");
    assert_eq!(fired["source"], json!(["backstop"]));
    assert_eq!(fired["labels"]["datastore"], "s1");
    let text = fired["description"].as_str().unwrap();
    assert!(text.contains("it said \"no\"\nand\tmore: ü"), "{text}");
    assert_eq!(resolved["status"], "resolved");
    assert_eq!(resolved["fingerprint"], fired["fingerprint"]);
}

#[test]
fn the_recipe_for_alertmanager_fires_and_resolves_one_alert() {
    let [fired, resolved] = sent_by("alertmanager", "url", &[("token", "hush-hush")]);
    assert_eq!(fired.line, "POST /api/v2/alerts HTTP/1.1");
    assert_eq!(fired.header("authorization"), Some("Bearer hush-hush"));
    let (fired, resolved) = (fired.json(), resolved.json());
    assert_eq!(fired[0]["labels"], resolved[0]["labels"]);
    assert_eq!(fired[0]["labels"]["instance"], "vm");
    assert_eq!(
        fired[0]["annotations"]["summary"],
        "Garbage Collect Datastore 's1' failed"
    );
    assert_eq!(fired[0]["startsAt"], "2026-11-28T12:00:00Z");
    assert_eq!(fired[0]["endsAt"], "2999-12-31T00:00:00Z");
    assert_eq!(resolved[0]["endsAt"], "2026-11-28T12:00:00Z");
}

#[test]
fn the_recipe_for_ntfy_publishes_with_a_priority() {
    let [failed, recovered] = sent_by("ntfy", "url", &[("topic", "my\"topic")]);
    assert_eq!(failed.line, "POST / HTTP/1.1");
    assert_eq!(failed.header("authorization"), None);
    assert_eq!(failed.json()["topic"], "my\"topic");
    assert_eq!(failed.json()["priority"], 5);
    assert_eq!(recovered.json()["priority"], 2);
    assert_eq!(recovered.json()["tags"], json!(["white_check_mark"]));
    let title = recovered.json()["title"].as_str().unwrap().to_owned();
    assert!(title.starts_with("Recovered: "), "{title}");
}

#[test]
fn the_recipes_for_slack_and_teams_send_to_a_url_that_is_a_secret() {
    for (name, check) in [
        ("slack", "/text"),
        ("teams", "/attachments/0/content/body/1/text"),
    ] {
        let (url, got) = receiver("200 OK", "ok");
        let url = format!("{url}/services/T0/B0/hush");
        let target = made_by(name, &[("url", &url)]);
        target.send(&failure(), &surroundings()).unwrap();
        let got = got.recv().unwrap();
        assert_eq!(got.line, "POST /services/T0/B0/hush HTTP/1.1");
        let body = got.json();
        let text = body.pointer(check).unwrap().as_str().unwrap();
        assert!(text.contains("it said \"no\""), "{text}");
        let TargetKind::Webhook(hook) = &target.kind else {
            panic!("no webhook");
        };
        assert!(!hook.url.contains("hush"));
    }
}

#[test]
fn slack_sees_no_markup_in_what_a_message_holds() {
    let (url, got) = receiver("200 OK", "ok");
    let mut failed = failure();
    failed.show("error", "<!channel> \"a\" & <@U1>".into());
    made_by("slack", &[("url", &url)])
        .send(&failed, &surroundings())
        .unwrap();
    let text = got.recv().unwrap().json()["text"]
        .as_str()
        .unwrap()
        .to_owned();
    let wanted = "&lt;!channel&gt; \"a\" &amp; &lt;@U1&gt;";
    assert!(text.contains(wanted) && !text.contains('<'), "{text}");
}

#[test]
fn ntfy_is_sent_no_more_than_it_takes_for_a_message() {
    let (url, got) = receiver("200 OK", "ok");
    let mut long = failure();
    long.show("error", "日本語の🚨".repeat(400).into());
    made_by("ntfy", &[("url", &*url), ("topic", "t")])
        .send(&long, &surroundings())
        .unwrap();
    let text = got.recv().unwrap().json()["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(text.len() <= 4096 && text.ends_with('…'), "{}", text.len());
    assert!(text.len() > 3000, "{}", text.len());
}

#[test]
fn what_a_server_will_never_take_is_told_from_what_it_may_take_later() {
    let error = |status: &'static str| {
        let (url, _got) = receiver(status, "no");
        let hook = target("webhook", json!({ "method": "post", "url": url }));
        hook.send(&failure(), &surroundings()).unwrap_err()
    };
    for status in ["400 Bad Request", "413 Too Large", "422 No"] {
        let error = error(status);
        assert!(
            matches!(error, SendError::Refused(_)),
            "{status}: {error:?}"
        );
    }
    for status in ["401 Unauthorized", "404 Not Found", "429 Slow", "503 Oops"] {
        let error = error(status);
        assert!(matches!(error, SendError::Failed(_)), "{status}: {error:?}");
    }
    // as the head of the answer
    let error = error("429 Slow\r\nRetry-After: 77");
    let wait = Duration::from_secs(77);
    assert!(matches!(error, SendError::Busy { wait: after, .. } if after == wait));
    let url = "http://127.0.0.1:1/{{ bogus";
    let hook = target("webhook", json!({ "method": "post", "url": url }));
    let error = hook.send(&failure(), &surroundings()).unwrap_err();
    assert!(matches!(error, SendError::Refused(_)), "{error:?}");
}

#[test]
fn a_secret_is_masked_wherever_it_begins_within_base64() {
    use base64::engine::general_purpose::STANDARD;
    let secret = "correct horse";
    for before in ["", "a", "ab", "\0user\0", "abcd"] {
        for after in ["", "x", "xy", "xyz"] {
            let encoded = STANDARD.encode(format!("{before}{secret}{after}"));
            let text = masked(&format!("5.7.8 {encoded} is no login"), [secret]);
            assert!(text.contains("***"), "{text}");
            let left = text.replace("***", "");
            let left = left.trim_start_matches("5.7.8 ");
            assert!(left.len() < 12 + 8 + " is no login".len(), "{text}");
            assert!(
                !left.contains("b3JyZWN0") && !left.contains("aG9yc2"),
                "{text}"
            );
        }
    }
}

#[test]
fn the_recipe_for_telegram_sends_a_message_that_is_not_too_long() {
    let (url, got) = receiver("200 OK", "{\"ok\":true}");
    let given = [("token", "1:hush"), ("chat-id", "-42"), ("url", &*url)];
    let mut long = failure();
    long.show("error", "x".repeat(9000).into());
    made_by("telegram", &given)
        .send(&long, &surroundings())
        .unwrap();
    let got = got.recv().unwrap();
    assert_eq!(got.line, "POST /bot1:hush/sendMessage HTTP/1.1");
    assert_eq!(got.json()["chat_id"], "-42");
    let text = got.json()["text"].as_str().unwrap().to_owned();
    assert!(text.chars().count() < 4096 && text.ends_with('…'));
}

#[test]
fn a_recipe_says_what_it_lacks_and_takes_no_templates() {
    let slack = recipe::find("slack").unwrap();
    let given = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let error = slack.settings(&BTreeMap::new()).unwrap_err();
    assert!(error.contains("needs 'url'"), "{error}");
    let error = slack.settings(&given("bogus", "x")).unwrap_err();
    assert!(error.contains("takes no 'bogus'"), "{error}");
    let ntfy = recipe::find("ntfy").unwrap();
    let error = ntfy.settings(&given("topic", "{{ x }}")).unwrap_err();
    assert!(error.contains("template"), "{error}");
    assert!(recipe::find("nope").unwrap_err().contains("telegram"));
    for recipe in recipe::RECIPES {
        assert!(recipe.text().contains("Content-Type: application/json"));
    }
}

#[test]
fn a_refusal_of_an_http_server_is_a_failure_without_secrets() {
    for status in ["401 Unauthorized", "500 Oops", "302 Found"] {
        let (url, _got) = receiver(status, "wrong token hush/hush&1 hush%2Fhush%261");
        let hook = target(
            "webhook",
            json!({
                "method": "post", "url": format!("{url}/{{{{ secrets.a }}}}"), "secret": ["name=a,value=aHVzaC9odXNoJjE="]
            }),
        );
        let error = hook.send(&failure(), &surroundings()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&status[..3]) && !text.contains("hush"),
            "{text}"
        );
    }
    let (url, _got) = receiver("401 Unauthorized", "no token hush-token");
    let gotify = target("gotify", json!({ "server": url, "token": "hush-token" }));
    let text = gotify
        .send(&failure(), &surroundings())
        .unwrap_err()
        .to_string();
    assert!(text.contains("401") && !text.contains("hush"), "{text}");
}

#[test]
fn gotify_gets_what_stock_servers_send() {
    let (url, got) = receiver("200 OK", "{}");
    let gotify = target(
        "gotify",
        json!({ "server": format!("{url}/"), "token": "t" }),
    );
    let mut notification = failure();
    notification.show("error", "a ``` b".into());
    gotify.send(&notification, &surroundings()).unwrap();
    let got = got.recv().unwrap();
    assert_eq!(got.line, "POST /message HTTP/1.1");
    assert_eq!(got.header("authorization"), Some("Bearer t"));
    assert_eq!(got.header("x-gotify-key"), Some("t"));
    assert_eq!(got.json()["priority"], 9);
    assert_eq!(got.json()["title"], "Garbage Collect Datastore 's1' failed");
    let message = got.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("````\n") && message.ends_with("\n````"),
        "{message}"
    );
}

#[test]
fn templates_of_a_webhook_see_what_stock_servers_show_them() {
    let (url, got) = receiver("204 No Content", "");
    let body = "{{ title }}|{{ severity }}|{{ timestamp }}|{{ fields.datastore }}|{{ secrets.a }}|{{ url-encode fields.type }}|{{ json fields.hostname }}|{{ escape message }}|{{ fields.none }}";
    let hook = target(
        "webhook",
        json!({
            "method": "put", "url": format!("{url}/x?a={{{{ url-encode title }}}}"),
            "header": [crate::NamedValue::new("X-Kind", "{{ fields.type }}").to_text()],
            "secret": [crate::NamedValue::new("a", "s&t").to_text()],
            "body": crate::NamedValue::new("b", body).value,
        }),
    );
    hook.send(&failure(), &surroundings()).unwrap();
    let got = got.recv().unwrap();
    assert_eq!(
        got.line,
        "PUT /x?a=Garbage%20Collect%20Datastore%20%27s1%27%20failed HTTP/1.1"
    );
    assert_eq!(got.header("x-kind"), Some("gc"));
    let body = String::from_utf8(got.body).unwrap();
    let begin = "Garbage Collect Datastore 's1' failed|error|1795867200|s1|s&t|gc|\"vm\"|";
    assert!(body.starts_with(begin), "{body}");
    assert!(body.contains(r#"it said \"no\"\nand\tmore: ü"#), "{body}");
}

#[test]
fn a_broken_template_and_a_closed_port_are_said() {
    let hook = |url: &str| target("webhook", json!({ "method": "get", "url": url }));
    let text = hook("http://127.0.0.1:9/{{ bogus")
        .send(&failure(), &surroundings())
        .unwrap_err()
        .to_string();
    assert!(text.starts_with("failed to render webhook url: "), "{text}");
    let text = hook("http://127.0.0.1:1/hush-hush-path")
        .send(&failure(), &surroundings())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("127.0.0.1:1") && !text.contains("hush"),
        "{text}"
    );
}
