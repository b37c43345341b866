//! Sources on disk, a peer, and the library between them.

use std::path::PathBuf;
use std::sync::Arc;

use backstop_client::activity::{Activity, Silent};
use backstop_client::backup::{
    self, ArchiveSpec, BackupRequest, BackupSummary, ChangeDetection, CryptConfig, SourceKind,
    TreeOptions,
};
use backstop_client::restore::{
    self, ExtractOptions, RestoreRequest, RestoreTarget, SnapshotAccess,
};
use backstop_client::{HttpClient, Result};
use backstop_format::blob::DataBlob;
use backstop_format::manifest::Manifest;
use backstop_format::{CryptKey, CryptMode};
use backstop_types::{Namespace, Snapshot};
use parking_lot::Mutex;

use super::Peer;

/// Archives of a request, also the names of their sources.
pub const NAMES: [(&str, SourceKind); 2] = [
    ("disk.img", SourceKind::Image),
    ("app.conf", SourceKind::Config),
];

/// A directory with sources, and a peer.
pub struct Bench {
    pub peer: Peer,
    pub client: HttpClient,
    pub dir: tempfile::TempDir,
}

pub fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        data.extend_from_slice(&(seed ^ (seed >> 29)).to_le_bytes());
    }
    data.truncate(length);
    data
}

pub fn snapshot(time: i64) -> Snapshot {
    let group: backstop_types::BackupGroup = "host/bench".parse().unwrap();
    group.snapshot(time.try_into().unwrap())
}

pub fn crypt(mode: CryptMode, byte: u8) -> CryptConfig {
    CryptConfig {
        mode,
        key: Arc::new(CryptKey::new([byte; 32])),
        escrow: None,
    }
}

impl Bench {
    pub async fn new() -> Self {
        let peer = Peer::start().await;
        let client = peer.client().await;
        let dir = tempfile::tempdir().unwrap();
        let mut image = noise(9 << 20, 1);
        image.resize(22 << 20, 0);
        image.extend(noise(700, 2));
        std::fs::write(dir.path().join("disk.img"), image).unwrap();
        std::fs::write(dir.path().join("app.conf"), b"setting = 1\n").unwrap();
        Self { peer, client, dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn request(&self, time: i64) -> BackupRequest {
        let archive = |(name, kind): (&str, SourceKind)| ArchiveSpec {
            name: name.to_owned(),
            kind,
            path: self.path(name),
        };
        BackupRequest {
            datastore: "store".to_owned(),
            namespace: Namespace::root(),
            snapshot: snapshot(time),
            archives: NAMES.into_iter().map(archive).collect(),
            crypt: None,
            change_detection: ChangeDetection::Legacy,
            chunk_size: 4 << 20,
            tree: TreeOptions::default(),
            dry_run: false,
            no_cache: false,
            repository: "u@pbs!t@peer:8007:store".to_owned(),
        }
    }

    pub async fn backup(&self, request: BackupRequest) -> Result<BackupSummary> {
        backup::run(&self.client, request, Arc::new(Silent)).await
    }

    pub async fn restore(
        &self,
        time: i64,
        key: Option<Arc<CryptKey>>,
        name: &str,
    ) -> Result<Vec<u8>> {
        let target = self.path("restored");
        let _ = std::fs::remove_file(&target);
        let request = RestoreRequest {
            access: SnapshotAccess {
                datastore: "store".to_owned(),
                namespace: Namespace::root(),
                snapshot: snapshot(time),
                key,
            },
            archive: name.to_owned(),
            target: RestoreTarget::Path(target.clone()),
            extract: ExtractOptions::default(),
        };
        restore::run(&self.client, request, Arc::new(Silent)).await?;
        Ok(std::fs::read(target).unwrap())
    }

    pub async fn assert_restores(&self, time: i64, key: Option<Arc<CryptKey>>) {
        for (name, _) in NAMES {
            let restored = self.restore(time, key.clone(), name).await.unwrap();
            assert!(
                restored == std::fs::read(self.path(name)).unwrap(),
                "{name}"
            );
        }
    }

    /// Changes a stored file of a snapshot.
    pub fn tamper(&self, time: i64, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.peer.state.lock();
        change(
            state
                .snapshots
                .get_mut(&time)
                .unwrap()
                .get_mut(name)
                .unwrap(),
        );
    }

    /// Changes the manifest without signing it again.
    pub fn tamper_manifest(&self, time: i64, change: impl FnOnce(&mut Manifest)) {
        self.tamper(time, "index.json.blob", |raw| {
            let mut manifest = Manifest::from_blob(&DataBlob::load(raw.clone()).unwrap()).unwrap();
            change(&mut manifest);
            *raw = manifest.to_blob().unwrap().into_raw();
        });
    }
}

/// Keeps the lines that it is told.
#[derive(Default)]
pub struct Lines(pub Mutex<Vec<String>>);

impl Activity for Lines {
    fn info(&self, line: &str) {
        self.0.lock().push(line.to_owned());
    }
    fn warn(&self, line: &str) {
        self.0.lock().push(line.to_owned());
    }
}
