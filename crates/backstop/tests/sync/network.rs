//! Three servers in network namespaces of this test's own: a chain, and two edges that one centre pulls together.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use testbed::server::{ServerProcess, succeeded};

use crate::failures::damage;
use crate::world::{BINARY, chunks};

/// A network namespace, held by a process that ends with this.
struct Machine(Child);

impl Machine {
    /// `None` where namespaces cannot be made.
    fn new() -> Option<Self> {
        let script = "ip link set lo up && echo up && exec cat";
        let mut holder = Command::new("unshare");
        holder
            .args(["--net", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = holder.spawn().ok()?;
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take()?);
        let heard = said.read_line(&mut line);
        let machine = Self(child);
        (heard.is_ok() && line.trim() == "up").then_some(machine)
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0.id().to_string(), "--net"]);
        command
    }

    fn run(&self, line: &str) -> bool {
        let status = self.enter().args(line.split(' ')).status();
        status.is_ok_and(|status| status.success())
    }

    /// A cable to another machine, with an address at each end.
    fn connect(&self, other: &Self, net: u8) -> bool {
        let peer = other.0.id();
        let cable = format!("ip link add net{net} type veth peer name net{net} netns {peer}");
        self.run(&cable)
            && [(self, 1), (other, 2)].iter().all(|(machine, host)| {
                machine.run(&format!("ip addr add 10.77.{net}.{host}/24 dev net{net}"))
                    && machine.run(&format!("ip link set net{net} up"))
            })
    }

    /// A server in it, with a datastore `store1`.
    fn server(&self, folder: &Path) -> ServerProcess {
        fs::create_dir_all(folder).unwrap();
        let program = folder.join("backstop");
        let script = format!(
            "#!/bin/sh\nexec nsenter --target {} --net {BINARY} \"$@\"\n",
            self.0.id()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8007));
        let root = folder.join("root");
        let server = ServerProcess::start(&program, &root, everywhere).unwrap();
        let store = root.join("datastore/store1");
        let words = ["datastore", "create", "store1", store.to_str().unwrap()];
        server.ok("manager", &words).unwrap();
        server
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The edge, the centre, and the third one behind it; the servers end before their machines do.
struct Site {
    edge: ServerProcess,
    centre: ServerProcess,
    far: ServerProcess,
    _machines: [Machine; 3],
    scratch: tempfile::TempDir,
}

impl Site {
    fn new() -> Option<Self> {
        let skip = |reason: &str| println!("skipped: {reason}");
        if !testbed::is_root() {
            skip("network namespaces need root");
            return None;
        }
        let machines = [(); 3].map(|()| Machine::new());
        let [Some(edge), Some(centre), Some(far)] = machines else {
            skip("network namespaces cannot be made here");
            return None;
        };
        if !edge.connect(&centre, 1) || !far.connect(&centre, 2) {
            skip("network namespaces cannot be connected here");
            return None;
        }
        let scratch = testbed::scratch::directory().unwrap();
        let start = |machine: &Machine, name: &str| machine.server(&scratch.path().join(name));
        Some(Self {
            edge: start(&edge, "edge"),
            centre: start(&centre, "centre"),
            far: start(&far, "far"),
            _machines: [edge, centre, far],
            scratch,
        })
    }

    /// Backs up an image of random content.
    fn backup(&self, server: &ServerProcess, id: &str, time: i64, seed: u64) -> PathBuf {
        let path = self.scratch.path().join(format!("disk{seed}"));
        fs::write(&path, testbed::random::Random::new(seed).bytes(5 << 20)).unwrap();
        let spec = format!("disk.img:{}", path.display());
        let time = time.to_string();
        let words = ["backup", &spec, "--backup-id", id, "--backup-time", &time];
        server.ok("client", &words).unwrap();
        path
    }

    /// Adds a job at `to` that pulls from a server at an address.
    fn job(to: &ServerProcess, from: &ServerProcess, address: &str, name: &str, more: &[&str]) {
        let remote = ["remote", "create", name, "--host", address];
        let account = ["--auth-id", "admin@pbs", "--password", &from.password];
        let pin = ["--fingerprint", &from.fingerprint];
        to.ok("manager", &[&remote[..], &account, &pin].concat())
            .unwrap();
        let job = ["sync-job", "create", name, "--remote", name];
        let stores = ["--remote-store", "store1", "--store", "store1"];
        let owner = ["--owner", "admin@pbs"];
        to.ok("manager", &[&job[..], &stores, &owner, more].concat())
            .unwrap();
    }

    fn restored(server: &ServerProcess, ns: &str) -> Vec<u8> {
        let words = ["restore", "host/x", "disk.img", "-", "--ns", ns];
        let output = server.run("client", &words).unwrap();
        succeeded(&output).unwrap();
        output.stdout
    }
}

fn sync(server: &ServerProcess, job: &str) -> bool {
    let words = ["sync-job", "run", job];
    server.run("manager", &words).unwrap().status.success()
}

/// What is known of the runs of a job.
fn status(server: &ServerProcess, job: &str) -> Value {
    let words = ["sync-job", "status", "--output-format", "json"];
    let list: Value = serde_json::from_str(&server.ok("manager", &words).unwrap()).unwrap();
    let jobs = list.as_array().unwrap();
    jobs.iter().find(|item| item["id"] == job).unwrap().clone()
}

#[test]
fn a_chain_and_a_fan_in_bring_everything_and_know_what_they_lack() {
    let Some(site) = Site::new() else { return };
    let old = site.backup(&site.edge, "x", 1_700_000_000, 1);
    Site::job(&site.centre, &site.edge, "10.77.1.1", "from-edge", &[]);
    Site::job(&site.far, &site.centre, "10.77.2.2", "from-centre", &[]);

    // A chain: what the edge has is at the far end after two jobs.
    assert!(sync(&site.centre, "from-edge"));
    assert!(sync(&site.far, "from-centre"));
    for server in [&site.centre, &site.far] {
        assert!(Site::restored(server, "") == fs::read(&old).unwrap());
    }
    let lag = |server: &ServerProcess, job: &str| status(server, job)["lag"].clone();
    assert_eq!(lag(&site.centre, "from-edge"), 0);
    assert_eq!(lag(&site.far, "from-centre"), 0);

    // A snapshot that the centre cannot get is missing there. The far end lacks nothing that the centre has.
    let before = chunks(&site.edge.root.join("datastore/store1"));
    let new = site.backup(&site.edge, "x", 1_700_003_600, 2);
    let after = chunks(&site.edge.root.join("datastore/store1"));
    let chunk = after.iter().find(|chunk| !before.contains(chunk)).unwrap();
    let sound = damage(chunk);
    assert!(!sync(&site.centre, "from-edge"));
    assert!(sync(&site.far, "from-centre"));
    let known = status(&site.centre, "from-edge");
    assert_eq!(
        (&known["missing"], &known["failures"]),
        (&1.into(), &1.into())
    );
    assert_eq!(known["behind-since"], 1_700_003_600);
    assert!(known["lag"].as_i64().unwrap() > 86_400, "{known}");
    assert_eq!(lag(&site.far, "from-centre"), 0);
    fs::write(chunk, sound).unwrap();
    assert!(sync(&site.centre, "from-edge") && sync(&site.far, "from-centre"));
    assert!(Site::restored(&site.far, "") == fs::read(&new).unwrap());
    assert_eq!(lag(&site.centre, "from-edge"), 0);

    // A fan-in: the same group of two edges, in a namespace for each.
    let other = site.backup(&site.far, "x", 1_700_007_200, 3);
    for (name, from, address) in [
        ("edge1", &site.edge, "10.77.1.1"),
        ("edge2", &site.far, "10.77.2.1"),
    ] {
        let words = ["namespace", "create", name];
        site.centre.ok("client", &words).unwrap();
        Site::job(
            &site.centre,
            from,
            address,
            name,
            &["--ns", name, "--max-depth", "0"],
        );
    }
    for name in ["edge1", "edge2"] {
        assert!(sync(&site.centre, name));
        assert_eq!(lag(&site.centre, name), 0);
    }
    assert_eq!(status(&site.centre, "edge1")["snapshots"], 2);
    assert_eq!(status(&site.centre, "edge2")["snapshots"], 3);
    assert!(Site::restored(&site.centre, "edge1") == fs::read(&new).unwrap());
    assert!(Site::restored(&site.centre, "edge2") == fs::read(&other).unwrap());
}
