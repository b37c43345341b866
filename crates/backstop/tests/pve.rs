//! The hook of `vzdump` and its guard, as a Proxmox VE node uses them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use testbed::authority::Authority;
use testbed::push_receiver::{PushReceiver, Watch};

const TOKEN: &str = "T0kenT0ken";

/// A node: a root folder with the hook in it, and a `vzdump` that calls it as the real one does.
struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let bin = node.path("usr/local/bin");
        std::fs::create_dir_all(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_backstop"), bin.join("backstop")).unwrap();
        symlink("backstop", bin.join("backstop-pve-hook")).unwrap();
        node
    }

    /// A node whose hook has this configuration.
    fn configured(text: &str) -> Self {
        let node = Self::new();
        node.write("etc/backstop/pve-hook.conf", text, 0o600);
        node
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn hook(&self) -> PathBuf {
        self.path("usr/local/bin/backstop-pve-hook")
    }

    fn write(&self, path: &str, text: &str, mode: u32) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    /// A run of `vzdump` that calls the hook with each of these lines of words, and fails where the hook fails.
    fn vzdump(&self, calls: &[&str]) -> Output {
        self.vzdump_with(&self.hook(), calls)
    }

    fn vzdump_with(&self, hook: &Path, calls: &[&str]) -> Output {
        let mut script = "set -e\n".to_owned();
        for call in calls {
            script.push_str(&format!("{} {call}\n", hook.display()));
        }
        self.script(&[], &script)
    }

    /// A run of `vzdump`, started by `wrapper`, that does what `script` says: `$hook` is the hook, `$state` its folder, and `$run` what
    /// names of its files begin with.
    fn script(&self, wrapper: &[&str], script: &str) -> Output {
        let script = format!(
            "#!/bin/sh\nhook={}\nstate={}\nrun=$state/$$-$(cut -d' ' -f22 /proc/$$/stat)\n{script}",
            self.hook().display(),
            self.path("run/backstop-pve-hook").display()
        );
        self.write("usr/bin/vzdump", &script, 0o755);
        let words = [wrapper, &["/bin/sh"]].concat();
        // The real one clears the environment, too.
        Command::new(words[0])
            .args(&words[1..])
            .arg(self.path("usr/bin/vzdump"))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("STOREID", "pbs1")
            .env("BACKSTOP_ROOT", self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Records of jobs that have not ended.
    fn running(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("run/backstop-pve-hook")) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".json")).collect()
    }

    fn guard(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_backstop"))
            .arg("pve-guard")
            .args(words)
            .args(["--root", self.folder.path().to_str().unwrap()])
            .output()
            .unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn receiver() -> PushReceiver {
    PushReceiver::start(|_| (200, r#"{"ok":true}"#.to_owned())).unwrap()
}

fn conf(receiver: &PushReceiver) -> String {
    format!("url: {}\n", receiver.url(&format!("/api/push/{TOKEN}")))
}

const GOOD_JOB: [&str; 9] = [
    "job-init",
    "job-start",
    "backup-start snapshot 100",
    "pre-stop snapshot 100",
    "pre-restart snapshot 100",
    "post-restart snapshot 100",
    "backup-end snapshot 100",
    "log-end snapshot 100",
    "job-end",
];

#[test]
fn a_job_is_told_once_and_at_its_end() {
    let receiver = receiver();
    let node = Node::configured(&conf(&receiver));
    let before = node.vzdump(&GOOD_JOB[..8]);
    assert!(before.status.success(), "{before:?}");
    assert!(receiver.received().is_empty());
    let whole = node.vzdump(&GOOD_JOB);
    assert!(whole.status.success(), "{whole:?}");
    let pushes = receiver.received();
    assert_eq!(pushes.len(), 1);
    assert_eq!(pushes[0].path(), format!("/api/push/{TOKEN}"));
    assert_eq!(pushes[0].parameter("status").unwrap(), "up");
    let message = pushes[0].parameter("msg").unwrap();
    assert!(message.ends_with(" to pbs1: OK, 1 guest"), "{message}");
    let ping = pushes[0].parameter("ping").unwrap();
    assert!(ping.parse::<u64>().unwrap() < 600_000, "{ping}");
    // The log of the job says so, without the secret.
    let log = text(&whole.stdout);
    assert!(
        log.contains("told http://127.0.0.1") && !log.contains(TOKEN),
        "{log}"
    );
    assert_eq!(text(&whole.stderr), "");
    assert!(node.running().is_empty(), "neither job runs");
}

#[test]
fn a_failed_guest_makes_the_push_of_its_job_down() {
    let receiver = receiver();
    let node = Node::configured(&conf(&receiver));
    let calls = [
        "job-start",
        "backup-start snapshot 100",
        "backup-abort snapshot 100",
        "log-end snapshot 100",
        "backup-start snapshot 101",
        "backup-end snapshot 101",
        "job-end",
    ];
    assert!(node.vzdump(&calls).status.success());
    assert!(node.vzdump(&["job-start", "job-abort"]).status.success());
    // What failed before has no part in the next job.
    assert!(node.vzdump(&GOOD_JOB).status.success());
    let told: Vec<_> = receiver
        .received()
        .iter()
        .map(|push| {
            (
                push.parameter("status").unwrap(),
                push.parameter("msg").unwrap(),
            )
        })
        .collect();
    let ends = [
        ("down", "1 of 2 guests failed: 100"),
        ("down", "backup job aborted"),
        ("up", "OK, 1 guest"),
    ];
    assert_eq!(told.len(), ends.len());
    for ((status, message), (expected, end)) in told.iter().zip(ends) {
        assert!(
            status == expected && message.ends_with(end),
            "{status} {message}"
        );
    }
}

#[test]
fn what_a_crashed_job_left_behind_is_removed_and_counts_for_nobody() {
    let receiver = receiver();
    let node = Node::configured(&conf(&receiver));
    let crashed = [
        "job-start",
        "backup-start snapshot 100",
        "backup-abort snapshot 100",
    ];
    assert!(node.vzdump(&crashed).status.success());
    assert_eq!(node.running().len(), 1);
    assert!(node.vzdump(&["job-start", "job-end"]).status.success());
    assert_eq!(receiver.received()[0].parameter("status").unwrap(), "up");
    assert!(node.running().is_empty());
}

#[test]
fn nothing_that_goes_wrong_breaks_the_backup() {
    let refusing = PushReceiver::start(|_| (404, format!("no monitor {TOKEN}"))).unwrap();
    let node = Node::new();
    let complaint = |node: &Node, call: &str| {
        let output = node.vzdump(&[call]);
        assert!(output.status.success(), "{output:?}");
        let said = text(&output.stderr);
        assert!(!said.contains(TOKEN), "{said}");
        said
    };
    assert!(complaint(&node, "job-end").contains("there is no configuration"));
    let cases = [
        (
            format!("url: http://127.0.0.1:1/api/push/{TOKEN}\ntimeout: 4"),
            "unable to connect",
        ),
        (format!("{}timeout: 4", conf(&refusing)), "404"),
        (format!("url = {TOKEN}"), "expected NAME: VALUE"),
    ];
    for (configuration, expected) in &cases {
        node.write("etc/backstop/pve-hook.conf", configuration, 0o600);
        let said = complaint(&node, "job-end");
        assert!(said.contains(expected), "{said}");
    }
    node.write("etc/backstop/pve-hook.conf", &cases[1].0, 0o644);
    assert!(complaint(&node, "job-end").contains("chmod 600"));
    // Phases of versions to come, and none at all.
    assert_eq!(complaint(&node, "job-something-new x y z"), "");
    assert!(complaint(&node, "").contains("without a phase"));
    // A folder of state that is none: that a guest failed cannot be noted, so that the job is not called good.
    let receiver = receiver();
    node.write("etc/backstop/pve-hook.conf", &conf(&receiver), 0o600);
    let _ = std::fs::remove_dir_all(node.path("run/backstop-pve-hook"));
    node.write("run/backstop-pve-hook", "a file", 0o600);
    assert!(complaint(&node, "backup-abort snapshot 100").contains("backstop-pve-hook"));
    complaint(&node, "job-end");
    assert_eq!(receiver.received()[0].parameter("status").unwrap(), "down");
}

#[test]
fn a_receiver_that_fails_at_first_is_told_again() {
    let count = std::sync::atomic::AtomicU32::new(0);
    let receiver = PushReceiver::start(move |_| {
        match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => (500, "not yet".to_owned()),
            _ => (200, r#"{"ok":true}"#.to_owned()),
        }
    });
    let receiver = receiver.unwrap();
    let node = Node::configured(&conf(&receiver));
    let output = node.vzdump(&["job-end"]);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(receiver.received().len(), 2);
}

#[test]
fn a_script_line_can_call_the_hook() {
    let receiver = receiver();
    let node = Node::configured(&conf(&receiver));
    let script = format!(
        "#!/bin/sh\necho something else >/dev/null\n{} pve-hook \"$@\"\ntrue\n",
        node.path("usr/local/bin/backstop").display()
    );
    node.write("usr/local/bin/own-hook", &script, 0o755);
    let calls = [
        "job-start",
        "backup-start snapshot 7",
        "backup-abort snapshot 7",
        "job-end",
    ];
    let hook = node.path("usr/local/bin/own-hook");
    assert!(node.vzdump_with(&hook, &calls).status.success());
    let message = receiver.received()[0].parameter("msg").unwrap();
    assert!(message.ends_with("1 of 1 guest failed: 7"), "{message}");
}

#[test]
fn a_receiver_by_ip_is_trusted_for_its_name_alone() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path()).unwrap();
    let names = ["status.example.org"];
    let (certificate, key) = authority.issue(folder.path(), "status", &names).unwrap();
    let receiver =
        PushReceiver::start_tls(&certificate, &key, |_| (200, r#"{"ok":true}"#.to_owned()))
            .unwrap();
    let trusted = format!("ca-file: {}\n", authority.certificate.display());
    // Not too long for those that are tried again.
    let short = trusted.clone() + "timeout: 4\n";
    for (more, is_told) in [
        (trusted + "tls-server-name: status.example.org\n", true),
        (
            short.clone() + "tls-server-name: other.example.org\n",
            false,
        ),
        (short, false),
        (
            "timeout: 4\ntls-server-name: status.example.org\n".to_owned(),
            false,
        ),
    ] {
        let before = receiver.received().len();
        let node = Node::configured(&(conf(&receiver) + &more));
        let output = node.vzdump(&["job-end"]);
        assert!(output.status.success());
        let said = text(&output.stderr);
        assert_eq!(
            said.contains("no trusted TLS connection"),
            !is_told,
            "{more}{said}"
        );
        assert_eq!(
            receiver.received().len() - before,
            usize::from(is_told),
            "{more}"
        );
    }
}

/// What the receiver was told: status and message.
fn told(receiver: &PushReceiver) -> Vec<(String, String)> {
    let pushes = receiver.received();
    let told = pushes.iter().map(|push| {
        let parameter = |name| push.parameter(name).unwrap();
        (parameter("status"), parameter("msg"))
    });
    told.collect()
}

/// A job whose hook could not note something is never called good, whatever could be noted later.
#[test]
fn what_could_not_be_noted_makes_the_push_down() {
    let all = "$hook job-start; $hook backup-start snapshot 100; $hook backup-end snapshot 100\n";
    for (between, says) in [
        // There was no room to note a failed guest; then there was.
        (
            "mkdir $run.tmp; $hook backup-abort snapshot 101; rmdir $run.tmp; $hook log-end snapshot 100",
            "some of it could not be noted",
        ),
        ("rm -rf $state", "its start was not noted"),
        (
            "rm -rf $state; $hook backup-end snapshot 100",
            "its start was not noted",
        ),
        ("rm $run.json; echo broken >$run.json", "cannot be read"),
        // That a guest was there at all is known from the end of its log alone.
        ("$hook log-end snapshot 101", "1 of 2 guests failed: 101"),
        // The end itself cannot be noted, so that other things may not have been, either.
        ("mkdir $run.ended", "cannot be read"),
    ] {
        let receiver = receiver();
        let node = Node::configured(&conf(&receiver));
        let ended = node.script(&[], &format!("set -e\n{all}{between}\n$hook job-end\n"));
        assert!(ended.status.success(), "{between}: {ended:?}");
        let told = told(&receiver);
        assert_eq!(told.len(), 1, "{between}");
        assert_eq!(told[0].0, "down", "{between}");
        assert!(told[0].1.contains(says), "{between}: {told:?}");
    }
}

#[test]
fn a_run_folder_that_is_full_hides_no_failed_guest() {
    if !testbed::is_root() {
        println!("skipped: a file system of its own needs root");
        return;
    }
    let receiver = receiver();
    let node = Node::configured(&conf(&receiver));
    std::fs::create_dir(node.path("run")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=64k tmpfs {} || {{ echo UNABLE; exit; }}\n\
         set -e\n$hook job-start\n$hook backup-start snapshot 100\n$hook backup-end snapshot 100\n\
         dd if=/dev/zero of=$state/filler bs=1k 2>/dev/null || true\n\
         $hook backup-abort snapshot 101\nrm $state/filler\n$hook job-end\n",
        node.path("run").display()
    );
    let unshare = ["unshare", "--mount", "--propagation", "private"];
    let ended = node.script(&unshare, &script);
    let said = text(&ended.stderr);
    if said.starts_with("unshare:") || text(&ended.stdout) == "UNABLE\n" {
        println!("skipped: no file system can be mounted here: {said}");
        return;
    }
    assert!(ended.status.success(), "{ended:?}");
    assert!(said.contains("backup-abort: unable to note it"), "{said}");
    let told = told(&receiver);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].0 == "down" && told[0].1.contains("some of it could not be noted"),
        "{told:?}"
    );
}

#[test]
fn a_job_whose_process_is_unknown_is_told_as_such() {
    if !testbed::is_root() {
        println!("skipped: a process without a parent needs root");
        return;
    }
    let receiver = receiver();
    let node = Node::configured(&conf(&receiver));
    // The first process of a namespace has no parent.
    let orphan = |phase: &str| {
        let output = Command::new("unshare")
            .args(["--pid", "--fork"])
            .arg(node.hook())
            .args(phase.split(' '))
            .env_clear()
            .env("BACKSTOP_ROOT", node.folder.path())
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert!(
            output.status.success() || said.starts_with("unshare:"),
            "{output:?}"
        );
        said
    };
    if orphan("job-end").starts_with("unshare:") {
        println!("skipped: no namespace of processes can be made here");
        return;
    }
    let first = told(&receiver);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].0, "down");
    assert!(
        first[0].1.contains("the process that calls is unknown"),
        "{first:?}"
    );
    // Nobody knows whose guest failed, so that it may be that of any job that runs.
    let call = "unshare --pid --fork $hook backup-abort snapshot 101";
    let ended = node.script(
        &[],
        &format!("set -e\n$hook job-start\n{call}\n$hook job-end\n"),
    );
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(told(&receiver)[1].0, "down");
}

#[test]
fn each_job_is_told_once_and_a_later_failure_corrects_it() {
    for (ends, expected) in [
        (&["job-end", "job-end"][..], &["up"][..]),
        (&["job-abort", "job-abort"], &["down"]),
        (&["job-abort", "job-end"], &["down"]),
        // Another hook has failed after ours.
        (&["job-end", "job-abort", "job-abort"], &["up", "down"]),
        // The same process may run another job.
        (&["job-end", "job-start", "job-end"], &["up", "up"]),
        // One whose start was not seen is another job nevertheless.
        (
            &["job-end", "backup-end snapshot 100", "job-end"],
            &["up", "down"],
        ),
    ] {
        let receiver = receiver();
        let node = Node::configured(&conf(&receiver));
        let calls = [&["job-start"], ends].concat();
        let ended = node.vzdump(&calls);
        assert!(
            ended.status.success() && ended.stderr.is_empty(),
            "{ended:?}"
        );
        let told: Vec<_> = told(&receiver)
            .into_iter()
            .map(|(status, _)| status)
            .collect();
        assert_eq!(told, expected, "{calls:?}");
    }
}

#[test]
fn whoever_could_not_be_told_is_told_at_the_next_chance() {
    let receiver = PushReceiver::start(|_| (404, String::new())).unwrap();
    let node = Node::configured(&conf(&receiver));
    let reached = self::receiver();
    let (refusing, taking) = (node.path("etc/backstop/pve-hook.conf"), node.path("taking"));
    node.write("taking", &conf(&reached), 0o600);
    let script = format!(
        "$hook job-start\n$hook backup-start snapshot 100\n$hook backup-end snapshot 100\n\
         $hook job-end\ncp {} {}\n$hook job-end\n",
        taking.display(),
        refusing.display()
    );
    assert!(node.script(&[], &script).status.success());
    assert_eq!(receiver.received().len(), 1);
    let told = told(&reached);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].0 == "up" && told[0].1.ends_with("OK, 1 guest"),
        "{told:?}"
    );
}

#[test]
fn a_system_without_room_for_a_thread_breaks_no_backup() {
    let receiver = receiver();
    let node = Node::configured(&conf(&receiver));
    // No thread can have so large a stack.
    let script = "export RUST_MIN_STACK=70368744177664\nset -e\n$hook job-start\n\
                  $hook backup-start snapshot 100\n$hook backup-end snapshot 100\n$hook job-end\n";
    let ended = node.script(&[], script);
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(told(&receiver)[0].0, "up", "{ended:?}");
}

#[test]
fn a_configuration_that_is_no_file_holds_nobody_up() {
    let node = Node::new();
    let fifo = node.path("etc/backstop/pve-hook.conf");
    std::fs::create_dir_all(fifo.parent().unwrap()).unwrap();
    let made = Command::new("mkfifo")
        .args(["-m", "600"])
        .arg(&fifo)
        .status();
    assert!(made.unwrap().success());
    let ended = node.vzdump(&["job-start", "job-end"]);
    assert!(ended.status.success(), "{ended:?}");
    assert!(text(&ended.stderr).contains("it is no file"), "{ended:?}");
}

/// The receiver's clock is the test's: a job that runs is fresh, and one that does not run is an error.
#[test]
fn a_missing_push_is_an_error_at_the_receiver() {
    const DAY: i64 = 86_400;
    let watch = Watch::new(TOKEN, DAY + 3600, 1_000_000);
    let telling = std::sync::Arc::clone(&watch);
    let receiver = PushReceiver::start(move |push| telling.take(push)).unwrap();
    let node = Node::configured(&conf(&receiver));
    assert!(!watch.state().0, "nobody has told it anything yet");

    assert!(node.vzdump(&GOOD_JOB).status.success());
    assert_eq!(watch.last_told(), Some(1_000_000));
    assert!(watch.state().0);
    watch.set_clock(1_000_000 + DAY);
    assert!(watch.state().0);
    // The next job never ran.
    watch.set_clock(1_000_000 + DAY + 3601);
    assert_eq!(
        watch.state(),
        (false, "No heartbeat in the time window".to_owned())
    );
    // It runs again.
    assert!(node.vzdump(&GOOD_JOB).status.success());
    assert_eq!(watch.last_told(), Some(1_000_000 + DAY + 3601));
    assert!(watch.state().0);
    // Fresh, but failed.
    assert!(node.vzdump(&["job-start", "job-abort"]).status.success());
    assert!(!watch.state().0);
}

#[test]
fn the_guard_says_what_is_missing_and_adds_it_once() {
    let node = Node::configured("url: https://status.example.org/api/push/x\n");
    node.write(
        "etc/pve/jobs.cfg",
        "vzdump: nightly\n\tschedule 02:00\n",
        0o640,
    );
    let missing = node.guard(&["--check"]);
    assert!(!missing.status.success());
    assert!(text(&missing.stdout).contains("/etc/pve/jobs.cfg: the hook is missing in 1 places"));
    let added = node.guard(&[]);
    assert!(added.status.success(), "{added:?}");
    assert!(text(&added.stdout).contains("was added"), "{added:?}");
    let jobs = std::fs::read_to_string(node.path("etc/pve/jobs.cfg")).unwrap();
    assert_eq!(
        jobs,
        "vzdump: nightly\n\tschedule 02:00\n\tscript /usr/local/bin/backstop-pve-hook\n"
    );
    for words in [&["--check"][..], &[]] {
        let again = node.guard(words);
        assert!(again.status.success());
        assert!(!text(&again.stdout).contains("added"), "{again:?}");
    }
    node.write(
        "etc/pve/jobs.cfg",
        "vzdump: nightly\n\tscript /root/own.pl\n",
        0o640,
    );
    let foreign = node.guard(&[]);
    // Who calls it can tell this from what could not be done.
    assert_eq!(foreign.status.code(), Some(2));
    assert!(text(&foreign.stderr).contains("/root/own.pl"));
    assert!(node.guard(&["--replace", "true"]).status.success());
}

#[test]
fn the_guard_fails_while_the_hook_could_tell_nobody() {
    let node = Node::new();
    std::fs::create_dir(node.path("etc")).unwrap();
    let without = node.guard(&[]);
    assert!(!without.status.success());
    assert!(text(&without.stderr).contains("there is no configuration"));
    // The jobs have it nevertheless, as its failure is none of theirs.
    let defaults = std::fs::read_to_string(node.path("etc/vzdump.conf")).unwrap();
    assert_eq!(defaults, "script: /usr/local/bin/backstop-pve-hook\n");
    let wrong = format!("url: https://x/{TOKEN}\n[offsite]\ntls-servername: a\n");
    node.write("etc/backstop/pve-hook.conf", &wrong, 0o600);
    let wrong = node.guard(&["--check"]);
    assert!(!wrong.status.success());
    let said = text(&wrong.stderr);
    assert!(
        said.contains("line 3: 'tls-servername' is no setting") && !said.contains(TOKEN),
        "{said}"
    );
    node.write(
        "etc/backstop/pve-hook.conf",
        "url: https://x/api/push/1\n",
        0o600,
    );
    assert!(node.guard(&["--check"]).status.success());
}

#[test]
fn one_file_that_cannot_be_used_keeps_the_guard_from_no_other() {
    let node = Node::configured("url: https://status.example.org/api/push/x\n");
    std::fs::create_dir_all(node.path("etc/pve/jobs.cfg")).unwrap();
    for words in [&["--check"][..], &[]] {
        let output = node.guard(words);
        assert_eq!(output.status.code(), Some(255));
        assert!(text(&output.stderr).contains("jobs.cfg"), "{output:?}");
    }
    let defaults = std::fs::read_to_string(node.path("etc/vzdump.conf")).unwrap();
    assert_eq!(defaults, "script: /usr/local/bin/backstop-pve-hook\n");
}

#[test]
fn the_guard_takes_the_hook_out_again() {
    let node = Node::new();
    let jobs = "vzdump: nightly\n\tschedule 02:00\n";
    node.write("etc/pve/jobs.cfg", jobs, 0o640);
    node.guard(&[]);
    let removed = node.guard(&["--remove", "true"]);
    assert!(removed.status.success(), "{removed:?}");
    assert!(text(&removed.stdout).contains("/etc/pve/jobs.cfg: the hook was removed in 1 places"));
    let now = std::fs::read_to_string(node.path("etc/pve/jobs.cfg")).unwrap();
    assert_eq!(now, jobs);
    let both = node.guard(&["--remove", "true", "--check", "true"]);
    assert!(!both.status.success());
}
