//! A server on a copy of what a stock server left behind, and the tools under their stock names.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testbed::server::ServerProcess;
use testbed::stock_root::{fixtures, lay_out};

use crate::capture::{Capture, Said};

/// The running server and where the tools are.
pub struct Setting {
    server: ServerProcess,
    /// The directory that stands in for `/`.
    root: PathBuf,
    bin: PathBuf,
    home: PathBuf,
    _dir: tempfile::TempDir,
}

impl Setting {
    /// With everything that the stock server of this version had when it was copied.
    pub fn copy(version: &str) -> Self {
        Self::start(version, |_| {})
    }

    /// With its users and keys, but without datastores, realms, jobs and tasks.
    pub fn new(version: &str) -> Self {
        Self::start(version, |root| {
            let etc = root.join("etc/proxmox-backup");
            for name in [
                "datastore.cfg",
                "domains.cfg",
                "notifications-priv.cfg",
                "notifications.cfg",
                "prune.cfg",
                "remote.cfg",
                "sync.cfg",
                "verification.cfg",
            ] {
                fs::write(etc.join(name), "").expect("configuration");
            }
            for folder in [
                "srv/fixture/store1",
                "var/lib/proxmox-backup",
                "var/log/proxmox-backup",
            ] {
                fs::remove_dir_all(root.join(folder)).expect("folder");
            }
        })
    }

    fn start(version: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = testbed::scratch::directory().expect("scratch directory");
        let root = dir.path().join("root");
        lay_out(version, &root).expect("a root directory");
        let srv = root.join("srv/fixture");
        for entry in fs::read_dir(fixtures(version).join("keys")).expect("keys") {
            let entry = entry.expect("entry");
            fs::create_dir_all(srv.join("keys")).expect("folder");
            fs::copy(entry.path(), srv.join("keys").join(entry.file_name())).expect("key");
        }
        fs::write(srv.join("client.log"), "a log\n").expect("log");
        prepare(&root);
        let (bin, home) = (dir.path().join("bin"), dir.path().join("home"));
        fs::create_dir(&bin).expect("bin");
        fs::create_dir(&home).expect("home");
        let binary = Path::new(env!("CARGO_BIN_EXE_backstop"));
        for name in ["proxmox-backup-client", "proxmox-backup-manager", "pxar"] {
            symlink(binary, bin.join(name)).expect("link");
        }
        let server = ServerProcess::start(binary, &root, ([127, 0, 0, 1], 0).into());
        Self {
            server: server.expect("server"),
            root,
            bin,
            home,
            _dir: dir,
        }
    }

    /// Runs what was recorded, with today's paths and port.
    pub fn replay(&self, capture: &Capture) -> Said {
        let root = self.root.display().to_string();
        let here = |text: &String| text.replace("/srv/fixture", &format!("{root}/srv/fixture"));
        let mut words = capture.argv.iter();
        let program = Path::new(words.next().expect("a program"));
        let program = self.bin.join(program.file_name().expect("a name"));
        let port = self.server.address.port();
        let mut command = Command::new(program);
        command
            .args(words.map(here))
            .env_clear()
            .env("BACKSTOP_ROOT", &self.root)
            .env("HOME", &self.home)
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        for (name, value) in &capture.env {
            let value = match value.split_once("@localhost:") {
                // A port of its own is one where nobody listens.
                Some((user, store)) if !store.contains(':') => {
                    format!("{user}@127.0.0.1:{port}:{store}")
                }
                _ => value.clone(),
            };
            command.env(name, value);
        }
        let output = command.output().expect("the program starts");
        let text = |bytes: Vec<u8>| {
            String::from_utf8_lossy(&bytes)
                .replace(&root, "")
                .replace(&format!("127.0.0.1:{port}"), "localhost:8007")
        };
        Said {
            exit: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}
