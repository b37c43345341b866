//! The guard: keeps the hook in the configuration of all backup jobs of a node and its cluster.
//!
//! It adds the hook where none is set, and changes nothing else, not a byte. Where another script is set it says so and leaves it,
//! unless that one calls the hook itself ([`own_script`]). It writes nothing to the file system of the cluster while that is
//! read-only (no quorum), and nothing at all while the hook itself is not there to be run: a job whose hook is missing fails. A file
//! that it cannot read or write keeps it from no other one.

mod cluster_file;
mod edit;
mod own_script;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cluster_file::{ClusterLock, behind_links, is_executable, is_read_only, replace};
pub use edit::{Edited, Form, Wanted};

/// What to keep where.
#[derive(Debug, Clone)]
pub struct Guard {
    /// What stands before all paths; `/` but for tests.
    pub root: PathBuf,
    /// The path of the hook as `vzdump` is told of it.
    pub script: String,
    /// Whether other scripts are replaced by the hook.
    pub replace: bool,
}

/// Why the guard could do nothing.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Jobs would fail.
    #[error(
        "{0:?} is not there or cannot be executed; backup jobs that named it would fail, so that nothing was changed"
    )]
    NoHook(PathBuf),
    /// The path cannot stand in the files.
    #[error(
        "'{0}' cannot be the path of a hook; it has to begin with / and to be free of white space and quotes"
    )]
    Script(String),
    /// There is no quorum.
    #[error(
        "{path:?} was not changed, as {cluster:?} is read-only, which it is while the cluster has no quorum"
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// Where the file system of the cluster is.
        cluster: PathBuf,
    },
    /// A file cannot be used.
    #[error("unable to {action} {path:?} - {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// What the guard found in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, without the root.
    pub path: PathBuf,
    /// In how many places the hook was missing, or was removed.
    pub changes: usize,
    /// Other scripts that are set.
    pub foreign: Vec<String>,
}

/// What the guard found in all files.
#[derive(Debug, Default)]
pub struct Report {
    /// The files that are there, in their order.
    pub findings: Vec<Finding>,
    /// Why others could not be looked at or changed.
    pub errors: Vec<GuardError>,
}

/// A file that names scripts of jobs.
struct Guarded {
    path: &'static str,
    form: Form,
    /// The name of its lock in the cluster.
    lock: Option<&'static str>,
}

const FILES: [Guarded; 3] = [
    Guarded {
        path: "etc/pve/jobs.cfg",
        form: Form::Jobs,
        lock: Some("file-jobs_cfg"),
    },
    Guarded {
        path: "etc/pve/vzdump.cron",
        form: Form::Cron,
        lock: Some("file-vzdump_cron"),
    },
    Guarded {
        path: "etc/vzdump.conf",
        form: Form::Defaults,
        lock: None,
    },
];

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
}

impl Guard {
    /// Looks at all files without changing any.
    ///
    /// # Errors
    /// When the hook's path makes no sense.
    pub fn check(&self) -> Result<Report, GuardError> {
        self.check_script()?;
        Ok(self.each_file(|file| self.edited(file, Change::Add)))
    }

    /// Adds the hook wherever it is missing; what is found is what was found before.
    ///
    /// # Errors
    /// When the hook's path makes no sense, or the hook is missing and needed.
    pub fn keep(&self) -> Result<Report, GuardError> {
        let report = self.check()?;
        if report.findings.iter().all(|finding| finding.changes == 0) {
            return Ok(report);
        }
        let hook = self.below_root(OsStr::new(&self.script));
        if !is_executable(&hook) {
            return Err(GuardError::NoHook(hook));
        }
        Ok(self.each_file(|file| self.change(file, Change::Add)))
    }

    /// Removes the hook wherever it is set, so that its program may go. Other scripts stay.
    ///
    /// # Errors
    /// When the hook's path makes no sense.
    pub fn remove(&self) -> Result<Report, GuardError> {
        self.check_script()?;
        Ok(self.each_file(|file| self.change(file, Change::Remove)))
    }

    fn each_file(&self, look: impl Fn(&Guarded) -> Result<Option<Edited>, GuardError>) -> Report {
        let mut report = Report::default();
        for file in &FILES {
            match look(file) {
                Ok(None) => {}
                Ok(Some(edited)) => report.findings.push(Finding {
                    path: Path::new("/").join(file.path),
                    changes: edited.changes,
                    foreign: edited.foreign,
                }),
                Err(err) => report.errors.push(err),
            }
        }
        report
    }

    fn below_root(&self, path: &OsStr) -> PathBuf {
        let path = Path::new(path);
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Where a file is, which may be a link to it.
    fn path(&self, file: &Guarded) -> Result<PathBuf, GuardError> {
        let path = self.root.join(file.path);
        behind_links(&self.root, path.clone()).map_err(|source| GuardError::Io {
            action: "follow the link",
            path,
            source,
        })
    }

    fn check_script(&self) -> Result<(), GuardError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
        if self.script.starts_with('/') && self.script.chars().all(is_plain) {
            Ok(())
        } else {
            Err(GuardError::Script(self.script.escape_debug().to_string()))
        }
    }

    /// What a file should be; `None` for one that is not there and not needed.
    fn edited(&self, file: &Guarded, change: Change) -> Result<Option<Edited>, GuardError> {
        let path = self.path(file)?;
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                if file.form != Form::Defaults || change == Change::Remove {
                    return Ok(None);
                }
                Vec::new()
            }
            Err(source) => {
                return Err(GuardError::Io {
                    action: "read",
                    path,
                    source,
                });
            }
        };
        let hook = self.below_root(OsStr::new(&self.script));
        Ok(Some(match change {
            Change::Remove => file.form.without(&text, &self.script),
            Change::Add => file.form.edit(
                &text,
                &Wanted {
                    script: &self.script,
                    replace: self.replace,
                    is_as_good: &|other| {
                        own_script::tells(&self.below_root(OsStr::from_bytes(other)), &hook)
                    },
                },
            ),
        }))
    }

    /// Makes a file what it should be, if it is not, and tells what it was found to be.
    fn change(&self, file: &Guarded, change: Change) -> Result<Option<Edited>, GuardError> {
        let found = self.edited(file, change)?;
        if found.as_ref().is_none_or(|found| found.changes == 0) {
            return Ok(found);
        }
        let path = self.path(file)?;
        let pve = self.root.join("etc/pve");
        let read_only = || GuardError::ReadOnly {
            path: path.clone(),
            cluster: pve.clone(),
        };
        if file.lock.is_some() && is_read_only(&pve) {
            return Err(read_only());
        }
        let failed = |source: std::io::Error| match source.raw_os_error() {
            // How the file system of the cluster says that it has no quorum.
            Some(libc_errno::EACCES | libc_errno::EROFS) if file.lock.is_some() => read_only(),
            _ => GuardError::Io {
                action: "write",
                path: path.clone(),
                source,
            },
        };
        let _lock = match file.lock {
            Some(name) => ClusterLock::take(&pve.join("priv/lock"), name).map_err(failed)?,
            None => None,
        };
        // Somebody may have changed it meanwhile.
        let Some(edited) = self.edited(file, change)? else {
            return Ok(None);
        };
        if edited.changes > 0 {
            replace(&path, &edited.text).map_err(failed)?;
        }
        Ok(Some(edited))
    }
}

/// The two error numbers, which are the same on all Linux systems.
mod libc_errno {
    pub const EACCES: i32 = 13;
    pub const EROFS: i32 = 30;
}
