//! A server that is killed and started again, and what must hold of its datastore afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use backstop_datastore::{Datastore, DatastoreError, LockMode};
use backstop_format::Digest;
use backstop_format::index::{ChunkIndex, FixedIndexBuilder};
use backstop_format::manifest::{FileEntry, Manifest};
use backstop_format::{CryptMode, blob::DataBlob};
use backstop_types::{AuthId, Namespace, Snapshot, SyncLevel, Tuning};
use serde_json::Value;
use testbed::random::Random;
use testbed::server::{ServerProcess, succeeded};

const IMAGE: &str = "disk.img.fidx";
const CHUNK: usize = 64 << 10;
/// Time of the first snapshot; the others follow in steps of an hour.
const FIRST: u64 = 1_700_000_000;

/// The seed of this run: `CRASH_SEED`, else the time. It is printed, so that a failure can be repeated.
pub fn seed(name: &str) -> u64 {
    let seed = std::env::var("CRASH_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_nanos() as u64
    });
    println!("{name}: CRASH_SEED={seed}");
    seed
}

/// A server with one datastore, and what is known about its snapshots.
pub struct World {
    pub server: ServerProcess,
    pub random: Random,
    /// Snapshots that must be there.
    pub finished: BTreeSet<String>,
    /// The digest of the image of each snapshot that was ever begun.
    images: BTreeMap<String, Digest>,
    next: u64,
    common: Vec<u8>,
    pub kills: u32,
    pub dir: tempfile::TempDir,
}

impl World {
    pub fn new(name: &str) -> Self {
        let dir = testbed::scratch::directory().unwrap();
        let server = ServerProcess::with_datastore(
            Path::new(env!("CARGO_BIN_EXE_backstop")),
            &dir.path().join("root"),
        );
        let mut random = Random::new(seed(name));
        let common = random.bytes(16 * CHUNK);
        Self {
            server: server.unwrap(),
            random,
            finished: BTreeSet::new(),
            images: BTreeMap::new(),
            next: 0,
            common,
            kills: 0,
            dir,
        }
    }

    pub fn store(&self) -> PathBuf {
        self.server.root.join("datastore/store1")
    }

    /// The datastore, seen by another process than the server.
    pub fn open(&self) -> Arc<Datastore> {
        let locks = self.server.root.join("run/proxmox-backup/locks");
        let tuning = Tuning {
            sync_level: SyncLevel::None,
            ..Tuning::default()
        };
        Datastore::open(&"store1".parse().unwrap(), &self.store(), &locks, tuning).unwrap()
    }

    /// The name and the image of the next snapshot of a group. Half of each image is in all of them.
    fn next_image(&mut self, group: &str) -> (Snapshot, Vec<u8>) {
        let time = FIRST + self.next * 3600;
        self.next += 1;
        let snapshot = backstop_types::BackupTime::try_from(time as i64).unwrap();
        let snapshot: Snapshot = format!("{group}/{snapshot}").parse().unwrap();
        let mut image = self.common.clone();
        image.extend(self.random.bytes(16 * CHUNK));
        self.images.insert(snapshot.to_string(), Digest::of(&image));
        (snapshot, image)
    }

    /// The client that makes the next snapshot of a group.
    pub fn backup(&mut self, group: &str) -> (String, Command) {
        let (snapshot, image) = self.next_image(group);
        // Two kinds of archives: chunks of fixed and of other lengths.
        let (path, tree) = (
            self.dir.path().join("disk.img"),
            self.dir.path().join("tree"),
        );
        fs::create_dir_all(&tree).unwrap();
        fs::write(&path, image).unwrap();
        fs::write(tree.join("file"), self.random.bytes(1 << 20)).unwrap();
        let mut command = self.server.command("client", "store1");
        command
            .arg("backup")
            .arg(format!("root.pxar:{}", tree.display()))
            .arg(format!("disk.img:{}", path.display()))
            .args(["--backup-type", snapshot.group.ty.as_str()])
            .args(["--backup-id", snapshot.group.id.as_str()])
            .args(["--backup-time", &snapshot.time.epoch().to_string()]);
        (snapshot.to_string(), command)
    }

    /// Puts the next snapshot of a group into the datastore without a session.
    pub fn put_snapshot(&mut self, group: &str) -> String {
        let (snapshot, image) = self.next_image(group);
        let store = self.open();
        let owner: AuthId = "admin@pbs".parse().unwrap();
        let ns = Namespace::root();
        let (_, _lock) = free("the group", || {
            store.create_group_locked(&ns, &snapshot.group, &owner)
        });
        let writer = store.create_snapshot(&ns, &snapshot).unwrap();
        let mut index = FixedIndexBuilder::new(Some(image.len() as u64), CHUNK as u64).unwrap();
        for (number, chunk) in image.chunks(CHUNK).enumerate() {
            let digest = self.put_chunk_into(&store, chunk);
            let start = (number * CHUNK) as u64;
            index.add(start, chunk.len() as u64, &digest).unwrap();
        }
        let (raw, csum, size) = index.finish().unwrap();
        writer.store_index(&IMAGE.parse().unwrap(), &raw).unwrap();
        let (ty, id) = (snapshot.group.ty.as_str(), snapshot.group.id.as_str());
        let mut manifest = Manifest::new(ty, id, snapshot.time.epoch());
        let file = FileEntry {
            filename: IMAGE.to_owned(),
            crypt_mode: CryptMode::None,
            size,
            csum,
        };
        manifest.add_file(file).unwrap();
        writer.finish(&manifest).unwrap();
        self.finished.insert(snapshot.to_string());
        snapshot.to_string()
    }

    fn put_chunk_into(&self, store: &Datastore, chunk: &[u8]) -> Digest {
        let digest = Digest::of(chunk);
        let blob = DataBlob::encode(chunk, None, true).unwrap();
        store.chunks().insert(&digest, &blob).unwrap();
        digest
    }

    /// Chunks that nothing refers to.
    pub fn put_garbage(&mut self, count: usize) {
        let store = self.open();
        for _ in 0..count {
            let chunk = self.random.bytes(512);
            self.put_chunk_into(&store, &chunk);
        }
    }

    /// Makes all chunks, and all leftovers, look unused for three days.
    pub fn age_chunks(&self) {
        let old = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
        let times = fs::FileTimes::new().set_accessed(old).set_modified(old);
        let mut others = Vec::new();
        leftovers(&self.store(), &mut others);
        let files = self.chunk_files().into_iter().chain(others);
        for file in files.filter(|file| file.is_file()) {
            fs::File::open(file).unwrap().set_times(times).unwrap();
        }
    }

    fn chunk_files(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.store().join(".chunks")).unwrap();
        folders
            .map(|folder| folder.unwrap().path())
            .filter(|folder| folder.is_dir())
            .flat_map(|folder| fs::read_dir(folder).unwrap())
            .map(|file| file.unwrap().path())
            .collect()
    }

    /// How long an operation takes when nobody disturbs it.
    pub fn measure(&self, command: &mut Command) -> Duration {
        let start = Instant::now();
        succeeded(&command.output().unwrap()).unwrap();
        start.elapsed()
    }

    /// Runs an operation, kills the server at a random moment of it, and starts it again.
    pub fn interrupt(&mut self, mut command: Command, usual: Duration) -> Output {
        let child: Child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The moment is the point of the test: anywhere in the operation, and as long again for when the machine is busy.
        let moment = self.random.below(2 * usual.as_micros() as u64);
        std::thread::sleep(Duration::from_micros(moment));
        self.server.kill().unwrap();
        self.kills += 1;
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{said}");
        let (binary, root) = (self.server.binary.clone(), self.server.root.clone());
        self.server = ServerProcess::start(&binary, &root, ([127, 0, 0, 1], 0).into()).unwrap();
        output
    }

    fn client_json(&self, words: &[&str]) -> Value {
        let words = [words, &["--output-format", "json"]].concat();
        serde_json::from_str(&self.server.ok("client", &words).unwrap()).unwrap()
    }

    /// Everything that must hold after a restart. Returns what is listed.
    pub fn check(&mut self) -> BTreeSet<String> {
        let store = self.open();
        let ns = Namespace::root();
        let mut listed = BTreeSet::new();
        for item in self.client_json(&["snapshot", "list"]).as_array().unwrap() {
            let time = item["backup-time"].as_i64().unwrap();
            let time = backstop_types::BackupTime::try_from(time).unwrap();
            let text = |name: &str| item[name].as_str().unwrap();
            let name = format!("{}/{}/{time}", text("backup-type"), text("backup-id"));
            assert!(item["size"].is_u64(), "half-written, but listed: {item}");
            let snapshot: Snapshot = name.parse().unwrap();
            self.check_restores(&store, &snapshot);
            drop(free("the snapshot", || {
                store.lock_snapshot(&ns, &snapshot, LockMode::Exclusive)
            }));
            drop(free("the manifest", || store.lock_manifest(&ns, &snapshot)));
            listed.insert(name);
        }
        let lost: Vec<_> = self.finished.difference(&listed).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        for group in store.groups(&ns).unwrap() {
            drop(free("the group", || store.lock_group(&ns, &group)));
            store.owner(&ns, &group).unwrap();
        }
        let running = self.server.ok("manager", &["task", "list"]).unwrap();
        assert_eq!(running, "", "tasks of a dead server run on");
        listed
    }

    /// Reads all archives back, chunk by chunk, and compares the image with what was backed up.
    fn check_restores(&self, store: &Datastore, snapshot: &Snapshot) {
        let (ns, name) = (Namespace::root(), snapshot.to_string());
        let (manifest, _) = store.load_manifest(&ns, snapshot).unwrap();
        for file in manifest
            .files
            .iter()
            .filter(|file| file.filename.ends_with("idx"))
        {
            let archive = file.filename.parse().unwrap();
            let index = store.load_index(&ns, snapshot, &archive).unwrap();
            assert_eq!(file.csum, index.checksum(), "{name} {archive}");
            let mut content = Vec::new();
            for number in 0..index.chunk_count() {
                let chunk = index.chunk(number).unwrap();
                let blob = store.chunks().load(&chunk.digest).unwrap();
                let size = chunk.end - chunk.start;
                content.extend(blob.decode_chunk(None, &chunk.digest, size).unwrap());
            }
            if file.filename == IMAGE {
                assert_eq!(self.images[&name], Digest::of(&content), "{name}");
            }
        }
        assert!(manifest.files.iter().any(|file| file.filename == IMAGE));
    }

    /// Restores one of the snapshots with the client.
    pub fn check_one_restore(&mut self) {
        let count = self.finished.len() as u64;
        let number = self.random.below(count) as usize;
        let Some(name) = self.finished.iter().nth(number) else {
            return;
        };
        let output = self
            .server
            .run("client", &["restore", name, "disk.img", "-"]);
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        assert_eq!(self.images[name], Digest::of(&output.stdout), "{name}");
    }

    /// After the next garbage collection nothing is in the datastore but what the snapshots need.
    pub fn check_no_garbage_stays(&mut self) {
        self.age_chunks();
        let said = self
            .server
            .ok("manager", &["garbage-collection", "start", "store1"])
            .unwrap();
        let listed = self.check();
        let (store, ns) = (self.open(), Namespace::root());
        // Garbage collection tries out access times with the chunk of zeros.
        let mut needed = BTreeSet::from([Digest::of(&vec![0; 4 << 20]).to_string()]);
        for name in &listed {
            let snapshot: Snapshot = name.parse().unwrap();
            let (manifest, _) = store.load_manifest(&ns, &snapshot).unwrap();
            for file in manifest
                .files
                .iter()
                .filter(|file| file.filename.ends_with("idx"))
            {
                let archive = file.filename.parse().unwrap();
                let index = store.load_index(&ns, &snapshot, &archive).unwrap();
                let digests = (0..index.chunk_count()).map(|n| index.digest(n).unwrap());
                needed.extend(digests.map(Digest::to_string));
            }
        }
        let left: BTreeSet<String> = self
            .chunk_files()
            .iter()
            .map(|file| file.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        let garbage: Vec<_> = left.difference(&needed).collect();
        assert!(garbage.is_empty(), "garbage stays: {garbage:?}\n{said}");
        let mut others = Vec::new();
        leftovers(&self.store(), &mut others);
        assert_eq!(others, Vec::<PathBuf>::new(), "leftovers stay");
    }
}

/// Takes what must be free, or soon be: the server may still be clearing up after what was cut off.
fn free<T>(what: &str, mut take: impl FnMut() -> Result<T, DatastoreError>) -> T {
    let start = Instant::now();
    loop {
        match take() {
            Ok(taken) => return taken,
            Err(DatastoreError::Locked { .. }) if start.elapsed() < Duration::from_secs(60) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => panic!("{what} is not free: {error}"),
        }
    }
}

/// Temporary files, half-removed snapshots and unfinished ones.
fn leftovers(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == ".chunks" {
            continue;
        }
        let is_snapshot = name.starts_with("20") && name.ends_with('Z');
        let is_half = is_snapshot && !path.join("index.json.blob").exists();
        if name.contains(".tmp_") || name.ends_with(".removed") || is_half {
            found.push(path);
        } else if path.is_dir() {
            leftovers(&path, found);
        }
    }
}
