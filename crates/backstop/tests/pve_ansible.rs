//! The Ansible role for Proxmox VE nodes, run for real: below a folder, and on two nodes at once with the paths that it has there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use testbed::program::installed;
use testbed::push_receiver::PushReceiver;

const TOKEN: &str = "T0kenT0ken";
const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");
const HOOK: &str = "/usr/local/bin/backstop-pve-hook";
const UNITS: [&str; 3] = [
    "backstop-pve-guard.service",
    "backstop-pve-guard.path",
    "backstop-pve-guard.timer",
];
const JOBS: &str = "vzdump: a\n\tall 1\n\nvzdump: b\n\tvmid 100\n";
const JOBS_WITH_HOOK: &str = "vzdump: a\n\tall 1\n\tscript /usr/local/bin/backstop-pve-hook\n\n\
     vzdump: b\n\tvmid 100\n\tscript /usr/local/bin/backstop-pve-hook\n";

fn receiver() -> PushReceiver {
    PushReceiver::start(|_| (200, r#"{"ok":true}"#.to_owned())).unwrap()
}

fn settings(receiver: &PushReceiver) -> Value {
    json!({"url": receiver.url(&format!("/api/push/{TOKEN}")), "verify-tls": true, "timeout": 5})
}

/// A folder with what `ansible-playbook` is given, and how it is started.
struct Playbook {
    program: PathBuf,
    work: tempfile::TempDir,
}

impl Playbook {
    /// With these lines of the inventory and these variables; `None` where there is no Ansible.
    fn new(work: tempfile::TempDir, inventory: &str, variables: &Value) -> Option<Self> {
        let program = installed("ansible-playbook")?;
        std::fs::write(work.path().join("hosts"), inventory).unwrap();
        std::fs::write(work.path().join("variables.json"), variables.to_string()).unwrap();
        Some(Self { program, work })
    }

    /// Runs the playbook that is shipped, through `wrapper`, and tells for each host how much was changed. It must not fail.
    fn run(&self, wrapper: &[String], words: &[&str]) -> Vec<(String, u32)> {
        let shipped = format!("{DEPLOY}/ansible/pve-hook.yml");
        let (is_good, said) = self.play(Path::new(&shipped), wrapper, words);
        assert!(is_good, "{said}");
        // localhost : ok=12 changed=3 unreachable=0 …
        let recap = said.split("PLAY RECAP").nth(1).expect("a recap");
        let changed = |line: &str| -> Option<(String, u32)> {
            let (host, counts) = line.split_once(':')?;
            let mut counts = counts.split_whitespace();
            let count = counts.find_map(|count| count.strip_prefix("changed="))?;
            Some((host.trim().to_owned(), count.parse().ok()?))
        };
        let found: Vec<_> = recap.lines().filter_map(changed).collect();
        println!("{words:?}: {found:?}");
        found
    }

    /// Runs a playbook; says whether it went well, and what it said.
    fn play(&self, playbook: &Path, wrapper: &[String], words: &[&str]) -> (bool, String) {
        let work = self.work.path();
        let mut command: Vec<String> = wrapper.to_vec();
        command.push(self.program.display().to_string());
        let output = Command::new(&command[0])
            .args(&command[1..])
            .arg("-i")
            .arg(work.join("hosts"))
            .arg("-e")
            .arg(format!("@{}", work.join("variables.json").display()))
            .arg(playbook)
            .args(words)
            .env("ANSIBLE_ROLES_PATH", format!("{DEPLOY}/ansible/roles"))
            .env("ANSIBLE_LOCAL_TEMP", work.join("tmp"))
            .env("ANSIBLE_REMOTE_TEMP", work.join("tmp"))
            .env("ANSIBLE_NOCOLOR", "1")
            .env("ANSIBLE_PIPELINING", "1")
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", work)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = said + &String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains(TOKEN), "{said}");
        (output.status.success(), said)
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o777
}

/// What has to be on a node once the role has run there.
fn assert_is_installed(root: &Path) {
    let path = |path: &str| root.join(path.trim_start_matches('/'));
    assert_eq!(mode(&path("etc/backstop/pve-hook.conf")), 0o600);
    assert_eq!(mode(&path("usr/local/bin/backstop")), 0o755);
    for unit in UNITS {
        let unit_file = path("etc/systemd/system").join(unit);
        let installed = std::fs::read_to_string(unit_file).unwrap();
        let shipped = std::fs::read_to_string(format!("{DEPLOY}/pve/{unit}")).unwrap();
        let plain = installed.replace(&format!(" --script {HOOK}"), "");
        assert_eq!(plain, shipped);
    }
    for link in [
        "pve-cluster.service.wants/backstop-pve-guard.path",
        "timers.target.wants/backstop-pve-guard.timer",
    ] {
        let target = std::fs::read_link(path("etc/systemd/system").join(link)).unwrap();
        let (folder, unit) = link.split_once('/').unwrap();
        assert_eq!(target, Path::new("/etc/systemd/system").join(unit));
        // The role puts the link where systemd would.
        let kind = unit.rsplit('.').next().unwrap();
        let unit = std::fs::read_to_string(format!("{DEPLOY}/pve/backstop-pve-guard.{kind}"));
        let wanted = format!("WantedBy={}\n", folder.trim_end_matches(".wants"));
        assert!(unit.unwrap().contains(&wanted), "{link}");
    }
    let defaults = std::fs::read_to_string(path("etc/vzdump.conf")).unwrap();
    assert!(
        defaults.ends_with(&format!("script: {HOOK}\n")),
        "{defaults}"
    );
}

#[test]
fn the_role_installs_everything_and_a_second_run_changes_nothing() {
    let receiver = receiver();
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("node");
    std::fs::create_dir_all(root.join("etc/pve")).unwrap();
    std::fs::write(root.join("etc/pve/jobs.cfg"), JOBS).unwrap();
    std::fs::write(root.join("etc/vzdump.conf"), "bwlimit: 5\n").unwrap();
    let own = std::fs::metadata(work.path()).unwrap();
    let variables = json!({
        "backstop_root": root,
        "backstop_owner": own.uid().to_string(),
        "backstop_group": own.gid().to_string(),
        "backstop_binary": env!("CARGO_BIN_EXE_backstop"),
        "backstop_pve_hook_settings": settings(&receiver),
        "backstop_pve_hook_storages": {"offsite": {"receiver": "healthchecks"}},
        "ansible_become": false,
    });
    let inventory = "[pve]\nlocalhost ansible_connection=local\n";
    let Some(playbook) = Playbook::new(work, inventory, &variables) else {
        return;
    };
    let first = playbook.run(&[], &[]);
    assert!(first[0].1 > 0, "{first:?}");
    assert_is_installed(&root);
    let jobs = std::fs::read_to_string(root.join("etc/pve/jobs.cfg")).unwrap();
    assert_eq!(jobs, JOBS_WITH_HOOK);
    assert_eq!(playbook.run(&[], &[]), [("localhost".to_owned(), 0)]);
    // A script of somebody else is said, and no reason to stop.
    let foreign = "vzdump: a\n\tscript /root/own.pl\n\nvzdump: b\n\tall 1\n";
    std::fs::write(root.join("etc/pve/jobs.cfg"), foreign).unwrap();
    let shipped = format!("{DEPLOY}/ansible/pve-hook.yml");
    let (is_good, said) = playbook.play(Path::new(&shipped), &[], &[]);
    assert!(is_good && said.contains("/root/own.pl"), "{said}");
    let jobs = std::fs::read_to_string(root.join("etc/pve/jobs.cfg")).unwrap();
    assert_eq!(jobs, format!("{foreign}\tscript {HOOK}\n"));
    // What the guard cannot do is.
    std::fs::remove_file(root.join("etc/pve/jobs.cfg")).unwrap();
    std::fs::create_dir(root.join("etc/pve/jobs.cfg")).unwrap();
    let (is_good, said) = playbook.play(Path::new(&shipped), &[], &[]);
    assert!(!is_good && said.contains("unable to read"), "{said}");
    // What it has installed works.
    for phase in ["job-start", "job-end"] {
        let called = Command::new(root.join("usr/local/bin/backstop-pve-hook"))
            .arg(phase)
            .env_clear()
            .env("BACKSTOP_ROOT", &root)
            .output()
            .unwrap();
        assert!(called.status.success(), "{called:?}");
    }
    assert_eq!(receiver.received()[0].parameter("status").unwrap(), "up");
}

/// A cluster of two nodes on this machine, in a mount namespace of its own: the machine itself with folders laid over those that are
/// written to, and a second root file system. They share `/etc/pve`, as nodes do. On neither systemd runs.
struct Cluster {
    holder: Child,
    second: PathBuf,
}

/// `$1` is a folder for what is written. Ends with its standard input.
const MAKE: &str = r#"
set -e
over() { mkdir -p "$3-upper" "$3-work" "$2"; mount -t overlay overlay -o "lowerdir=$1,upperdir=$3-upper,workdir=$3-work" "$2"; }
second="$1/second"
mkdir -p "$second"
over /etc "$second/etc" "$1/second-etc" || { echo UNABLE; exit; }
over /usr "$second/usr" "$1/second-usr"
for folder in bin sbin lib lib32 lib64 libx32; do
    if [ -L /$folder ]; then cp -P /$folder "$second/"
    elif [ -d /$folder ]; then mkdir "$second/$folder"; mount --bind -o ro /$folder "$second/$folder"; fi
done
for folder in root run tmp var proc dev; do mkdir "$second/$folder"; done
mount --rbind /proc "$second/proc"
mount --rbind /dev "$second/dev"
over /etc /etc "$1/first-etc"
over /usr/local /usr/local "$1/first-usr-local"
mount -t tmpfs tmpfs /run
for root in "" "$second"; do
    rm -rf "$root/etc/backstop" "$root/etc/vzdump.conf" "$root/etc/pve" "$root"/etc/systemd/system/backstop-* \
        "$root"/etc/systemd/system/*/backstop-* "$root"/usr/local/bin/backstop*
    mkdir -p "$root/etc/pve"
    mount --bind "$1/pve" "$root/etc/pve"
done
echo READY
read -r _ || true
"#;

impl Cluster {
    /// `None`, and a line that says so, where it cannot be made.
    fn make(work: &Path) -> Option<Self> {
        if !testbed::is_root() {
            println!("skipped: a second root file system needs root");
            return None;
        }
        std::fs::create_dir(work.join("pve")).unwrap();
        std::fs::create_dir_all(work.join("pve/priv/lock")).unwrap();
        std::fs::write(work.join("pve/jobs.cfg"), JOBS).unwrap();
        let holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .args(["sh", "-c", MAKE, "cluster"])
            .arg(work)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut cluster = Self {
            second: work.join("second"),
            holder,
        };
        let mut line = String::new();
        let mut said = BufReader::new(cluster.holder.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        if line != "READY\n" {
            let mut complaint = String::new();
            let stderr = cluster.holder.stderr.as_mut().unwrap();
            stderr.read_to_string(&mut complaint).unwrap();
            let is_refused = line == "UNABLE\n" || complaint.starts_with("unshare:");
            assert!(is_refused, "{line}{complaint}");
            println!("skipped: no folder can be laid over another here: {complaint}");
            return None;
        }
        Some(cluster)
    }

    /// What enters the namespace.
    fn enter(&self) -> Vec<String> {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.holder.id());
        ["nsenter", &namespace].map(str::to_owned).to_vec()
    }

    /// Runs a program on the second node, which must not fail; tells what it said.
    fn on_second(&self, words: &[&str]) -> String {
        let entering = self.enter();
        let output = Command::new(&entering[0])
            .args(&entering[1..])
            .arg("chroot")
            .arg(&self.second)
            .args(words)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = said + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        said
    }

    /// The root folders of both, as this process sees them.
    fn roots(&self) -> [PathBuf; 2] {
        let first = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let second = first.join(self.second.strip_prefix("/").unwrap());
        [first, second]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // Its mounts go with it.
        let _ = self.holder.wait();
    }
}

#[test]
fn every_node_of_a_group_is_set_up_for_real_and_can_be_cleared() {
    // This comes with its collections, of which one has the connection to a chroot.
    if installed("ansible-community").is_none() {
        return;
    }
    let receiver = receiver();
    let work = tempfile::tempdir().unwrap();
    std::fs::set_permissions(work.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let Some(cluster) = Cluster::make(work.path()) else {
        return;
    };
    let inventory = format!(
        "[pve]\nlocalhost ansible_connection=local\n\
         second ansible_connection=community.general.chroot ansible_host={} ansible_remote_tmp=/tmp\n\
         [pve:vars]\nansible_user=root\nansible_python_interpreter=/usr/bin/python3\n",
        cluster.second.display()
    );
    let pve = work.path().join("pve");
    let variables = json!({
        "backstop_binary": env!("CARGO_BIN_EXE_backstop"),
        "backstop_pve_hook_settings": settings(&receiver),
    });
    let Some(playbook) = Playbook::new(work, &inventory, &variables) else {
        return;
    };
    let run = |words: &[&str]| {
        let found = playbook.run(&cluster.enter(), words);
        let hosts: Vec<&str> = found.iter().map(|(host, _)| host.as_str()).collect();
        assert_eq!(hosts, ["localhost", "second"]);
        [found[0].1, found[1].1]
    };
    let jobs = || std::fs::read_to_string(pve.join("jobs.cfg")).unwrap();
    let roots = cluster.roots();

    // A dry run says what would be done, and does nothing.
    let dry = run(&["--check", "--diff"]);
    assert!(dry.iter().all(|changed| *changed > 0), "{dry:?}");
    assert_eq!(jobs(), JOBS);
    for root in &roots {
        for path in ["etc/backstop", "etc/vzdump.conf", "usr/local/bin/backstop"] {
            assert!(!root.join(path).exists(), "{path}");
        }
    }

    // One node after the other is refused: a job would be told of a hook that the other one does not have.
    let serial = playbook.work.path().join("serial.yml");
    let text = "- hosts: pve\n  serial: 1\n  gather_facts: false\n  roles: [backstop_pve_hook]\n";
    std::fs::write(&serial, text).unwrap();
    let (is_good, said) = playbook.play(&serial, &cluster.enter(), &["--check"]);
    assert!(
        !is_good && said.contains("hook that some nodes do not have"),
        "{said}"
    );
    assert_eq!(jobs(), JOBS);

    let first = run(&["--diff"]);
    assert!(first.iter().all(|changed| *changed > 0), "{first:?}");
    roots.iter().for_each(|root| assert_is_installed(root));
    assert_eq!(jobs(), JOBS_WITH_HOOK);
    assert_eq!(run(&[]), [0, 0]);
    assert_eq!(run(&["--check", "--diff"]), [0, 0]);

    // What it has installed works, from the paths that it names.
    cluster.on_second(&[
        "sh",
        "-c",
        "for phase in job-start job-end; do env -i /usr/local/bin/backstop-pve-hook $phase; done",
    ]);
    assert_eq!(receiver.received()[0].parameter("status").unwrap(), "up");
    if installed("systemd-analyze").is_some() {
        let units = UNITS.map(|unit| format!("/etc/systemd/system/{unit}"));
        let mut verify = vec!["systemd-analyze", "verify", "--man=no"];
        verify.extend(units.iter().map(String::as_str));
        assert_eq!(cluster.on_second(&verify), "");
    }

    let absent = ["-e", "backstop_pve_hook_state=absent"];
    let cleared = run(&absent);
    assert!(cleared.iter().all(|changed| *changed > 0), "{cleared:?}");
    assert_eq!(jobs(), JOBS);
    for root in &roots {
        let left = |folder: &str| -> Vec<String> {
            let entries = std::fs::read_dir(root.join(folder)).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name.contains("backstop")).collect()
        };
        assert_eq!(left("usr/local/bin"), ["backstop"]);
        assert_eq!(left("etc/systemd/system"), [""; 0]);
        assert!(!root.join("etc/backstop/pve-hook.conf").exists());
        let defaults = std::fs::read_to_string(root.join("etc/vzdump.conf")).unwrap();
        assert_eq!(defaults, "");
    }
}
