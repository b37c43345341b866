//! Images as block devices: an image is mounted on a file, which a loop device shows.
//!
//! The files lie in one directory, named after what is mapped, where stock clients find those of this one and the reverse:
//! `‹escaped name›` is what the loop device shows, `‹escaped name without extension›.pid` names the process that serves it. That
//! process holds a lock on the latter. Never ends a process that serves no image.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backstop_format::read_at::ReadAt;
use rustix::fs::{FlockOperation, flock};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::loop_device::LoopDevice;
use super::mounted::{MountError, MountedArchive, check_device, mount_image};
use super::unit_name;

/// How long a process may take to end its mapping.
const END_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// How often the file of a process that just ends is opened again.
const LOCK_ATTEMPTS: usize = 16;

/// Why an image is not mapped, or not unmapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The image could not be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// It is mapped.
    #[error("the given archive is already mapped, cannot map twice")]
    Mapped,
    /// Reading the image failed.
    #[error("unable to read the image - {0}")]
    Unreadable(io::Error),
    /// A file of the mapping.
    #[error("unable to {attempt} {path:?} - {source}{}", rights(.source))]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no loop device to be had.
    #[error("unable to assign a loop device - {source}{}", loop_advice(.source))]
    Loop {
        /// What the system said.
        source: io::Error,
    },
    /// The device shows something else.
    #[error("loopdev {device:?} is in use, but not by this client (mapped to {backing:?})")]
    ForeignDevice {
        /// The device.
        device: PathBuf,
        /// What it shows.
        backing: PathBuf,
    },
    /// The device shows nothing.
    #[error("nothing mapped to {0:?}")]
    NothingAt(PathBuf),
    /// There is no mapping of that name.
    #[error("no mapping for name '{0}' found")]
    Unknown(String),
    /// There are several.
    #[error("several mappings end in '{name}', name one of them wholly: {}", .found.join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// What ends so.
        found: Vec<String>,
    },
    /// The process that serves a mapping does not end.
    #[error("timed out waiting for PID '{0}' to exit; is the device in use?")]
    StillRunning(i32),
    /// The process that serves a mapping is not ours.
    #[error("unable to end process {pid}, which serves the mapping - {source}")]
    Process {
        /// The process.
        pid: i32,
        /// What the system said.
        source: io::Error,
    },
}

fn rights(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; mapping needs root",
        _ => "",
    }
}

fn loop_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; load the kernel module ('modprobe loop'), or give the container /dev/loop-control and loop devices"
        }
        io::ErrorKind::PermissionDenied => "; mapping needs root",
        _ => "",
    }
}

fn no_loop(source: io::Error) -> MapError {
    MapError::Loop { source }
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MapError {
    let path = path.to_owned();
    move |source| MapError::File {
        attempt,
        path,
        source,
    }
}

/// The mappings of this machine.
#[derive(Clone, Debug)]
pub struct Mappings {
    dir: PathBuf,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// What is mapped.
    pub name: String,
    /// The device, unless it was taken away.
    pub device: Option<LoopDevice>,
    file: PathBuf,
}

impl Mapping {
    fn process_file(&self) -> PathBuf {
        self.file.with_extension("pid")
    }
}

impl Mappings {
    /// Those whose files are in this directory, which need not exist.
    pub fn in_directory(dir: PathBuf) -> Self {
        let dir = dir.canonicalize().unwrap_or(dir);
        Self { dir }
    }

    /// All that are served, and those whose process has died.
    ///
    /// # Errors
    /// The directory or the devices cannot be listed.
    pub fn list(&self) -> Result<Vec<Mapping>, MapError> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed("list", &self.dir))?,
        };
        let devices = LoopDevice::assigned().map_err(no_loop)?;
        let mut found = Vec::new();
        for entry in entries {
            let file = entry.map_err(failed("list", &self.dir))?.path();
            let Some(name) = file.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if name.ends_with(".pid") {
                continue;
            }
            let device = devices.iter().find(|(_, backing)| *backing == file);
            found.push(Mapping {
                name: unit_name::unescape(name),
                device: device.map(|(device, _)| *device),
                file,
            });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Removes what processes that died have left. Returns the names; what cannot be removed stays.
    ///
    /// # Errors
    /// The mappings cannot be listed.
    pub fn clean(&self) -> Result<Vec<String>, MapError> {
        let mut cleaned = Vec::new();
        for mapping in self.list()? {
            if let Some(_lock) = ProcessFile::take(&mapping.process_file())?
                && remove_remains(&mapping).is_ok()
            {
                cleaned.push(mapping.name);
            }
        }
        Ok(cleaned)
    }

    /// Maps an image under a name.
    ///
    /// # Errors
    /// It is mapped already, cannot be read, or this system or user has no FUSE or no loop devices.
    pub fn map<R>(&self, image: R, name: &str) -> Result<MappedImage, MapError>
    where
        R: ReadAt + Send + Sync + 'static,
    {
        check_device()?;
        if image.size() > 0 {
            image.read_at(&mut [0], 0).map_err(MapError::Unreadable)?;
        }
        std::fs::create_dir_all(&self.dir).map_err(failed("create", &self.dir))?;
        let dir = self
            .dir
            .canonicalize()
            .map_err(failed("look at", &self.dir))?;
        let file = dir.join(unit_name::escape(name));
        let mapping = Mapping {
            name: name.to_owned(),
            device: None,
            file: file.clone(),
        };
        let mut process = ProcessFile::take(&mapping.process_file())?.ok_or(MapError::Mapped)?;
        process.fill()?;
        remove_remains(&mapping)?;
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .map_err(failed("create", &file))?;
        let mut mapped = MappedImage {
            mounted: None,
            device: None,
            file,
            _process: process,
        };
        mapped.mounted = Some(mount_image(image, &mapped.file, name)?);
        let backing = File::open(&mapped.file).map_err(failed("open", &mapped.file))?;
        mapped.device = Some(LoopDevice::assign(&backing).map_err(no_loop)?);
        Ok(mapped)
    }

    /// Ends a mapping, which is named by the number or path of its device, or by its name or the end of that.
    ///
    /// # Errors
    /// There is none, there are several, or its process does not end.
    pub fn unmap(&self, which: &str) -> Result<(), MapError> {
        let device = match which.parse() {
            Ok(number) => Some(LoopDevice::number(number)),
            Err(_) => LoopDevice::at(which),
        };
        let mapping = match device {
            Some(device) => self.at_device(device)?,
            None => self.named(which)?,
        };
        let process_file = mapping.process_file();
        let Some(pid) = serving_process(&process_file) else {
            if let Some(_lock) = ProcessFile::take(&process_file)? {
                return remove_remains(&mapping);
            }
            return Err(MapError::Unknown(which.to_owned()));
        };
        let number = pid.as_raw_nonzero().get();
        let process = |error: rustix::io::Errno| MapError::Process {
            pid: number,
            source: error.into(),
        };
        match kill_process(pid, Signal::INT) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            other => other.map_err(process)?,
        }
        let start = Instant::now();
        while test_kill_process(pid).is_ok() && process_file.exists() {
            if start.elapsed() > END_LIMIT {
                return Err(MapError::StillRunning(number));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn at_device(&self, device: LoopDevice) -> Result<Mapping, MapError> {
        let backing = device.backing_file().ok().flatten();
        let backing = backing.ok_or_else(|| MapError::NothingAt(device.path()))?;
        let name = backing
            .strip_prefix(&self.dir)
            .ok()
            .and_then(Path::to_str)
            .map(unit_name::unescape);
        match name {
            Some(name) => Ok(Mapping {
                name,
                device: Some(device),
                file: backing,
            }),
            None => Err(MapError::ForeignDevice {
                device: device.path(),
                backing,
            }),
        }
    }

    fn named(&self, name: &str) -> Result<Mapping, MapError> {
        let all = self.list()?;
        if let Some(exact) = all.iter().find(|mapping| mapping.name == name) {
            return Ok(exact.clone());
        }
        let mut ending: Vec<Mapping> = all
            .into_iter()
            .filter(|mapping| mapping.name.ends_with(name))
            .collect();
        if ending.len() > 1 {
            return Err(MapError::Ambiguous {
                name: name.to_owned(),
                found: ending.into_iter().map(|mapping| mapping.name).collect(),
            });
        }
        ending
            .pop()
            .ok_or_else(|| MapError::Unknown(name.to_owned()))
    }
}

/// Removes what is left of a mapping whose process file the caller holds.
fn remove_remains(mapping: &Mapping) -> Result<(), MapError> {
    for (device, backing) in LoopDevice::assigned().map_err(no_loop)? {
        if backing == mapping.file {
            device.clear().map_err(no_loop)?;
        }
    }
    // Fails where nothing is mounted, which is what is wanted.
    while rustix::mount::unmount(&mapping.file, UnmountFlags::DETACH).is_ok() {}
    match std::fs::remove_file(&mapping.file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", &mapping.file)(error))
        }
        _ => Ok(()),
    }
}

/// The process that a process file names, if it lives and serves a file system.
fn serving_process(path: &Path) -> Option<Pid> {
    let number: i32 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    let pid = Pid::from_raw(number)?;
    // The number may have been given to another process meanwhile.
    let serves = std::fs::read_dir(format!("/proc/{number}/fd"))
        .ok()?
        .flatten()
        .any(|entry| {
            std::fs::read_link(entry.path()).is_ok_and(|target| target == Path::new("/dev/fuse"))
        });
    serves.then_some(pid)
}

/// The locked file that names this process; dropping it removes it.
struct ProcessFile {
    file: File,
    path: PathBuf,
}

impl ProcessFile {
    /// Takes the file, unless a process that serves a mapping has it.
    fn take(path: &Path) -> Result<Option<Self>, MapError> {
        for _ in 0..LOCK_ATTEMPTS {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(path)
                .map_err(failed("open", path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(failed("lock", path)(error.into())),
            }
            let held = file.metadata().map_err(failed("look at", path))?;
            match std::fs::metadata(path) {
                // A stock client holds no lock.
                Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                    return Ok(serving_process(path).is_none().then(|| Self {
                        file,
                        path: path.to_owned(),
                    }));
                }
                // Its last holder has removed it.
                _ => {}
            }
        }
        Ok(None)
    }

    fn fill(&mut self) -> Result<(), MapError> {
        self.file
            .set_len(0)
            .and_then(|()| write!(self.file, "{}", std::process::id()))
            .map_err(failed("write", &self.path))
    }
}

impl Drop for ProcessFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("unable to remove {:?} - {error}", self.path);
        }
    }
}

/// An image that is mapped; dropping this ends the mapping.
pub struct MappedImage {
    mounted: Option<MountedArchive>,
    device: Option<LoopDevice>,
    file: PathBuf,
    _process: ProcessFile,
}

impl MappedImage {
    /// The device that shows it.
    pub fn device(&self) -> Option<LoopDevice> {
        self.device
    }

    /// Waits until somebody unmounts the file.
    ///
    /// # Errors
    /// It ended otherwise.
    pub async fn ended(&mut self) -> Result<(), MapError> {
        match &mut self.mounted {
            Some(mounted) => Ok(mounted.ended().await?),
            None => Ok(()),
        }
    }
}

impl Drop for MappedImage {
    fn drop(&mut self) {
        if let Some(device) = self.device
            && device.backing_file().ok().flatten().as_deref() == Some(&self.file)
            && let Err(error) = device.clear()
        {
            tracing::warn!("unable to free {:?} - {error}", device.path());
        }
        drop(self.mounted.take());
        if let Err(error) = std::fs::remove_file(&self.file) {
            tracing::warn!("unable to remove {:?} - {error}", self.file);
        }
    }
}
