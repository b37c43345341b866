//! A server that listens nowhere, with many users, and the files that refused calls must not change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::Ed25519KeyPair;
use backstop_server::config::ConfigError;
use backstop_server::router::dispatch;
use backstop_server::{Roots, ServerHandle, ServerOptions, run};
use backstop_types::Upid;
use backstop_types::acl::AclTree;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use hmac::{KeyInit, Mac, SimpleHmac};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use testbed::stock_root::lay_out;

/// The secret of every API token here, and its hash.
pub const SECRET: &str = "token-secret";
const SECRET_HASH: &str = "$5$abcdefgh$N53BxNlWa5xnORuCnfIbEQf9N7lhKp1VUmbd1K4lMJ5";

/// How a request says who sends it.
#[derive(Debug, Clone)]
pub enum Login {
    Nobody,
    /// A ticket.
    User(String),
    /// An API token of [`Setting::start`].
    Token(String),
    /// An API token that was made later, and its secret.
    NewToken(String, String),
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub text: String,
}

type Stamps = BTreeMap<PathBuf, (u64, u64, i64, i64)>;

pub struct Setting {
    handle: ServerHandle,
    client: Option<SendRequest<Full<Bytes>>>,
    root: PathBuf,
    /// Copies of the files as they should be, by their path.
    pristine: BTreeMap<PathBuf, Vec<u8>>,
    folders: BTreeSet<PathBuf>,
    stamps: Stamps,
    key: Ed25519KeyPair,
    csrf_key: Vec<u8>,
    _dir: tempfile::TempDir,
}

/// What the handler of a call can change and a test can compare.
const WATCHED: [&str; 2] = ["etc/proxmox-backup", "srv/fixture/store1"];

impl Setting {
    /// A server with the data of release 4.2.3, these users and tokens, and jobs in the namespace `team-b`.
    pub async fn start(users: &str, tokens: &[String]) -> Self {
        let dir = testbed::scratch::directory().unwrap();
        let root = dir.path().to_owned();
        lay_out("4.2.3", &root).unwrap();
        let etc = root.join("etc/proxmox-backup");
        fs::write(etc.join("user.cfg"), users).unwrap();
        fs::write(etc.join("acl.cfg"), "").unwrap();
        let secrets: serde_json::Map<_, _> = tokens
            .iter()
            .map(|id| (id.clone(), SECRET_HASH.into()))
            .collect();
        fs::write(
            etc.join("token.shadow"),
            serde_json::to_string(&secrets).unwrap(),
        )
        .unwrap();
        let factor = r#"{"users":{"victim@pbs":{"totp":[{"id":"one","description":"phone","created":1,
            "entry":"otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"}]}}}"#;
        fs::write(etc.join("tfa.json"), factor).unwrap();
        let append = |name: &str, text: &str| {
            let old = fs::read_to_string(etc.join(name)).unwrap();
            fs::write(etc.join(name), format!("{old}\n{text}")).unwrap();
        };
        append(
            "prune.cfg",
            "prune: prune-b\n\tns team-b\n\tschedule daily\n\tstore store1\n",
        );
        append(
            "verification.cfg",
            "verification: verify-b\n\tns team-b\n\tstore store1\n",
        );
        let options = ServerOptions {
            schedules: false,
            real_ip: None,
            roots: Roots::below(&root),
            listen: Vec::new(),
            node: Some("vm".to_owned()),
        };
        let handle = run(options).await.unwrap();
        let pem = fs::read_to_string(etc.join("authkey.key")).unwrap();
        let csrf_key = fs::read_to_string(etc.join("csrf.key")).unwrap();
        let mut setting = Self {
            handle,
            client: None,
            root,
            pristine: BTreeMap::new(),
            folders: BTreeSet::new(),
            stamps: Stamps::new(),
            key: signing_key(&pem),
            csrf_key: STANDARD_NO_PAD
                .decode(csrf_key.trim().trim_end_matches('='))
                .unwrap(),
            _dir: dir,
        };
        for store_group in setting
            .files()
            .keys()
            .filter(|path| path.ends_with("owner"))
        {
            fs::write(store_group, "victim@pbs\n").unwrap();
        }
        setting.pristine = setting
            .files()
            .into_keys()
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        (setting.stamps, setting.folders) = setting.found();
        setting
    }

    /// Makes these the access rules.
    pub fn set_rules(&mut self, rules: &str) {
        let tree = AclTree::parse("acl.cfg", rules).unwrap();
        let config = self.handle.server().config();
        config
            .edit_acl(None, |own| {
                *own = tree;
                Ok::<_, ConfigError>(())
            })
            .unwrap();
        self.accept();
    }

    /// Makes somebody the owner of the group that calls are about.
    pub fn set_owner(&mut self, owner: &str) {
        let group = self
            .root
            .join("srv/fixture/store1/ns/team-b/host/overlap/owner");
        replace(&group, format!("{owner}\n").as_bytes());
        self.accept();
    }

    /// Takes the files as they are now for what they should be.
    fn accept(&mut self) {
        let now = self.files();
        for path in differing(&now, &self.stamps) {
            match fs::read(&path) {
                Ok(content) => drop(self.pristine.insert(path, content)),
                Err(_) => drop(self.pristine.remove(&path)),
            }
        }
        self.stamps = now;
    }

    /// The files that are not as they should be.
    pub fn changed(&self) -> Vec<PathBuf> {
        let now = self.files();
        let differs = |path: &PathBuf| fs::read(path).ok().as_ref() != self.pristine.get(path);
        differing(&now, &self.stamps)
            .into_iter()
            .filter(differs)
            .collect()
    }

    /// Where a file below the root is.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// The files as they are now, by their path below the root.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let read = |path: PathBuf| {
            let below = path
                .strip_prefix(&self.root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            (below, fs::read(path).unwrap())
        };
        self.files().into_keys().map(read).collect()
    }

    /// Makes the files what they should be.
    pub fn restore(&mut self) {
        let now = self.files();
        let changed = differing(&now, &self.stamps);
        if changed.is_empty() {
            return;
        }
        for path in changed {
            match self.pristine.get(&path) {
                Some(content) => replace(&path, content),
                None => fs::remove_file(&path).unwrap(),
            }
        }
        let (stamps, folders) = self.found();
        let added: Vec<_> = folders.difference(&self.folders).collect();
        for folder in added.into_iter().rev() {
            fs::remove_dir_all(folder).unwrap();
        }
        for folder in self.folders.difference(&folders) {
            fs::create_dir_all(folder).unwrap();
        }
        self.stamps = stamps;
    }

    fn files(&self) -> Stamps {
        self.found().0
    }

    /// The files and folders below the watched directories.
    fn found(&self) -> (Stamps, BTreeSet<PathBuf>) {
        let mut files = Stamps::new();
        let mut folders = BTreeSet::new();
        let mut open: Vec<PathBuf> = WATCHED.iter().map(|below| self.root.join(below)).collect();
        while let Some(folder) = open.pop() {
            let Ok(entries) = fs::read_dir(folder) else {
                continue;
            };
            for entry in entries {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                let meta = entry.metadata().unwrap();
                let is_lock = name == ".lock" || name.ends_with(".lck") || name.ends_with(".lock");
                if meta.is_dir() && name != ".chunks" {
                    folders.insert(entry.path());
                    open.push(entry.path());
                } else if meta.is_file() && !is_lock {
                    let stamp = (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
                    files.insert(entry.path(), stamp);
                }
            }
        }
        (files, folders)
    }

    /// Sends a request; `below` is the path below `/api2/json`, with a query.
    pub async fn send(
        &mut self,
        method: &str,
        below: &str,
        login: &Login,
        upgrade: Option<&str>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api2/json{below}"))
            .header("Host", "localhost");
        match login {
            Login::Nobody => {}
            Login::User(user) => {
                let (ticket, csrf) = self.ticket(user);
                request = request
                    .header("Cookie", format!("PBSAuthCookie={ticket}"))
                    .header("CSRFPreventionToken", csrf);
            }
            Login::Token(token) => {
                request = request.header("Authorization", format!("PBSAPIToken={token}:{SECRET}"))
            }
            Login::NewToken(token, secret) => {
                request = request.header("Authorization", format!("PBSAPIToken={token}:{secret}"));
            }
        }
        if let Some(protocol) = upgrade {
            request = request
                .header("Connection", "Upgrade")
                .header("Upgrade", protocol);
        }
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let mut client = match self.client.take() {
            Some(client) => client,
            None => self.connect().await,
        };
        client.ready().await.unwrap();
        let response = client.send_request(request).await.unwrap();
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Answer {
                status,
                text: "upgraded".to_owned(),
            };
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        self.client = Some(client);
        let text = String::from_utf8_lossy(&body).into_owned();
        Answer { status, text }
    }

    /// Waits until no task runs.
    pub async fn settle(&self) {
        let tasks = self.handle.server().tasks();
        loop {
            let mut running: Vec<Upid> = Vec::new();
            let collect = &mut |entry: backstop_server::task::TaskEntry| {
                running.push(entry.upid);
                std::ops::ControlFlow::Continue(())
            };
            tasks.list().visit(true, collect).unwrap();
            running.retain(|upid| tasks.is_running(upid));
            if running.is_empty() {
                return;
            }
            for upid in running {
                tasks.wait_for(&upid).await;
            }
        }
    }

    /// A connection that exists in memory alone.
    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let (near, far) = tokio::io::duplex(64 << 10);
        let server = Arc::clone(self.handle.server());
        let peer: SocketAddr = ([127, 0, 0, 1], 1).into();
        let service = service_fn(move |request| {
            let server = Arc::clone(&server);
            async move {
                Ok::<_, std::convert::Infallible>(dispatch::respond(server, request, peer).await)
            }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(far), service)
                .with_upgrades(),
        );
        let (client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near))
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    }

    /// A ticket and a token against cross-site requests, made with the keys of the server.
    fn ticket(&self, user: &str) -> (String, String) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let plain = format!("PBS:{user}:{now:08X}");
        let signature = STANDARD_NO_PAD.encode(self.key.sign(plain.as_bytes()));
        let stamp = format!("{now:08X}");
        let mut mac = SimpleHmac::<sha3::Sha3_256>::new_from_slice(&self.csrf_key).unwrap();
        mac.update(format!("{stamp}:{user}:").as_bytes());
        let mac = STANDARD_NO_PAD.encode(mac.finalize().into_bytes());
        (format!("{plain}::{signature}"), format!("{stamp}:{mac}"))
    }
}

fn signing_key(pem: &str) -> Ed25519KeyPair {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD_NO_PAD.decode(body.trim_end_matches('=')).unwrap();
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap()
}

/// Puts a new file in the place of another, so that nobody takes it for the old one.
fn replace(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let new = path.with_extension("restored.lck");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

fn differing(now: &Stamps, before: &Stamps) -> Vec<PathBuf> {
    let gone = before.keys().filter(|path| !now.contains_key(*path));
    let other = now
        .iter()
        .filter(|(path, stamp)| before.get(*path) != Some(*stamp));
    other.map(|(path, _)| path).chain(gone).cloned().collect()
}
