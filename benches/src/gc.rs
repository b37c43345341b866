//! `bench gc`: garbage collection of datastores with many small chunks, beside one `utimensat` for each index entry, which is
//! what marking by access times costs.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use backstop_datastore::{Datastore, TaskLog};
use backstop_format::Digest;
use backstop_format::blob::DataBlob;
use backstop_format::index::{DynamicIndexBuilder, FixedIndexBuilder};
use backstop_types::{BackupTime, SyncLevel, Tuning};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use testbed::server::succeeded;

use crate::measure::Process;
use crate::options::Options;

/// Groups of each datastore, half of them with images, half with archives.
const GROUPS: usize = 10;
/// Of so many chunks of an archive one changes from one snapshot to the next.
const CHANGE: usize = 200;
/// Of so many chunks one is garbage.
const GARBAGE: usize = 100;
/// Calls by which the cost of `utimensat` is measured.
const SAMPLE: usize = 2_000_000;
/// Size of chunks as the indexes state it.
const CHUNK_SIZE: u64 = 4 << 20;

/// Runs the benchmark. Arguments: `--chunks N` with `--indexes N` instead of both sizes, `--dir DIR` for the data (default: in
/// memory), `--cold` to empty the kernel's caches before.
///
/// # Errors
///
/// When the data cannot be made or a collection fails.
pub fn run(arguments: &[String]) -> Result<()> {
    let options = Options::new(arguments);
    let sizes = match (options.value("--chunks")?, options.value("--indexes")?) {
        (None, None) => vec![(100_000, 100), (1_000_000, 1000)],
        (chunks, indexes) => vec![(chunks.unwrap_or(100_000), indexes.unwrap_or(100))],
    };
    println!(
        "{:>10}{:>9}{:>12}{:>10}{:>10}{:>10}{:>9}{:>16}{:>9}",
        "chunks",
        "indexes",
        "entries",
        "mark s",
        "sweep s",
        "total s",
        "MiB",
        "utimensat s",
        "factor"
    );
    for (chunks, indexes) in sizes {
        let dir = options.scratch(&[PathBuf::from("/dev/shm"), std::env::temp_dir()])?;
        let store = Store::build(dir.path(), chunks, indexes)?;
        let touching = store.touching()?;
        if options.is_set("--cold") {
            rustix::fs::sync();
            fs::write("/proc/sys/vm/drop_caches", "3").context("emptying the caches needs root")?;
        }
        let output = Command::new(std::env::current_exe()?)
            .arg("gc-run")
            .arg(dir.path())
            .output()?;
        let text = succeeded(&output)?;
        let numbers: Vec<f64> = text.split_whitespace().flat_map(str::parse).collect();
        let [mark, total, memory, removed] = numbers[..] else {
            bail!("no figures in {text:?}")
        };
        if removed as usize != store.garbage {
            bail!("{removed} chunks were removed instead of {}", store.garbage);
        }
        println!(
            "{:>10}{:>9}{:>12}{:>10.2}{:>10.2}{:>10.2}{:>9.0}{:>16.1}{:>9.1}",
            chunks,
            indexes,
            store.entries,
            mark,
            total - mark,
            total,
            memory / f64::from(1 << 20),
            touching.as_secs_f64(),
            touching.as_secs_f64() / total
        );
    }
    println!("utimensat: one call for each index entry, measured on at most {SAMPLE} of them");
    Ok(())
}

/// Collects the garbage of the datastore below `dir` and prints the times of both phases, peak memory and removed chunks.
///
/// # Errors
///
/// When that fails.
pub fn collect(dir: &Path) -> Result<()> {
    let tuning = Tuning {
        gc_atime_safety_check: false,
        sync_level: SyncLevel::None,
        ..Tuning::default()
    };
    let store = Datastore::open(
        &"store1".parse()?,
        &dir.join("store"),
        &dir.join("locks"),
        tuning,
    )?;
    let log = Phases {
        start: Instant::now(),
        sweep: std::sync::OnceLock::new(),
    };
    let status = store.collect_garbage(None, &log)?;
    let total = log.start.elapsed();
    println!(
        "{} {} {} {}",
        log.sweep.get().copied().unwrap_or_default().as_secs_f64(),
        total.as_secs_f64(),
        Process(std::process::id()).peak_memory(),
        status.removed_chunks
    );
    Ok(())
}

/// Notes when the second phase begins.
struct Phases {
    start: Instant,
    sweep: std::sync::OnceLock<Duration>,
}

impl TaskLog for Phases {
    fn info(&self, line: &str) {
        if line.starts_with("Start GC phase2") {
            let _ = self.sweep.set(self.start.elapsed());
        }
    }

    fn warn(&self, line: &str) {
        eprintln!("{line}");
    }
}

/// A datastore made for this.
struct Store {
    chunks: PathBuf,
    entries: usize,
    garbage: usize,
    /// Chunks in the order in which an index names them.
    sample: Vec<Digest>,
}

impl Store {
    /// Each group has a pool of chunks of its own. Its first snapshot names most of them in order; each later one replaces a few
    /// by others of the pool.
    fn build(dir: &Path, chunks: usize, indexes: usize) -> Result<Self> {
        let garbage = chunks / GARBAGE;
        let snapshots = (indexes / GROUPS).max(1);
        let pool = (chunks - garbage) / GROUPS;
        let slots = pool * CHANGE / (CHANGE + snapshots - 1);
        let store = dir.join("store");
        let chunk_dir = store.join(".chunks");
        fs::create_dir_all(&chunk_dir)?;
        for prefix in 0..=u16::MAX {
            fs::create_dir(chunk_dir.join(format!("{prefix:04x}")))?;
        }
        let digests: Vec<Digest> = (0..chunks as u64)
            .map(|number| Digest::of(&number.to_le_bytes()))
            .collect();
        let threads = std::thread::available_parallelism()?.get();
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..threads)
                .map(|thread| {
                    let (digests, chunk_dir) = (&digests, &chunk_dir);
                    scope.spawn(move || {
                        for (number, digest) in
                            digests.iter().enumerate().skip(thread).step_by(threads)
                        {
                            write_chunk(chunk_dir, number as u64, digest, number < garbage)?;
                        }
                        anyhow::Ok(())
                    })
                })
                .collect();
            writers
                .into_iter()
                .try_for_each(|writer| writer.join().unwrap_or_else(|_| bail!("a writer failed")))
        })?;
        let mut entries = 0;
        let mut sample = Vec::new();
        for group in 0..GROUPS {
            let first = garbage + group * pool;
            let pool = digests.get(first..first + pool).context("no pool")?;
            let is_image = group % 2 == 0;
            let mut current: Vec<Digest> = pool.iter().copied().take(slots).collect();
            let mut fresh = pool.iter().copied().skip(slots);
            for number in 0..snapshots {
                if number > 0 {
                    for slot in (number % CHANGE..slots).step_by(CHANGE) {
                        if let (Some(place), Some(digest)) = (current.get_mut(slot), fresh.next()) {
                            *place = digest;
                        }
                    }
                }
                let time = BackupTime::new(1_600_000_000 + number as i64 * 86_400)?;
                let (kind, file) = if is_image {
                    ("vm", "drive-scsi0.img.fidx")
                } else {
                    ("host", "root.pxar.didx")
                };
                let path = store.join(format!("{kind}/{group}/{time}"));
                fs::create_dir_all(&path)?;
                fs::write(path.join(file), index(&current, is_image)?)?;
                entries += current.len();
                if sample.len() < SAMPLE {
                    sample.extend(&current);
                }
            }
        }
        sample.truncate(SAMPLE);
        Ok(Store {
            chunks: chunk_dir,
            entries,
            garbage,
            sample,
        })
    }

    /// What one `utimensat` for each index entry takes.
    fn touching(&self) -> Result<Duration> {
        let now = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_NOW,
            },
            last_modification: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
        };
        let start = Instant::now();
        for digest in &self.sample {
            let path = chunk_path(&self.chunks, digest);
            rustix::fs::utimensat(CWD, &path, &now, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let factor = self.entries as f64 / self.sample.len().max(1) as f64;
        Ok(start.elapsed().mul_f64(factor))
    }
}

fn chunk_path(chunks: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    let mut path = chunks.join(name.get(..4).unwrap_or_default());
    path.push(name);
    path
}

fn write_chunk(chunks: &Path, number: u64, digest: &Digest, old: bool) -> Result<()> {
    let blob = DataBlob::encode(&number.to_le_bytes(), None, false)?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(chunk_path(chunks, digest))?;
    file.write_all(blob.raw())?;
    if old {
        let long_ago = Timespec {
            tv_sec: 1_000_000_000,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: long_ago,
            last_modification: long_ago,
        };
        rustix::fs::futimens(&file, &times)?;
    }
    Ok(())
}

fn index(digests: &[Digest], is_image: bool) -> Result<Vec<u8>> {
    if is_image {
        let size = digests.len() as u64 * CHUNK_SIZE;
        let mut builder = FixedIndexBuilder::new(Some(size), CHUNK_SIZE)?;
        for (slot, digest) in digests.iter().enumerate() {
            builder.add(slot as u64 * CHUNK_SIZE, CHUNK_SIZE, digest)?;
        }
        Ok(builder.finish()?.0)
    } else {
        let mut builder = DynamicIndexBuilder::new();
        for digest in digests {
            builder.append(CHUNK_SIZE, digest)?;
        }
        Ok(builder.finish()?.0)
    }
}
