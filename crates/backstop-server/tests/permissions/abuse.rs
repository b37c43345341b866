//! Whatever somebody calls, in whatever order, with whatever parameters: what its privileges do not reach stays as it is.
//!
//! The calls are made up from the router's own tree, so that new endpoints take part by themselves. What is compared are the
//! sections, rules and entries of all configuration files and all files of a datastore.

use std::cell::RefCell;
use std::collections::BTreeMap;

use backstop_server::router::{Endpoint, Method};
use backstop_types::Role;
use backstop_types::acl::AclTree;
use backstop_types::schema::{Format, Property, Schema};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

use crate::setting::{Login, Setting};
use crate::{encoded, served, table};

const ATTACKER: &str = "mallory@pbs";
/// The group that the attacker owns.
const OWN_GROUP: &str = "srv/fixture/store1/ns/team-c/host/owned/";

const RETENTION_LOCKS: &str = "srv/fixture/store1/.backstop-retention-lock.json";
/// Files that hold an entry for each of several things.
const JSON_FILES: [&str; 6] = [
    "shadow.json",
    "token.shadow",
    "tfa.json",
    "backstop-append-only.json",
    "backstop-revocations.json",
    RETENTION_LOCKS,
];

/// Values worth trying, by the name of the parameter.
const WORDS: &[(&str, &[&str])] = &[
    ("store", &["store1", "store1", "store1", "scratch", "fresh"]),
    ("node", &["localhost"]),
    (
        "ns",
        &[
            "",
            "team-b",
            "team-c",
            "archive/team-a",
            "mvdst/moved",
            "fresh",
        ],
    ),
    ("parent", &["", "team-b", "mvdst"]),
    (
        "target-ns",
        &["", "team-b", "team-c", "keep-src", "team-b/fresh"],
    ),
    ("backup-type", &["host", "host", "vm"]),
    (
        "backup-id",
        &["overlap", "owned", "mover", "g2", "nsh", "legacy"],
    ),
    ("backup-time", &["1750000700", "1750000950", "1750000800"]),
    (
        "userid",
        &[ATTACKER, ATTACKER, "victim@pbs", "root@pam", "fresh@pbs"],
    ),
    ("username", &[ATTACKER, "victim@pbs", "root@pam"]),
    (
        "auth-id",
        &[
            "mallory@pbs!t0",
            "mallory@pbs!t1",
            ATTACKER,
            "victim@pbs",
            "victim@pbs!one",
        ],
    ),
    (
        "new-owner",
        &["mallory@pbs!t0", ATTACKER, "victim@pbs", "root@pam"],
    ),
    ("token-name", &["t0", "t1", "one"]),
    (
        "name",
        &["store1", "fresh", "rem1", "got1", "mail1", "rule1"],
    ),
    (
        "id",
        &[
            "prune-b", "verify-b", "prune2", "ver1", "pull-f", "s3end1", "synckey1", "fresh", "one",
        ],
    ),
    ("realm", &["pam", "pbs", "fresh"]),
    (
        "path",
        &[
            "/",
            "/datastore",
            "/datastore/store1",
            "/datastore/store1/team-b",
            "/access",
            "/access/acl",
        ],
    ),
    ("password", &["Some-Pass-1", "PBS:root@pam:66B0C0DE::AA"]),
    ("confirmation-password", &["Some-Pass-1"]),
    ("schedule", &["daily", "hourly"]),
    ("file-name", &["index.json.blob", "root.pxar.didx"]),
    ("filepath", &["root", "Lw=="]),
    (
        "upid",
        &["UPID:vm:00007067:000CF758:0000010C:6B00CD18:verify:store1:root@pam:"],
    ),
    ("maintenance-mode", &["offline", "read-only", "delete"]),
    (
        "digest",
        &["0000000000000000000000000000000000000000000000000000000000000000"],
    ),
];

/// One call, as numbers that stand for endpoint, login and values.
#[derive(Debug, Clone)]
struct Call {
    endpoint: usize,
    login: u8,
    choices: Vec<u16>,
}

fn call(endpoints: usize) -> impl Strategy<Value = Call> {
    (0..endpoints, 0..4u8, vec(any::<u16>(), 24)).prop_map(|(endpoint, login, choices)| Call {
        endpoint,
        login,
        choices,
    })
}

/// Whether a call may be made up: not those that reach for other machines, for the host itself or for other directories.
fn is_harmless(endpoint: &Endpoint) -> bool {
    if endpoint.method == Method::Post && endpoint.path == "/config/datastore" {
        return false;
    }
    let on_host = endpoint.path.starts_with("/nodes/{node}/") && !endpoint.path.contains("/tasks");
    let outside = [
        "/scan",
        "/pull",
        "/push",
        "/sync",
        "/openid",
        "/list-buckets",
        "/test",
        "/mount",
        "/unmount",
        "/check",
    ];
    !on_host && !outside.iter().any(|part| endpoint.path.contains(part))
}

fn value(param: &Property, choice: usize) -> String {
    let pick = |all: &[&str]| all[choice % all.len()].to_owned();
    if let Some((_, words)) = WORDS.iter().find(|(name, _)| *name == param.name) {
        return pick(words);
    }
    of_schema(param.schema, choice)
}

fn of_schema(schema: &Schema, choice: usize) -> String {
    match schema {
        Schema::Boolean => ["0", "1"][choice % 2].to_owned(),
        Schema::Integer { min, max } => (*min).max(1).min(*max).to_string(),
        Schema::Number { min, .. } => min.max(1.0).to_string(),
        Schema::Text {
            format: Format::Enum(words),
            ..
        } => words[choice % words.len()].to_owned(),
        Schema::Text { .. } if choice.is_multiple_of(3) => {
            Role::ALL[choice / 3 % Role::ALL.len()].as_str().to_owned()
        }
        Schema::Text { .. } => "something".to_owned(),
        Schema::Array { items, .. } => of_schema(items, choice),
        Schema::Object(_) => String::new(),
    }
}

/// Makes the call and gives the answer. Tokens that come into being are remembered with their secrets.
async fn make(
    setting: &mut Setting,
    endpoint: &Endpoint,
    call: &Call,
    tokens: &mut Vec<(String, String)>,
) {
    let mut path = endpoint.path.to_owned();
    let mut query = Vec::new();
    for (index, param) in endpoint.params.iter().enumerate() {
        let choice = usize::from(call.choices[index % call.choices.len()]);
        let place = format!("{{{}}}", param.name);
        let value = encoded(&value(param, choice / 3));
        if path.contains(&place) {
            path = path.replace(&place, &value);
        } else if !param.optional || choice.is_multiple_of(3) {
            query.push(format!("{}={value}", param.name));
        }
    }
    let login = match tokens.get(usize::from(call.login)) {
        Some((token, secret)) => Login::NewToken(token.clone(), secret.clone()),
        None => Login::User(ATTACKER.to_owned()),
    };
    let target = format!("{path}?{}", query.join("&"));
    let answer = setting
        .send(table::method(endpoint), &target, &login, None)
        .await;
    let reply: Value = serde_json::from_str(&answer.text).unwrap_or_default();
    if let (Some(token), Some(secret)) = (
        reply["data"]["tokenid"].as_str(),
        reply["data"]["value"].as_str(),
    ) {
        tokens.retain(|(known, _)| known != token);
        tokens.push((token.to_owned(), secret.to_owned()));
    }
}

/// Every thing in the files by its name.
fn things(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, String> {
    let mut things = BTreeMap::new();
    for (path, content) in files {
        let text = String::from_utf8_lossy(content).into_owned();
        let name = path.strip_prefix("etc/proxmox-backup/").unwrap_or(path);
        if name == "acl.cfg" {
            for entry in AclTree::parse(name, &text).unwrap().entries(None, false) {
                let rule = format!(
                    "{} {} {} {}",
                    entry.subject,
                    entry.path,
                    entry.role.as_str(),
                    entry.propagate
                );
                things.insert(format!("acl.cfg#{rule}"), String::new());
            }
        } else if JSON_FILES.contains(&name) {
            let json: Value = serde_json::from_str(&text).unwrap_or_default();
            let entries = match name {
                "tfa.json" => &json["users"],
                RETENTION_LOCKS => &json["locks"],
                _ => &json,
            };
            for (key, value) in entries.as_object().into_iter().flatten() {
                things.insert(format!("{name}#{key}"), value.to_string());
            }
        } else if name.ends_with(".cfg") && name != "node.cfg" {
            for section in text
                .split("\n\n")
                .filter(|section| !section.trim().is_empty())
            {
                let (header, properties) = section
                    .trim_end()
                    .split_once('\n')
                    .unwrap_or((section.trim_end(), ""));
                things.insert(format!("{name}#{header}"), properties.to_owned());
            }
        } else {
            things.insert(name.to_owned(), text);
        }
    }
    things
}

/// Whether the attacker may do with something as it likes, with whatever privileges: what belongs to itself.
fn is_own(name: &str) -> bool {
    let own_token = |id: &str| id.starts_with("mallory@pbs!");
    match name.split_once('#') {
        Some(("user.cfg", header)) => {
            header == "user: mallory@pbs" || header.strip_prefix("token: ").is_some_and(own_token)
        }
        Some(("token.shadow" | "backstop-append-only.json", id)) => own_token(id),
        Some(("shadow.json", user)) => user == "mallory",
        Some(("tfa.json" | "backstop-revocations.json", user)) => user == ATTACKER,
        Some(("acl.cfg", rule)) => own_token(rule),
        _ => false,
    }
}

/// What the attacker changed although it must not.
fn damage(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    may: &dyn Fn(&str, &str) -> bool,
) -> Vec<String> {
    let mut damage = Vec::new();
    let is_gone = !after.contains_key("user.cfg#user: mallory@pbs");
    let names = before
        .keys()
        .chain(after.keys().filter(|name| !before.contains_key(*name)));
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        let left_with_user = is_gone && new.is_none() && name.starts_with("acl.cfg#mallory@pbs ");
        if old == new
            || is_own(name)
            || left_with_user
            || [old, new].into_iter().flatten().any(|text| may(name, text))
        {
            continue;
        }
        damage.push(format!("{name}: {old:?} became {new:?}"));
    }
    let limits = |things: &BTreeMap<String, String>| -> Option<Vec<String>> {
        let section = things.get("user.cfg#user: mallory@pbs")?;
        let limits = section
            .lines()
            .filter(|line| line.contains("enable") || line.contains("expire"));
        Some(limits.map(str::to_owned).collect())
    };
    if !is_gone && limits(before) != limits(after) {
        damage.push("the attacker's own account lasts longer".to_owned());
    }
    damage
}

/// What somebody is granted, and what that lets it change (name and text of something).
type Scenario = (&'static str, &'static str, fn(&str, &str) -> bool);

fn in_team_b(name: &str, text: &str) -> bool {
    let job = name.starts_with("prune.cfg#") || name.starts_with("verification.cfg#");
    let lock = name.strip_prefix(RETENTION_LOCKS);
    lock.is_some_and(|namespace| namespace.starts_with("#team-b"))
        || name.starts_with("srv/fixture/store1/ns/team-b/")
        || job && text.contains("store store1") && text.contains("ns team-b")
}

fn in_own_group(name: &str, _: &str) -> bool {
    name.starts_with(OWN_GROUP)
}

fn checks_of_store1(name: &str, text: &str) -> bool {
    name.starts_with("verification.cfg#") && text.contains("store store1")
        || name.starts_with("srv/fixture/store1/") && name.ends_with("/index.json.blob")
}

const SCENARIOS: &[Scenario] = &[
    ("", "", |_, _| false),
    ("/", "Audit", |_, _| false),
    ("/", "TapeAdmin", |_, _| false),
    ("/", "RemoteAdmin", |name, _| name.contains("remote")),
    ("/datastore/store1/team-c", "DatastoreBackup", in_own_group),
    ("/datastore/store1", "DatastorePowerUser", in_own_group),
    ("/datastore/store1", "DatastoreReader", checks_of_store1),
    ("/datastore/store1/team-b", "DatastoreAdmin", in_team_b),
];

const USERS: &str = "user: root@pam\n\nuser: victim@pbs\n\ntoken: victim@pbs!one\n\nuser: mallory@pbs\n\texpire 4000000000\n";

/// Runs made-up sequences of calls with one grant; gives how many things were changed that the grant does not reach.
fn attack(
    path: &str,
    role: &str,
    may: fn(&str, &str) -> bool,
    cases: u32,
    expect_none: bool,
) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let tokens = ["victim@pbs!one".to_owned()];
    let mut setting = runtime.block_on(Setting::start(USERS, &tokens));
    std::fs::write(setting.path(&format!("{OWN_GROUP}owner")), "mallory@pbs\n").unwrap();
    let mut rules = "acl:1:/datastore/store1:victim@pbs:DatastoreAdmin\n".to_owned();
    if !role.is_empty() {
        rules.push_str(&format!("acl:1:{path}:mallory@pbs:{role}\n"));
    }
    setting.set_rules(&rules);
    let tree = served();
    let endpoints: Vec<&Endpoint> = tree
        .endpoints()
        .into_iter()
        .filter(|endpoint| is_harmless(endpoint))
        .collect();
    let before = things(&setting.contents());
    let setting = RefCell::new(setting);
    let changed = RefCell::new(0);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    // The same sequences on every machine; PROPTEST_CASES asks for that many others.
    let mut runner = match std::env::var_os("PROPTEST_CASES") {
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
        Some(_) => TestRunner::new(Config {
            failure_persistence: None,
            ..Config::default()
        }),
    };
    let outcome = runner.run(&vec(call(endpoints.len()), 1..16), |calls| {
        let mut setting = setting.borrow_mut();
        let mut tokens = Vec::new();
        runtime.block_on(async {
            for call in &calls {
                make(&mut setting, endpoints[call.endpoint], call, &mut tokens).await;
            }
            setting.settle().await;
        });
        let damage = damage(&before, &things(&setting.contents()), &may);
        *changed.borrow_mut() += damage.len();
        setting.restore();
        let made = || {
            calls.iter().map(|call| {
                format!(
                    "{} {}",
                    table::method(endpoints[call.endpoint]),
                    endpoints[call.endpoint].path
                )
            })
        };
        prop_assert!(
            damage.is_empty() || !expect_none,
            "{:?} after {:#?}",
            damage,
            made().collect::<Vec<_>>()
        );
        Ok(())
    });
    outcome.unwrap_or_else(|err| panic!("with {role:?} at {path:?}: {err}"));
    changed.into_inner()
}

#[test]
fn no_sequence_of_calls_changes_what_the_callers_privileges_do_not_reach() {
    for (path, role, may) in SCENARIOS {
        attack(path, role, *may, 48, true);
    }
}

/// Otherwise the test above proves nothing.
#[test]
fn the_same_sequences_do_change_a_lot_for_an_administrator() {
    let changed = attack("/", "Admin", |_, _| false, 64, false);
    assert!(changed > 5, "{changed}");
}
