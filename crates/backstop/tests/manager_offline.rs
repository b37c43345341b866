//! The manager without a server: the real program on configuration files below a directory of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// An installation below a temporary directory.
struct Installation(tempfile::TempDir);

impl Installation {
    fn new() -> Self {
        Self(testbed::scratch::directory().unwrap())
    }

    /// With the configuration of a stock server.
    fn with_stock_configuration() -> Self {
        let installation = Self::new();
        let etc = installation.etc();
        std::fs::create_dir_all(&etc).unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures/pbs-4.2.3/etc-proxmox-backup");
        for entry in std::fs::read_dir(fixtures).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                std::fs::copy(entry.path(), etc.join(entry.file_name())).unwrap();
            }
        }
        installation
    }

    fn etc(&self) -> PathBuf {
        self.0.path().join("etc/proxmox-backup")
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_backstop"))
            .arg("manager")
            .args(words)
            .env("BACKSTOP_ROOT", self.0.path())
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .env_remove("LC_ALL")
            .env_remove("LC_CTYPE")
            .env_remove("PROXMOX_OUTPUT_FORMAT")
            .env_remove("PROXMOX_OUTPUT_NO_BORDER")
            .env_remove("PROXMOX_OUTPUT_NO_HEADER")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The lines of the audit log.
    fn audit_log(&self) -> Vec<Value> {
        let path = self.0.path().join("var/log/proxmox-backup/api/audit.log");
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => panic!("{error}"),
        };
        assert!(!text.contains("Very-Secret"), "{text}");
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn json(&self, words: &[&str]) -> Value {
        let words = [words, &["--output-format", "json"]].concat();
        serde_json::from_str(&self.ok(&words)).unwrap()
    }

    /// The first line of standard error of a command that must fail.
    fn refused(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(255), "{words:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        stderr.lines().next().unwrap_or_default().to_string()
    }
}

/// What stock printed in a captured run.
fn stock_output(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/pbs-4.2.3/cli")
        .join(name);
    let capture: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    capture["stdout"].as_str().unwrap().to_string()
}

#[test]
fn the_configuration_of_a_stock_server_is_shown_as_stock_shows_it() {
    let installation = Installation::with_stock_configuration();
    for (words, capture) in [
        (
            ["datastore", "list"].as_slice(),
            "062-manager-datastore-list-text.json",
        ),
        (&["user", "list"], "068-manager-user-list-text.json"),
        (&["acl", "list"], "077-manager-acl-list-text.json"),
        (&["cert", "info"], "061-manager-cert-info.json"),
        (
            &["user", "list-tokens", "fixture@pbs"],
            "071-manager-user-list-tokens-fixture@pbs-text.json",
        ),
        (
            &["user", "permissions", "fixture@pbs"],
            "074-manager-user-permissions-fixture@pbs-text.json",
        ),
        (
            &["datastore", "show", "store1", "--output-format", "json"],
            "066-manager-datastore-show-store1-json.json",
        ),
    ] {
        assert_eq!(
            installation.ok(words),
            stock_output(capture),
            "{words:?} ({capture})"
        );
    }
}

#[test]
fn a_new_installation_is_set_up_without_a_server() {
    let installation = Installation::new();
    let path = installation.0.path().join("data/store1");
    let made = installation.ok(&["datastore", "create", "store1", path.to_str().unwrap()]);
    assert!(made.starts_with("Chunkstore create: 1%\n"), "{made}");
    assert!(made.ends_with("TASK OK\n"), "{made}");
    assert!(path.join(".chunks/ffff").is_dir());

    let user = "user-pve-01@pbs";
    let acl_path = "/datastore/store1/pve-01";
    for words in [
        ["user", "create", user, "--password", "VerySecret1"].as_slice(),
        &[
            "acl",
            "update",
            acl_path,
            "DatastoreBackup",
            "--auth-id",
            user,
        ],
        &[
            "user",
            "update",
            user,
            "--comment",
            "for pve-01",
            "--enable",
            "0",
        ],
        &[
            "datastore",
            "update",
            "store1",
            "--gc-schedule",
            "daily",
            "--comment",
            "first",
        ],
        &["datastore", "update", "store1", "--delete", "comment"],
    ] {
        assert_eq!(installation.ok(words), "", "{words:?}");
    }
    assert_eq!(
        installation.json(&["user", "list"]),
        serde_json::json!([{"userid": user, "comment": "for pve-01", "enable": false}])
    );
    assert_eq!(
        installation.json(&["datastore", "show", "store1"]),
        serde_json::json!({"name": "store1", "path": path.to_str().unwrap(), "gc-schedule": "daily"})
    );
    assert_eq!(installation.json(&["acl", "list"])[0]["path"], acl_path);

    let shadow = installation.etc().join("shadow.json");
    assert!(
        !std::fs::read_to_string(&shadow)
            .unwrap()
            .contains("VerySecret1")
    );
    assert_eq!(shadow.metadata().unwrap().permissions().mode() & 0o077, 0);

    installation.ok(&["user", "remove", user]);
    assert_eq!(installation.ok(&["acl", "list"]), "");
    installation.ok(&["datastore", "remove", "store1"]);
    assert_eq!(installation.ok(&["datastore", "list"]), "");
    assert!(path.join(".chunks").is_dir(), "the data must stay");
}

#[test]
fn a_token_tells_its_secret_once() {
    let installation = Installation::new();
    let user = "backup@pbs";
    installation.ok(&["user", "create", user, "--password", "VerySecret1"]);
    let made = installation.ok(&["user", "generate-token", user, "tok1", "--comment", "x"]);
    let made: Value = serde_json::from_str(made.strip_prefix("Result: ").unwrap()).unwrap();
    assert_eq!(made["tokenid"], "backup@pbs!tok1");
    let secret = made["value"].as_str().unwrap();
    assert_eq!(secret.len(), 36);
    let hashes = std::fs::read_to_string(installation.etc().join("token.shadow")).unwrap();
    assert!(!hashes.contains(secret));
    assert!(
        !installation
            .ok(&["user", "list-tokens", user])
            .contains(secret)
    );
    assert_eq!(
        installation.refused(&["user", "generate-token", user, "tok1"]),
        "Error: token 'tok1' for user 'backup@pbs' already exists."
    );
    installation.ok(&["user", "delete-token", user, "tok1"]);
    assert_eq!(installation.ok(&["user", "list-tokens", user]), "");
}

#[test]
fn refusals_have_the_words_of_stock() {
    let installation = Installation::with_stock_configuration();
    for (words, line) in [
        (
            ["datastore", "create", "store1", "/x"].as_slice(),
            "Error: parameter verification failed - 'name': datastore 'store1' already exists.",
        ),
        (
            &[
                "acl",
                "update",
                "/nonsense",
                "Admin",
                "--auth-id",
                "fixture@pbs",
            ],
            "Error: invalid acl path '/nonsense'.",
        ),
        (
            &[
                "acl",
                "update",
                "/datastore/store1",
                "Admin",
                "--auth-id",
                "nobody@pbs",
            ],
            "Error: no such user.",
        ),
        (
            &["user", "create", "short@pbs", "--password", "short"],
            "Error: parameter verification failed - 'password': value must be at least 8 characters long",
        ),
        (&["nope"], "Error: no such command 'nope'"),
        (&[], "Error: no command specified."),
        (
            &["datastore", "show", "nope"],
            "Error: no such datastore 'nope'",
        ),
    ] {
        assert_eq!(installation.refused(words), line, "{words:?}");
    }
}

#[test]
fn what_needs_the_server_says_so() {
    let installation = Installation::new();
    let line = installation.refused(&["garbage-collection", "start", "store1"]);
    assert!(line.contains("needs the server"), "{line}");
}

#[test]
fn recorded_tasks_are_listed_and_shown_without_a_server() {
    let installation = Installation::new();
    let tasks = installation.0.path().join("var/log/proxmox-backup/tasks");
    let ok = "UPID:vm:00007067:000CF758:00000001:6B00CC76:prune:store1:root@pam:";
    let failed = "UPID:vm:00007067:000CF758:00000002:6B00CC77:verify:store1:root@pam:";
    std::fs::create_dir_all(tasks.join("58")).unwrap();
    let list = format!("{ok} 6B00CC78 OK\n{failed} 6B00CC79 it broke\n");
    std::fs::write(tasks.join("archive"), list).unwrap();
    for (upid, end) in [(ok, "OK"), (failed, "ERROR: it broke")] {
        let time = "2026-11-20T22:36:30+00:00";
        let log = format!("{time}: at work\n{time}: TASK {end}\n");
        std::fs::write(tasks.join("58").join(upid), log).unwrap();
    }

    assert_eq!(installation.ok(&["task", "list"]), "", "none runs");
    let all = installation.json(&["task", "list", "--all", "--limit", "20"]);
    assert_eq!(all[0]["upid"], failed, "newest first");
    assert_eq!(all[0]["status"], "it broke");
    assert_eq!(all[1]["status"], "OK");
    let one = installation.json(&["task", "list", "--all", "--limit", "1"]);
    assert_eq!(one.as_array().unwrap().len(), 1);

    assert_eq!(installation.ok(&["task", "log", ok]), "at work\nTASK OK\n");
    assert_eq!(
        installation.refused(&["task", "log", failed]),
        "Error: task failed (status it broke)"
    );
}

#[test]
fn help_goes_to_standard_output_and_names_all_options() {
    let installation = Installation::new();
    for words in [
        ["datastore", "create", "--help"].as_slice(),
        &["help", "datastore", "create"],
        &["datastore", "create", "x", "-h"],
    ] {
        let text = installation.ok(words);
        assert!(
            text.starts_with("Usage: backstop manager datastore create <name> <path> [OPTIONS]\n"),
            "{text}"
        );
        assert!(text.contains("--gc-schedule <string>"), "{text}");
    }
    assert!(
        installation
            .ok(&["--help"])
            .contains("backstop manager user list [OPTIONS]\n")
    );
}

#[test]
fn users_rights_and_tokens_are_kept_with_the_commands_of_the_handbooks() {
    let installation = Installation::with_stock_configuration();
    let user = "user-pve-01@pbs";
    installation.ok(&[
        "user",
        "create",
        user,
        "--password",
        "Pve-Pass-01",
        "--comment",
        "Backups of pve-01",
    ]);
    let path = "/datastore/local-zfs/pve-01";
    installation.ok(&["acl", "update", path, "DatastoreBackup", "--auth-id", user]);
    let rules = installation.json(&["acl", "list"]);
    let own = rules
        .as_array()
        .unwrap()
        .iter()
        .find(|rule| rule["ugid"] == user);
    assert_eq!(
        own.unwrap(),
        &serde_json::json!({"ugid": user, "ugid_type": "user", "path": path, "propagate": true, "roleid": "DatastoreBackup"})
    );
    assert_eq!(
        installation.ok(&["user", "permissions", user, "--path", path]),
        format!(
            "Privileges with (*) have the propagate flag set\n\nPath: {path}\n- Datastore.Backup (*)\n"
        )
    );
    let users = installation.ok(&["user", "list"]);
    assert!(users.contains("Backups of pve-01"), "{users}");

    let secret = |words: &[&str]| -> String {
        let output = installation.ok(words);
        let shown: Value = serde_json::from_str(output.strip_prefix("Result: ").unwrap()).unwrap();
        assert_eq!(shown["tokenid"], format!("{user}!pve"));
        shown["value"].as_str().unwrap().to_string()
    };
    let stored = || std::fs::read_to_string(installation.etc().join("token.shadow")).unwrap();
    let first = secret(&["user", "generate-token", user, "pve", "--comment", "one"]);
    let before = stored();
    let second = secret(&["user", "token", "regenerate", user, "pve"]);
    assert_ne!(first, second);
    assert_ne!(before, stored());
    assert!(!stored().contains(&first) && !stored().contains(&second));
    installation.ok(&[
        "user",
        "token",
        "update",
        user,
        "pve",
        "--expire",
        "4000000000",
    ]);
    let tokens = installation.json(&["user", "token", "list", user]);
    assert_eq!(tokens, installation.json(&["user", "list-tokens", user]));
    assert_eq!(tokens[0]["expire"], 4_000_000_000_i64);
    assert_eq!(tokens[0]["comment"], "one");
    assert!(
        installation
            .refused(&["user", "token", "generate", user, "pve"])
            .contains("already exists")
    );
    let token = format!("{user}!pve");
    installation.ok(&[
        "acl",
        "update",
        path,
        "DatastoreBackup",
        "--auth-id",
        &token,
    ]);
    installation.ok(&["user", "token", "delete", user, "pve"]);
    assert!(!stored().contains(user));
    installation.ok(&["user", "remove", user]);
    for file in ["user.cfg", "acl.cfg", "shadow.json"] {
        let text = std::fs::read_to_string(installation.etc().join(file)).unwrap();
        assert!(!text.contains("user-pve-01"), "{file}: {text}");
    }
    let refused = installation.refused(&["acl", "update", path, "Audit", "--auth-id", user]);
    assert!(refused.contains("no such user"), "{refused}");
}

#[test]
fn each_command_that_changes_the_configuration_leaves_one_line_in_the_audit_log() {
    let installation = Installation::with_stock_configuration();
    // As a server leaves it.
    let states = installation
        .0
        .path()
        .join("var/lib/proxmox-backup/jobstates");
    std::fs::create_dir_all(states).unwrap();
    let data = installation.0.path().join("data/audited");
    let data = data.to_str().unwrap();
    let user = "audited@pbs";
    let token = "audited@pbs!tok";
    let changes: &[(&[&str], &[&str], &[&str])] = &[
        (
            &["user", "create", user, "--password", "Very-Secret-1"],
            &["user.cfg", "shadow.json"],
            &["password"],
        ),
        (
            &["user", "update", user, "--comment", "x"],
            &["user.cfg"],
            &["comment"],
        ),
        (
            &["user", "update", user, "--password", "Very-Secret-2"],
            &["backstop-revocations.json", "shadow.json"],
            &["password"],
        ),
        (
            &["user", "generate-token", user, "tok"],
            &["token.shadow", "user.cfg"],
            &[],
        ),
        (
            &["acl", "update", "/datastore", "Audit", "--auth-id", user],
            &["acl.cfg"],
            &[],
        ),
        (
            &["user", "delete-token", user, "tok"],
            &["token.shadow", "user.cfg"],
            &[],
        ),
        (
            &[
                "openid",
                "create",
                "sso",
                "--issuer-url",
                "https://id.example.com",
                "--client-id",
                "b",
                "--client-key",
                "Very-Secret-3",
            ],
            &["domains.cfg"],
            &["client-id", "client-key", "issuer-url"],
        ),
        (&["openid", "delete", "sso"], &["domains.cfg"], &[]),
        (
            &["datastore", "create", "audited", data],
            &["datastore.cfg"],
            &[],
        ),
        (
            &["datastore", "update", "audited", "--comment", "x"],
            &["datastore.cfg"],
            &["comment"],
        ),
        (
            &[
                "remote",
                "create",
                "far",
                "--host",
                "192.0.2.1",
                "--auth-id",
                "a@pbs",
                "--password",
                "Very-Secret-4",
            ],
            &["remote.cfg"],
            &["host", "password"],
        ),
        (
            &[
                "prune-job",
                "create",
                "audit-p",
                "--store",
                "audited",
                "--schedule",
                "daily",
                "--keep-last",
                "1",
            ],
            &["prune.cfg"],
            &["keep-last", "schedule"],
        ),
        (
            &["verify-job", "create", "audit-v", "--store", "audited"],
            &["verification.cfg"],
            &[],
        ),
        (
            &[
                "sync-job",
                "create",
                "audit-s",
                "--store",
                "audited",
                "--remote",
                "far",
                "--remote-store",
                "xxx",
            ],
            &["sync.cfg"],
            &["remote-store"],
        ),
        (&["sync-job", "remove", "audit-s"], &["sync.cfg"], &[]),
        (&["remote", "remove", "far"], &["remote.cfg"], &[]),
        (
            &["datastore", "remove", "audited"],
            &["acl.cfg", "datastore.cfg", "prune.cfg", "verification.cfg"],
            &[],
        ),
        (
            &["user", "remove", user],
            &[
                "acl.cfg",
                "backstop-revocations.json",
                "shadow.json",
                "user.cfg",
            ],
            &[],
        ),
    ];
    let mut count = 0;
    for (words, files, others) in changes {
        installation.ok(words);
        let lines = installation.audit_log();
        count += 1;
        assert_eq!(lines.len(), count, "{words:?}: {lines:#?}");
        let line = lines.last().unwrap();
        assert_eq!(line["event"], "command", "{line}");
        assert_eq!(line["outcome"], "done", "{line}");
        assert_eq!(line["from"], "local", "{line}");
        assert_eq!(line["uid"], rustix::process::getuid().as_raw(), "{line}");
        assert!(!line["user"].as_str().unwrap().is_empty(), "{line}");
        let command = line["command"].as_str().unwrap();
        let named = words
            .iter()
            .take_while(|word| command.split(' ').any(|own| own == **word));
        assert!(named.count() >= 2, "{words:?}: {line}");
        let told: Vec<&str> = line["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| file.as_str().unwrap())
            .collect();
        assert!(
            !told.is_empty() && told.iter().all(|file| files.contains(file)),
            "{words:?}: {line}"
        );
        assert!(
            told.contains(files.last().unwrap()) || told.contains(&files[0]),
            "{words:?}: {line}"
        );
        let names: Vec<&str> = line["others"]
            .as_array()
            .map_or(&[][..], Vec::as_slice)
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        assert_eq!(names, *others, "{words:?}: {line}");
    }
    let rule = &installation.audit_log()[4];
    assert_eq!(
        rule["parameters"],
        serde_json::json!({"path": "/datastore", "role": "Audit", "auth-id": user})
    );
    // Looking changes nothing, and neither does what is refused.
    for words in [
        ["user", "list"].as_slice(),
        &["acl", "list"],
        &["datastore", "list"],
        &["user", "permissions", "fixture@pbs"],
    ] {
        installation.ok(words);
    }
    installation.refused(&["user", "create", "fixture@pbs"]);
    installation.refused(&["user", "token", "delete", "fixture@pbs", token]);
    assert_eq!(installation.audit_log().len(), count);
    let mode = std::fs::metadata(
        installation
            .0
            .path()
            .join("var/log/proxmox-backup/api/audit.log"),
    )
    .unwrap()
    .permissions()
    .mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn a_datastore_is_made_where_the_folder_of_job_states_is_missing() {
    use std::os::unix::fs::MetadataExt as _;
    let installation = Installation::with_stock_configuration();
    let etc = std::fs::metadata(installation.etc()).unwrap();
    if rustix::process::geteuid().is_root() {
        // As on a stock installation, where the server is not root.
        let (user, group) = (rustix::fs::Uid::from_raw(34), rustix::fs::Gid::from_raw(34));
        rustix::fs::chown(installation.etc(), Some(user), Some(group)).unwrap();
    } else {
        println!("skipped in part: ownership needs root");
    }
    let owner = std::fs::metadata(installation.etc()).unwrap();
    let folder = installation
        .0
        .path()
        .join("var/lib/proxmox-backup/jobstates");
    assert!(!folder.exists());
    let store = installation.0.path().join("fresh");
    let said = installation.ok(&["datastore", "create", "fresh", store.to_str().unwrap()]);
    assert!(said.contains("TASK OK"), "{said}");
    let state = folder.join("garbage_collection-fresh.json");
    for path in [folder.parent().unwrap(), &folder, &state] {
        let found = std::fs::metadata(path).unwrap();
        assert_eq!(
            (found.uid(), found.gid()),
            (owner.uid(), owner.gid()),
            "{path:?}"
        );
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        assert_eq!(found.permissions().mode() & 0o777, mode, "{path:?}");
    }
    // Nothing else changed hands.
    let user = std::fs::metadata(installation.etc().join("user.cfg")).unwrap();
    assert_eq!(user.uid(), etc.uid());
}
