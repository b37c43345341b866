//! One server for all tests of this program: configuration of a stock server, an empty datastore `store1`.
//!
//! The tests keep apart by their backup ids.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use backstop_datastore::{CreateOptions, Datastore};
use backstop_server::{Roots, ServerHandle, ServerOptions};
use tempfile::TempDir;

/// Everything on the datastore.
pub const ADMIN: &str = "root@pam!api:a1be36a7-7d65-4802-8a3b-3170964c5a06";
/// `DatastoreBackup` on the datastore.
pub const TOKEN: &str = "fixture@pbs!tok1:962b0733-e62e-49e2-b2e8-9d4714601178";

/// The running server and its files.
pub struct TestServer {
    handle: ServerHandle,
    dir: TempDir,
}

impl TestServer {
    /// The server; it lives as long as the test program.
    pub fn get() -> &'static Self {
        static SERVER: OnceLock<TestServer> = OnceLock::new();
        SERVER.get_or_init(|| std::thread::spawn(|| Self::start("")).join().unwrap())
    }

    /// A server of its own, with further settings of the datastore.
    pub fn start(settings: &str) -> Self {
        start(settings)
    }

    /// Stops the server as a service manager does; gives the directory that it worked in.
    pub async fn shut_down(self) -> TempDir {
        self.handle
            .shutdown(std::time::Duration::from_secs(60))
            .await;
        self.dir
    }

    pub fn addr(&self) -> SocketAddr {
        self.handle.addr()
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store1")
    }

    /// Directory of `host/<id>`.
    pub fn group(&self, id: &str) -> PathBuf {
        self.store().join("host").join(id)
    }

    /// The task logs whose file name contains `part`, each as its texts without time stamps.
    pub fn task_logs(&self, part: &str) -> Vec<Vec<String>> {
        let mut logs = Vec::new();
        for folder in fs::read_dir(self.dir.path().join("var/log/proxmox-backup/tasks")).unwrap() {
            let folder = folder.unwrap().path();
            for file in fs::read_dir(folder).into_iter().flatten() {
                let file = file.unwrap().path();
                if file.to_string_lossy().contains(part) {
                    let text = fs::read_to_string(&file).unwrap();
                    logs.push(
                        text.lines()
                            .map(|line| line.get(27..).unwrap_or_default().to_owned())
                            .collect(),
                    );
                }
            }
        }
        logs
    }
}

fn start(settings: &str) -> TestServer {
    let dir = tempfile::tempdir().unwrap();
    let roots = Roots::below(dir.path());
    roots.create_directories().unwrap();
    let fixtures = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/pbs-4.2.3/etc-proxmox-backup"
    ));
    for name in [
        "user.cfg",
        "token.shadow",
        "shadow.json",
        "acl.cfg",
        "domains.cfg",
    ] {
        fs::copy(fixtures.join(name), roots.etc().join(name)).unwrap();
    }
    let store = dir.path().join("store1");
    Datastore::create(
        &store,
        &CreateOptions {
            skip_access_time_check: true,
            ..CreateOptions::default()
        },
        &mut |_| (),
    )
    .unwrap();
    fs::create_dir_all(store.join("ns/inner")).unwrap();
    let config = format!(
        "datastore: store1\n\tpath {}\n\ttuning sync-level=none\n{settings}",
        store.display()
    );
    fs::write(roots.etc().join("datastore.cfg"), config).unwrap();
    let options = ServerOptions {
        schedules: false,
        listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        node: Some("test".to_owned()),
        ..ServerOptions::new(roots)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.block_on(backstop_server::run(options)).unwrap();
    TestServer { handle, dir }
}

/// The query of a session on `host/<id>`.
pub fn query(id: &str, time: i64) -> String {
    format!("store=store1&backup-type=host&backup-id={id}&backup-time={time}")
}

/// Waits until `condition` holds; fails after a minute.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{what} did not come true");
}
