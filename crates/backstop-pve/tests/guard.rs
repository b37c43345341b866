//! The guard on real files below a folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use backstop_pve::guard::{Edited, Form, Guard, GuardError, Wanted};
use proptest::prelude::*;

const HOOK: &str = "/usr/local/bin/backstop-pve-hook";

const JOBS: &str = "\
vzdump: backup-1
\tschedule 02:00
\tenabled 1
\tall 1
\tstorage pbs

realmsync: ldap
\tschedule daily

vzdump: backup-2
\tschedule sun 01:00
\tscript /usr/local/bin/backstop-pve-hook
\tvmid 100,101
vzdump: backup-3
\tscript /root/own.pl
\tcomment # a comment, not a script /x
vzdump: backup-4
";

const CRON: &str = "\
# cluster wide vzdump cron schedule
# Automatically generated file - do not edit

PATH=\"/usr/sbin:/usr/bin:/sbin:/bin\"

0 2 * * *           root vzdump --all 1 --quiet 1
0 3 * * 6  root /usr/bin/vzdump 100 --script /usr/local/bin/backstop-pve-hook --mode stop
30 3 * * 6 root #vzdump 101
0 4 * * 6 root vzdump 102 -script=/root/own.pl --quiet 1
";

struct Node {
    folder: tempfile::TempDir,
    guard: Guard,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Self {
            guard: Guard {
                root: folder.path().to_owned(),
                script: HOOK.to_owned(),
                replace: false,
            },
            folder,
        };
        node.write("usr/local/bin/backstop-pve-hook", "#!/bin/sh\n");
        let hook = node.folder.path().join("usr/local/bin/backstop-pve-hook");
        std::fs::set_permissions(hook, std::fs::Permissions::from_mode(0o755)).unwrap();
        node.write("etc/pve/jobs.cfg", JOBS);
        node.write("etc/pve/vzdump.cron", CRON);
        node.write(
            "etc/vzdump.conf",
            "# vzdump default settings\n#script: FILENAME\nbwlimit: 1000",
        );
        node
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(path)).unwrap()
    }

    fn all(&self) -> [String; 3] {
        ["etc/pve/jobs.cfg", "etc/pve/vzdump.cron", "etc/vzdump.conf"].map(|path| self.read(path))
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path().join(folder)).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn the_hook_is_added_where_it_is_missing_and_nothing_else_changes() {
    let node = Node::new();
    let counts = |findings: &[backstop_pve::guard::Finding]| -> Vec<(usize, Vec<String>)> {
        findings
            .iter()
            .map(|f| (f.changes, f.foreign.clone()))
            .collect()
    };
    let own = || vec!["/root/own.pl".to_owned()];
    let expected = [(2, own()), (2, own()), (1, vec![])];
    let before = node.all();
    assert_eq!(counts(&node.guard.check().unwrap().findings), expected);
    assert_eq!(node.all(), before, "a check changes nothing");
    assert_eq!(counts(&node.guard.keep().unwrap().findings), expected);
    let [jobs, cron, defaults] = node.all();
    assert_eq!(
        jobs,
        JOBS.replace(
            "\tstorage pbs\n",
            &format!("\tstorage pbs\n\tscript {HOOK}\n")
        )
        .replace(
            "vzdump: backup-4\n",
            &format!("vzdump: backup-4\n\tscript {HOOK}\n")
        )
    );
    assert_eq!(
        cron,
        CRON.replace("vzdump --all", &format!("vzdump --script {HOOK} --all"))
            .replace("#vzdump 101", &format!("#vzdump --script {HOOK} 101"))
    );
    assert_eq!(
        defaults,
        format!("# vzdump default settings\n#script: FILENAME\nbwlimit: 1000\nscript: {HOOK}\n")
    );
    // A second time there is nothing to do.
    let inode = |path: &str| {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(node.folder.path().join(path))
            .unwrap()
            .ino()
    };
    let inodes = [inode("etc/pve/jobs.cfg"), inode("etc/vzdump.conf")];
    let findings = node.guard.keep().unwrap().findings;
    assert_eq!(counts(&findings), [(0, own()), (0, own()), (0, vec![])]);
    assert_eq!(
        [inode("etc/pve/jobs.cfg"), inode("etc/vzdump.conf")],
        inodes
    );
    assert_eq!(
        node.names("etc/pve"),
        ["jobs.cfg", "vzdump.cron"],
        "nothing is left behind"
    );
}

#[test]
fn other_scripts_are_replaced_only_when_that_is_asked_for() {
    let mut node = Node::new();
    node.guard.replace = true;
    node.guard.keep().unwrap();
    let [jobs, cron, _] = node.all();
    assert!(
        !jobs.contains("own.pl") && !cron.contains("own.pl"),
        "{jobs}{cron}"
    );
    assert!(jobs.contains(&format!(
        "vzdump: backup-3\n\tscript {HOOK}\n\tcomment # a comment"
    )));
    assert!(
        cron.contains(&format!("root vzdump --script {HOOK} 102 --quiet 1\n")),
        "{cron}"
    );
}

#[test]
fn a_cluster_without_quorum_is_left_alone_and_the_node_is_not() {
    let node = Node::new();
    let before = node.all();
    let pve = node.folder.path().join("etc/pve");
    std::fs::set_permissions(&pve, std::fs::Permissions::from_mode(0o555)).unwrap();
    let report = node.guard.keep().unwrap();
    let (said, now) = (format!("{:?}", report.errors), node.all());
    let [jobs, cron] = &report.errors[..] else {
        panic!("{said}");
    };
    for error in [jobs, cron] {
        assert!(matches!(error, GuardError::ReadOnly { .. }), "{said}");
        assert!(error.to_string().contains("quorum"), "{said}");
    }
    assert_eq!(now[..2], before[..2]);
    // What is the node's own is not the cluster's affair.
    assert!(now[2].ends_with(&format!("script: {HOOK}\n")), "{now:?}");
    assert_eq!(report.findings.len(), 1);
    assert!(node.guard.check().unwrap().errors.is_empty());
    std::fs::set_permissions(&pve, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn jobs_are_never_told_of_a_hook_that_is_not_there() {
    let node = Node::new();
    let before = node.all();
    let hook = node.folder.path().join("usr/local/bin/backstop-pve-hook");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(node.guard.keep(), Err(GuardError::NoHook(_))));
    std::fs::remove_file(&hook).unwrap();
    assert!(matches!(node.guard.keep(), Err(GuardError::NoHook(_))));
    assert_eq!(node.all(), before);
}

#[test]
fn a_node_without_jobs_gets_the_default_alone() {
    let node = Node::new();
    for path in ["etc/pve/jobs.cfg", "etc/pve/vzdump.cron", "etc/vzdump.conf"] {
        std::fs::remove_file(node.folder.path().join(path)).unwrap();
    }
    node.guard.keep().unwrap();
    assert_eq!(node.read("etc/vzdump.conf"), format!("script: {HOOK}\n"));
    assert!(node.names("etc/pve").is_empty());
}

#[test]
fn the_lock_of_the_cluster_is_taken_and_given_back() {
    let node = Node::new();
    std::fs::create_dir_all(node.folder.path().join("etc/pve/priv/lock")).unwrap();
    node.guard.keep().unwrap();
    assert!(node.names("etc/pve/priv/lock").is_empty());
    assert!(node.read("etc/pve/jobs.cfg").contains(HOOK));
}

#[test]
fn a_path_that_would_break_the_files_is_refused() {
    for script in ["relative", "/with space", "/new\nline", "/quote'"] {
        let mut node = Node::new();
        node.guard.script = script.to_owned();
        assert!(
            matches!(node.guard.keep(), Err(GuardError::Script(_))),
            "{script}"
        );
    }
}

#[test]
fn the_mode_of_a_file_is_kept() {
    let node = Node::new();
    let path = node.folder.path().join("etc/vzdump.conf");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    node.guard.keep().unwrap();
    assert_eq!(mode(&path), 0o600);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_calls_the_hook_itself_is_as_good_as_the_hook() {
    let mut node = Node::new();
    let own = "#!/bin/sh\nlogger \"$@\"\nexec /usr/local/bin/backstop pve-hook \"$@\"\n";
    node.write("root/own.pl", own);
    let own = node.folder.path().join("root/own.pl");
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755)).unwrap();
    // The hook by another path.
    let snippets = node.folder.path().join("var/lib/vz/snippets");
    std::fs::create_dir_all(&snippets).unwrap();
    let hook = "../../../../usr/local/bin/backstop-pve-hook";
    std::os::unix::fs::symlink(hook, snippets.join("backstop-pve-hook")).unwrap();
    node.write(
        "etc/vzdump.conf",
        "script: /var/lib/vz/snippets/backstop-pve-hook\n",
    );
    node.guard.replace = true;
    let findings = node.guard.keep().unwrap().findings;
    assert!(findings.iter().all(|f| f.foreign.is_empty()));
    let [jobs, cron, defaults] = node.all();
    assert!(jobs.contains("\tscript /root/own.pl\n"), "{jobs}");
    assert!(cron.contains("-script=/root/own.pl"), "{cron}");
    assert_eq!(defaults, "script: /var/lib/vz/snippets/backstop-pve-hook\n");
    // One that cannot be executed would fail its job.
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o644)).unwrap();
    node.guard.replace = false;
    let findings = node.guard.check().unwrap().findings;
    assert_eq!(findings[0].foreign, ["/root/own.pl"]);
}

#[test]
fn what_was_added_can_be_removed_and_nothing_else_changes() {
    let node = Node::new();
    let before = node.all();
    node.guard.keep().unwrap();
    let counts = |findings: Vec<backstop_pve::guard::Finding>| -> Vec<usize> {
        findings.iter().map(|f| f.changes).collect()
    };
    // Also where it was before.
    assert_eq!(counts(node.guard.remove().unwrap().findings), [3, 3, 1]);
    let without = |text: &String| {
        text.replace(&format!("\tscript {HOOK}\n"), "")
            .replace(&format!(" --script {HOOK}"), "")
    };
    let [jobs, cron, defaults] = node.all();
    assert_eq!([jobs, cron], [&before[0], &before[1]].map(without));
    assert_eq!(defaults, format!("{}\n", before[2]));
    assert_eq!(counts(node.guard.remove().unwrap().findings), [0, 0, 0]);
    // The hook is not needed for it.
    node.guard.keep().unwrap();
    let hook = node.folder.path().join("usr/local/bin/backstop-pve-hook");
    std::fs::remove_file(hook).unwrap();
    node.guard.remove().unwrap();
    assert!(node.all().iter().all(|text| !text.contains(HOOK)));
}

#[test]
fn of_a_default_that_is_set_twice_both_count() {
    let wanted = |replace| Wanted {
        script: HOOK,
        replace,
        is_as_good: &|_| false,
    };
    let text = format!("script: {HOOK}\nscript: /other\n");
    let left = Form::Defaults.edit(text.as_bytes(), &wanted(false));
    assert_eq!(left.text, text.as_bytes());
    assert_eq!(left.foreign, ["/other"]);
    let replaced = Form::Defaults.edit(text.as_bytes(), &wanted(true));
    assert_eq!(
        replaced.text,
        format!("script: {HOOK}\nscript: {HOOK}\n").as_bytes()
    );
}

#[test]
fn a_comment_within_a_job_does_not_end_it() {
    let node = Node::new();
    // As Proxmox VE reads it: comments and lines that make no sense are skipped, and an empty line ends a job.
    let jobs = format!(
        "vzdump: a\n\tschedule 02:00\n# nightly\n  # and more\n\t\nnonsense\n\tscript {HOOK}\n\n\
         vzdump: b\n# none yet\n\tall 1\n# the next one\n\n# alone\n\nvzdump: c\n# nothing else\n\n\
         vzdump: d\n\tall 1\n#\tscript /commented/out\n"
    );
    node.write("etc/pve/jobs.cfg", &jobs);
    let findings = node.guard.keep().unwrap().findings;
    assert_eq!((findings[0].changes, findings[0].foreign.len()), (3, 0));
    let [now, ..] = node.all();
    let script = format!("\tscript {HOOK}\n");
    assert_eq!(
        now,
        jobs.replace("\tall 1\n", &format!("\tall 1\n{script}"))
            .replace("vzdump: c\n", &format!("vzdump: c\n{script}"))
    );
    node.guard.remove().unwrap();
    assert_eq!(node.all()[0], jobs.replace(&script, ""));
}

#[test]
fn a_byte_that_is_no_text_keeps_the_guard_from_nothing() {
    let node = Node::new();
    let pve = node.folder.path().join("etc/pve");
    let jobs = b"vzdump: a\n\tcomment t\xe4glich\n\nvzdump: b\n\tscript /root/t\xe4glich.sh\n";
    std::fs::write(pve.join("jobs.cfg"), jobs).unwrap();
    std::fs::write(
        pve.join("vzdump.cron"),
        b"0 2 * * * root vzdump 1 --mailto \xc3\xa0\xa0 --script /\xa0\x85.sh -q\n",
    )
    .unwrap();
    let mut guard = node.guard.clone();
    let report = guard.keep().unwrap();
    assert!(report.errors.is_empty(), "{report:?}");
    let foreign = |number: usize| report.findings[number].foreign.clone();
    assert_eq!(foreign(0), ["/root/t\u{fffd}glich.sh"]);
    assert_eq!(foreign(1), ["/\u{fffd}\u{fffd}.sh"]);
    let read = |name: &str| std::fs::read(pve.join(name)).unwrap();
    let expected = [
        &b"vzdump: a\n\tcomment t\xe4glich\n\tscript "[..],
        HOOK.as_bytes(),
        b"\n\nvzdump: b\n\tscript /root/t\xe4glich.sh\n",
    ];
    assert_eq!(read("jobs.cfg"), expected.concat());
    guard.replace = true;
    guard.keep().unwrap();
    let expected = [
        &b"0 2 * * * root vzdump --script "[..],
        HOOK.as_bytes(),
        b" 1 --mailto \xc3\xa0\xa0 -q\n",
    ];
    assert_eq!(read("vzdump.cron"), expected.concat());
}

#[test]
fn a_file_that_cannot_be_read_keeps_the_guard_from_no_other() {
    let node = Node::new();
    let jobs = node.folder.path().join("etc/pve/jobs.cfg");
    std::fs::remove_file(&jobs).unwrap();
    std::fs::create_dir(&jobs).unwrap();
    for report in [node.guard.check().unwrap(), node.guard.keep().unwrap()] {
        assert_eq!(report.errors.len(), 1);
        let said = report.errors[0].to_string();
        assert!(said.contains("unable to read") && said.contains("jobs.cfg"));
        assert_eq!(report.findings.len(), 2);
    }
    assert!(node.read("etc/pve/vzdump.cron").contains(HOOK));
    assert!(node.read("etc/vzdump.conf").contains(HOOK));
}

#[test]
fn a_link_stays_a_link() {
    use std::os::unix::fs::symlink;
    for target in ["../srv/conf/first", "/srv/conf/first"] {
        let node = Node::new();
        let path = |path: &str| node.folder.path().join(path);
        node.write("srv/conf/second", "bwlimit: 1000\n");
        symlink("second", path("srv/conf/first")).unwrap();
        std::fs::remove_file(path("etc/vzdump.conf")).unwrap();
        symlink(target, path("etc/vzdump.conf")).unwrap();
        let report = node.guard.keep().unwrap();
        assert!(report.errors.is_empty(), "{report:?}");
        assert_eq!(
            std::fs::read_link(path("etc/vzdump.conf")).unwrap(),
            Path::new(target)
        );
        assert_eq!(
            node.read("srv/conf/second"),
            format!("bwlimit: 1000\nscript: {HOOK}\n")
        );
        assert_eq!(node.names("etc"), ["pve", "vzdump.conf"]);
        // One that leads to itself is no reason to leave the others.
        std::fs::remove_file(path("srv/conf/second")).unwrap();
        symlink("first", path("srv/conf/second")).unwrap();
        assert_eq!(node.guard.check().unwrap().errors.len(), 1);
    }
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("vzdump: a".to_owned()),
        Just("other: b".to_owned()),
        Just("\tschedule x".to_owned()),
        Just("\tscript /other".to_owned()),
        Just(format!("  script {HOOK}")),
        Just("script: /other".to_owned()),
        Just(format!("script: {HOOK}")),
        Just("0 1 * * * root vzdump 1".to_owned()),
        Just("@daily root vzdump --script /o".to_owned()),
        Just(String::new()),
        Just("# script /comment".to_owned()),
        Just("\t".to_owned()),
        "[ -~]{0,30}",
    ]
}

proptest! {
    /// Whatever a file holds: what is added makes nothing missing any more, and all that was there is there still, in its order.
    #[test]
    fn an_edit_only_adds_and_is_done_once(lines in proptest::collection::vec(line(), 0..20), ends: bool) {
        let mut text = lines.join("\n");
        if ends {
            text.push('\n');
        }
        let mut text = text.into_bytes();
        // What is no UTF-8 is as good as a letter.
        for byte in &mut text {
            match byte {
                b'~' => *byte = 0xe9,
                b'^' => *byte = 0xa0,
                _ => {}
            }
        }
        let holds = |text: &[u8]| text.windows(HOOK.len()).any(|part| part == HOOK.as_bytes());
        let edit = |form: Form, text: &[u8], replace: bool| -> Edited {
            form.edit(text, &Wanted { script: HOOK, replace, is_as_good: &|_| false })
        };
        for form in [Form::Defaults, Form::Jobs, Form::Cron] {
            let once = edit(form, &text, false);
            let again = edit(form, &once.text, false);
            prop_assert_eq!(again.changes, 0);
            prop_assert_eq!(&again.text, &once.text);
            if once.changes == 0 {
                prop_assert_eq!(&once.text, &text);
            }
            let mut rest = once.text.iter();
            prop_assert!(text.iter().all(|byte| rest.any(|other| other == byte)));
            let replaced = edit(form, &text, true);
            prop_assert_eq!(edit(form, &replaced.text, true).changes, 0);
            // What was not there before goes without a trace.
            if !holds(&text) {
                let removed = form.without(&once.text, HOOK);
                prop_assert_eq!(removed.changes, once.changes);
                prop_assert_eq!(removed.text.trim_ascii_end(), text.trim_ascii_end());
            }
            let gone = form.without(&text, HOOK);
            prop_assert_eq!(form.without(&gone.text, HOOK).changes, 0);
        }
    }
}
