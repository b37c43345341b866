//! Where the server keeps its files: the stock paths, below an optional prefix.
//!
//! Holds paths only; it never touches the disk, except in [`Roots::create_directories`].

use std::io;
use std::path::{Path, PathBuf};

use backstop_datastore::ownership;

/// The directories of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    prefix: PathBuf,
}

impl Roots {
    /// The stock paths (`/etc/proxmox-backup` and so on), as they are.
    pub fn system() -> Self {
        Self {
            prefix: PathBuf::from("/"),
        }
    }

    /// Every stock path below `prefix`: `PREFIX/etc/proxmox-backup` and so on.
    pub fn below(prefix: impl Into<PathBuf>) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    /// The prefix itself, `/` for a system installation.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Configuration: `etc/proxmox-backup`.
    pub fn etc(&self) -> PathBuf {
        self.prefix.join("etc/proxmox-backup")
    }

    /// State that outlives a restart: `var/lib/proxmox-backup`.
    pub fn var_lib(&self) -> PathBuf {
        self.prefix.join("var/lib/proxmox-backup")
    }

    /// Logs: `var/log/proxmox-backup`.
    pub fn var_log(&self) -> PathBuf {
        self.prefix.join("var/log/proxmox-backup")
    }

    /// State of the running server: `run/proxmox-backup`.
    pub fn run(&self) -> PathBuf {
        self.prefix.join("run/proxmox-backup")
    }

    /// Task logs and task lists: `var/log/proxmox-backup/tasks`.
    pub fn task_logs(&self) -> PathBuf {
        self.var_log().join("tasks")
    }

    /// Access log and authentication log: `var/log/proxmox-backup/api`.
    pub fn api_logs(&self) -> PathBuf {
        self.var_log().join("api")
    }

    /// When jobs ran last: `var/lib/proxmox-backup/jobstates`.
    pub fn job_states(&self) -> PathBuf {
        self.var_lib().join("jobstates")
    }

    /// Pushes that have not arrived yet: `var/lib/proxmox-backup/backstop-heartbeats`.
    pub fn heartbeats(&self) -> PathBuf {
        self.var_lib().join("backstop-heartbeats")
    }

    /// Lock files of snapshots, groups and manifests: `run/proxmox-backup/locks`.
    pub fn locks(&self) -> PathBuf {
        self.run().join("locks")
    }

    /// Creates the folder of the state files of jobs, and what it lies in, if that is missing; returns what was created, parents
    /// first. Each belongs to the owner of the directory that it is in.
    ///
    /// # Errors
    /// The first directory that cannot be created, named in the error.
    pub fn create_job_states(&self) -> io::Result<Vec<PathBuf>> {
        let folders = [self.var_lib(), self.job_states()];
        let missing = folders.into_iter().filter(|path| !path.is_dir());
        let missing: Vec<PathBuf> = missing.collect();
        for path in &missing {
            ownership::create_dir_all(path, 0o755).map_err(|err| named(path, &err))?;
        }
        Ok(missing)
    }

    /// Creates what is missing, with the modes that a stock server uses, each for the owner of the directory that it is in.
    ///
    /// # Errors
    /// The first directory that cannot be created, named in the error.
    pub fn create_directories(&self) -> io::Result<()> {
        let wanted: [(PathBuf, u32); 9] = [
            (self.etc(), 0o700),
            (self.var_lib(), 0o755),
            (self.job_states(), 0o755),
            (self.var_log(), 0o755),
            (self.api_logs(), 0o755),
            (self.task_logs(), 0o755),
            (self.run(), 0o755),
            (self.locks(), 0o755),
            (self.run().join("shmem"), 0o755),
        ];
        for (path, mode) in wanted {
            if path.is_dir() {
                continue;
            }
            if let Some(parent) = path.parent() {
                ownership::create_dir_all(parent, 0o755).map_err(|err| named(parent, &err))?;
            }
            ownership::create_dir_all(&path, mode).map_err(|err| named(&path, &err))?;
        }
        Ok(())
    }
}

fn named(path: &Path, err: &io::Error) -> io::Error {
    io::Error::new(
        err.kind(),
        format!("unable to create directory {path:?} - {err}"),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_prefix_goes_before_every_stock_path() {
        let roots = Roots::below("/tmp/x");
        assert_eq!(roots.etc(), Path::new("/tmp/x/etc/proxmox-backup"));
        assert_eq!(roots.locks(), Path::new("/tmp/x/run/proxmox-backup/locks"));
        assert_eq!(Roots::system().etc(), Path::new("/etc/proxmox-backup"));
    }

    #[test]
    fn the_configuration_directory_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        roots.create_directories().unwrap();
        roots.create_directories().unwrap();
        let mode = std::fs::metadata(roots.etc()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(roots.locks().is_dir());
    }
}
