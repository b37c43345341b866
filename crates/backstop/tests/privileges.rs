//! A server that is started as root: it becomes the service user, and system users log in with PAM.
//!
//! Needs root. Everything happens in mount namespaces with an `/etc` of their own, so that the accounts, the PAM rules and the
//! configuration of this machine are never touched.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::api::Api;
use testbed::server::ServerProcess;

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");
/// `Hello world!`, from the specification of this form of hash.
const HASH: &str = "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1";
const PASSWORD: &str = "Hello world!";
const SERVICE_USER: u32 = 34;
const RULES: &str = "\
auth required pam_exec.so quiet /etc/note-remote-host
auth required pam_unix.so
account required pam_unix.so
password required pam_unix.so sha512
";

/// A machine of its own: `/etc`, `/var/lib`, `/var/log`, `/run` and `/mnt` are folders of this directory.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    /// `None` (and a line that says why) where there cannot be one.
    fn new() -> Option<Self> {
        if !testbed::is_root() {
            println!("skipped: not root (PAM, and becoming another user)");
            return None;
        }
        let mut probe = std::process::Command::new("unshare");
        let probed = probe
            .args(["--mount", "--propagation", "private", "true"])
            .output();
        if !probed.is_ok_and(|probed| probed.status.success()) {
            println!("skipped: no mount namespaces here (unshare --mount)");
            return None;
        }
        let modules = ["/lib", "/lib64", "/usr/lib"]
            .iter()
            .flat_map(|lib| {
                [
                    PathBuf::from(lib),
                    Path::new(lib).join(format!("{}-linux-gnu", std::env::consts::ARCH)),
                ]
            })
            .map(|lib| lib.join("security"))
            .find(|folder| {
                ["pam_unix.so", "pam_exec.so"]
                    .iter()
                    .all(|name| folder.join(name).exists())
            });
        if modules.is_none() {
            println!("skipped: no PAM modules (Debian: libpam-modules)");
            return None;
        }
        let dir = testbed::scratch::directory().unwrap();
        let machine = Self { dir };
        fs::set_permissions(machine.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["etc/pam.d", "var-lib", "var-log", "run", "mnt"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        machine.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nbackup:x:34:34::/var/backups:/bin/sh\nalice:x:1001:1001::/:/bin/sh\nbob:x:1002:1002::/:/bin/sh\nlocked:x:1003:1003::/:/bin/sh\nexpired:x:1004:1004::/:/bin/sh\nold:x:1005:1005::/:/bin/sh\n", 0o644);
        machine.write(
            "etc/group",
            "root:x:0:\nbackup:x:34:\ntape:x:26:backup\n",
            0o644,
        );
        let shadow: String = [
            ("root", HASH.to_owned(), "20000:0:99999:7:::"),
            ("alice", HASH.to_owned(), "20000:0:99999:7:::"),
            ("bob", HASH.to_owned(), "20000:0:99999:7:::"),
            ("locked", format!("!{HASH}"), "20000:0:99999:7:::"),
            ("expired", HASH.to_owned(), "20000:0:99999:7::1:"),
            ("old", HASH.to_owned(), "0:0:99999:7:::"),
        ]
        .iter()
        .map(|(user, hash, rest)| format!("{user}:{hash}:{rest}\n"))
        .collect();
        machine.write("etc/shadow", &shadow, 0o600);
        machine.write(
            "etc/nsswitch.conf",
            "passwd: files\ngroup: files\nshadow: files\n",
            0o644,
        );
        machine.write("etc/pam.d/proxmox-backup-auth", RULES, 0o644);
        machine.write("etc/pam.d/other", "auth required pam_deny.so\naccount required pam_deny.so\npassword required pam_deny.so\n", 0o644);
        machine.write(
            "etc/note-remote-host",
            "#!/bin/sh\necho \"$PAM_SERVICE $PAM_USER $PAM_RHOST\" >> /etc/remote-hosts\n",
            0o755,
        );
        let script = format!(
            "#!/bin/sh\nset -e\nif [ -z \"$IN_MACHINE\" ]; then IN_MACHINE=1 exec unshare --mount --propagation private \"$0\" \"$@\"; fi\n\
             for dir in etc run mnt; do mount --bind {0}/$dir /$dir; done\n\
             mount --bind {0}/var-lib /var/lib\nmount --bind {0}/var-log /var/log\n\
             [ ! -e {0}/before ] || . {0}/before\n\
             exec {BINARY} \"$@\"\n",
            machine.path("").display()
        );
        machine.write("backstop", &script, 0o755);
        Some(machine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A server on the stock paths of this machine.
    fn start(&self) -> ServerProcess {
        let listen = ([127, 0, 0, 1], 0).into();
        let mut server =
            ServerProcess::start(&self.path("backstop"), Path::new("/"), listen).unwrap();
        server.password = self
            .read("etc/proxmox-backup/initial-password")
            .trim()
            .to_owned();
        server
    }
}

/// The numbers of the user that a process runs as: real, effective, saved, file system; and its groups.
fn identity(pid: u32) -> (Vec<u32>, Vec<u32>) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let numbers = |key: &str| -> Vec<u32> {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap();
        line.split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect()
    };
    (numbers("Uid:"), numbers("Groups:"))
}

fn children(pid: u32) -> Vec<u32> {
    // Those of all threads: any may have started it.
    fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .flat_map(|task| {
            let children =
                fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
            children
                .split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect::<Vec<u32>>()
        })
        .collect()
}

#[test]
fn a_server_started_as_root_runs_as_the_service_user_and_does_what_only_root_can_with_its_helper() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let mut server = machine.start();
    let (user, groups) = identity(server.pid());
    assert_eq!(user, [SERVICE_USER; 4]);
    assert_eq!(groups, [26, 34]);
    let helpers = children(server.pid());
    assert_eq!(helpers.len(), 1);
    assert_eq!(identity(helpers[0]).0, [0; 4]);
    for folder in [
        "etc/proxmox-backup",
        "var-lib/proxmox-backup",
        "var-log/proxmox-backup/tasks",
        "run/proxmox-backup/locks",
    ] {
        assert_eq!(
            fs::metadata(machine.path(folder)).unwrap().uid(),
            SERVICE_USER,
            "{folder}"
        );
    }
    assert_eq!(
        fs::metadata(machine.path("etc/proxmox-backup"))
            .unwrap()
            .mode()
            & 0o7777,
        0o700
    );

    // A datastore in a place of root's, and what root's tools write.
    server
        .ok(
            "manager",
            &["datastore", "create", "store1", "/mnt/deep/store1"],
        )
        .unwrap();
    assert_eq!(fs::metadata(machine.path("mnt/deep")).unwrap().uid(), 0);
    assert_eq!(
        fs::metadata(machine.path("mnt/deep/store1")).unwrap().uid(),
        SERVICE_USER
    );
    server
        .ok(
            "manager",
            &["user", "create", "web@pbs", "--password", "a-long-password"],
        )
        .unwrap();
    server
        .ok(
            "manager",
            &[
                "acl",
                "update",
                "/datastore/store1",
                "DatastoreBackup",
                "--auth-id",
                "web@pbs",
            ],
        )
        .unwrap();
    assert_eq!(
        fs::metadata(machine.path("etc/proxmox-backup/shadow.json"))
            .unwrap()
            .uid(),
        SERVICE_USER
    );
    let source = machine.path("mnt/source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    let mut command = server.command("client", "store1");
    let output = command
        .args(["backup", "root.pxar:/mnt/source", "--backup-id", "x"])
        .env(
            "PBS_REPOSITORY",
            format!("web@pbs@{}:store1", server.address),
        )
        .env("PBS_PASSWORD", "a-long-password")
        .output()
        .unwrap();
    testbed::server::succeeded(&output).unwrap();
    let group = fs::metadata(machine.path("mnt/deep/store1/host/x")).unwrap();
    assert_eq!(group.uid(), SERVICE_USER);

    // What root's tools change is in the audit log, which stays the service user's.
    let audit = "var-log/proxmox-backup/api/audit.log";
    let lines = machine.read(audit);
    let line = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|line| line["event"] == "command" && line["parameters"]["userid"] == "web@pbs")
        .unwrap();
    assert_eq!(
        (&line["user"], &line["uid"]),
        (&json!("root@pam"), &json!(0))
    );
    assert!(!lines.contains("a-long-password"), "{lines}");
    assert_eq!(
        fs::metadata(machine.path(audit)).unwrap().uid(),
        SERVICE_USER
    );

    // Where root may not make anything, that is said.
    let refused = server
        .run("manager", &["datastore", "create", "store2", "/etc/store2"])
        .unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(said.contains("a place of the operating system"), "{said}");
    assert!(!machine.path("etc/store2").exists());

    // The helper ends with the server, even when that is killed.
    server.kill().unwrap();
    let begin = Instant::now();
    while Path::new(&format!("/proc/{}/exe", helpers[0])).exists() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "the helper outlives the server"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_datastore_from_a_time_when_the_server_was_root_is_named_with_the_command_that_heals_it() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let mut server = machine.start();
    for store in ["store1", "store2"] {
        let path = format!("/mnt/{store}");
        server
            .ok("manager", &["datastore", "create", store, &path])
            .unwrap();
    }
    server.kill().unwrap();
    // One of both has a group that root wrote.
    fs::create_dir_all(machine.path("mnt/store2/vm/100")).unwrap();
    let mut server = machine.start();
    let said = [
        "store2",
        "/mnt/store2/vm belongs to root",
        "chown -R 34:34 /mnt/store2",
    ];
    assert_eq!(server.wait_for_log(&said, 1).unwrap(), 1);
    server.stop().unwrap();
}

#[test]
fn what_a_stock_server_keeps_for_root_is_readable_after_the_drop() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let etc = machine.path("etc/proxmox-backup");
    testbed::stock_root::lay_out("4.2.3", &machine.path("stock")).unwrap();
    fs::rename(machine.path("stock/etc/proxmox-backup"), &etc).unwrap();
    // As a stock server leaves it: the directory is the service user's, files are root's.
    std::os::unix::fs::chown(&etc, Some(SERVICE_USER), Some(SERVICE_USER)).unwrap();
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o700)).unwrap();
    for name in ["ldap_passwords.json", "tfa.json"] {
        machine.write(&format!("etc/proxmox-backup/{name}"), "{}", 0o600);
    }
    for name in ["shadow.json", "tfa.json", "authkey.key"] {
        fs::set_permissions(etc.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    for name in ["user.cfg", "proxy.key"] {
        std::os::unix::fs::chown(etc.join(name), Some(0), Some(SERVICE_USER)).unwrap();
        fs::set_permissions(etc.join(name), fs::Permissions::from_mode(0o640)).unwrap();
    }
    let mut server = machine.start();
    assert_eq!(identity(server.pid()).0, [SERVICE_USER; 4]);
    let api = Api::log_in(&server, "fixture@pbs", "Fixture-Pw-42").unwrap();
    api.get("version").unwrap();
    for (name, mode) in [
        ("shadow.json", 0o600),
        ("tfa.json", 0o600),
        ("ldap_passwords.json", 0o600),
        ("authkey.key", 0o600),
        ("user.cfg", 0o640),
        ("proxy.key", 0o640),
    ] {
        let found = fs::metadata(etc.join(name)).unwrap();
        assert_eq!(
            (found.uid(), found.mode() & 0o7777),
            (SERVICE_USER, mode),
            "{name}"
        );
    }
    server.stop().unwrap();
}

fn log_in(server: &ServerProcess, user: &str, password: &str) -> Result<Api, String> {
    Api::log_in(server, user, password).map_err(|err| format!("{err:#}"))
}

/// The lines of the log of log-ins.
fn auth_log(machine: &Machine, server: &mut ServerProcess) -> String {
    // The last lines are in the file when the server has ended.
    server.stop().unwrap();
    machine.read("var-log/proxmox-backup/api/auth.log")
}

#[test]
fn system_users_log_in_with_pam_and_those_whose_account_is_not_in_order_do_not() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let mut server = machine.start();
    for user in ["alice", "locked", "expired", "old", "stranger"] {
        server
            .ok("manager", &["user", "create", &format!("{user}@pam")])
            .unwrap();
    }
    for user in ["root@pam", "alice@pam"] {
        log_in(&server, user, PASSWORD).unwrap();
    }
    let hosts = machine.read("etc/remote-hosts");
    assert!(
        hosts.contains("proxmox-backup-auth root 127.0.0.1\n"),
        "{hosts}"
    );
    assert!(
        hosts.contains("proxmox-backup-auth alice 127.0.0.1\n"),
        "{hosts}"
    );
    let refused = [
        ("root@pam", "wrong-password"),
        ("alice@pam", "wrong-password"),
        ("locked@pam", PASSWORD),
        ("expired@pam", PASSWORD),
        ("old@pam", PASSWORD),
        ("stranger@pam", PASSWORD),
        // No account of this server.
        ("bob@pam", PASSWORD),
    ];
    std::thread::scope(|scope| {
        for (user, password) in refused {
            let server = &server;
            scope.spawn(move || {
                let err = log_in(server, user, password).err().unwrap_or_default();
                assert!(err.contains("permission check failed."), "{user}: {err}");
            });
        }
    });
    let log = auth_log(&machine, &mut server);
    assert_eq!(log.matches("successful auth for user").count(), 2, "{log}");
    for (user, reason) in [
        ("root@pam", "PAM: Authentication failure"),
        ("alice@pam", "PAM: Authentication failure"),
        ("locked@pam", "PAM: Authentication failure"),
        ("expired@pam", "PAM: User account has expired"),
        ("old@pam", "the password has expired"),
        ("stranger@pam", "PAM: User not known"),
        ("bob@pam", "user account disabled or expired."),
    ] {
        let line = log
            .lines()
            .find(|line| line.contains(&format!(" user={user} ")));
        assert!(
            line.is_some_and(|line| line.contains(reason)),
            "{user}: {log}"
        );
    }
    assert!(
        !log.contains(PASSWORD) && !log.contains("wrong-password"),
        "{log}"
    );
}

#[test]
fn a_system_users_password_is_changed_by_itself_and_by_root_alone() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let mut server = machine.start();
    for user in ["alice@pam", "bob@pam"] {
        server.ok("manager", &["user", "create", user]).unwrap();
    }
    let change =
        |api: &Api, user: &str, new: &str, confirmation: Option<&str>| -> Result<Value, String> {
            let mut parameters = json!({"userid": user, "password": new});
            if let Some(confirmation) = confirmation {
                parameters["confirmation-password"] = json!(confirmation);
            }
            api.put("access/password", parameters)
                .map_err(|err| format!("{err:#}"))
        };
    let alice = log_in(&server, "alice@pam", PASSWORD).unwrap();
    let root = log_in(&server, "root@pam", PASSWORD).unwrap();
    let admin = Api::connect(&server).unwrap();
    let before = machine.read("etc/shadow");
    let own = server.password.clone();
    std::thread::scope(|scope| {
        let refused = [
            (&alice, "alice@pam", None),
            (&alice, "alice@pam", Some("wrong-password")),
            (&alice, "bob@pam", Some(PASSWORD)),
            (&admin, "bob@pam", Some(own.as_str())),
        ];
        for (api, user, confirmation) in refused {
            let change = &change;
            scope.spawn(move || {
                let err = change(api, user, "stolen-password", confirmation).unwrap_err();
                assert!(!err.contains("stolen-password"), "{err}");
            });
        }
    });
    assert_eq!(machine.read("etc/shadow"), before);
    change(&alice, "alice@pam", "alices-new-password", Some(PASSWORD)).unwrap();
    change(&root, "bob@pam", "bobs-new-password", None).unwrap();
    assert_ne!(machine.read("etc/shadow"), before);
    assert_eq!(
        fs::metadata(machine.path("etc/shadow")).unwrap().mode() & 0o7777,
        0o600
    );
    log_in(&server, "alice@pam", "alices-new-password").unwrap();
    log_in(&server, "bob@pam", "bobs-new-password").unwrap();
    assert!(log_in(&server, "alice@pam", PASSWORD).is_err());
    // On the command line of root.
    server
        .ok(
            "manager",
            &[
                "user",
                "update",
                "bob@pam",
                "--password",
                "bobs-third-password",
            ],
        )
        .unwrap();
    log_in(&server, "bob@pam", "bobs-third-password").unwrap();
    let log = auth_log(&machine, &mut server);
    assert!(!log.contains("-password"), "{log}");
}

#[test]
fn without_a_pam_library_or_rules_the_log_says_what_to_install() {
    let Some(machine) = Machine::new() else {
        return;
    };
    fs::remove_file(machine.path("etc/pam.d/proxmox-backup-auth")).unwrap();
    let mut server = machine.start();
    assert!(log_in(&server, "root@pam", PASSWORD).is_err());
    let log = auth_log(&machine, &mut server);
    assert!(
        log.contains("there is no /etc/pam.d/proxmox-backup-auth"),
        "{log}"
    );
    machine.write("before", "for lib in /lib /lib64 /usr/lib /lib/*-linux-gnu; do [ ! -e $lib/libpam.so.0 ] || mount --bind /dev/null $lib/libpam.so.0; done\n", 0o644);
    let mut server = machine.start();
    assert!(log_in(&server, "root@pam", PASSWORD).is_err());
    let log = auth_log(&machine, &mut server);
    assert!(log.contains("unable to load libpam.so.0"), "{log}");
}
