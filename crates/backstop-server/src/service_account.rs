//! As whom the server runs: the owner of its configuration directory. A server that was started as root becomes that user
//! before it does anything else; what it will need from root is prepared here.
//!
//! Must never run on threads: the drop of privileges is for the whole process, and whatever was started before would keep them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Gid, Uid};

use crate::privileged_helper::{self, hand_over};
use crate::roots::Roots;

/// The account that stock installations use.
const STOCK_NAME: &str = "backup";
/// A user of this system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its name, when the system knows one.
    pub name: Option<String>,
    /// The number of the user.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// The numbers of the other groups that it is in.
    groups: Vec<u32>,
}

impl ServiceAccount {
    /// Whether it is root.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// The account that the server of this installation runs as, if it is started by root: the owner of the configuration
    /// directory. Where there is none yet, on the stock paths the user `backup` if there is one, and below a prefix of one's
    /// own the owner of that prefix.
    ///
    /// # Errors
    /// When the directory or the system's list of users cannot be read.
    pub fn of_installation(roots: &Roots) -> io::Result<Self> {
        let etc = roots.etc();
        let owner = match fs::metadata(&etc) {
            Ok(found) => (found.uid(), found.gid()),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                if roots.prefix() == Path::new("/") {
                    match Self::named(STOCK_NAME)? {
                        Some(account) => return Ok(account),
                        None => (0, 0),
                    }
                } else {
                    match fs::metadata(roots.prefix()) {
                        Ok(found) => (found.uid(), found.gid()),
                        Err(err) if err.kind() == io::ErrorKind::NotFound => (0, 0),
                        Err(err) => return Err(named(roots.prefix(), &err)),
                    }
                }
            }
            Err(err) => return Err(named(&etc, &err)),
        };
        Self::numbered(owner)
    }

    fn named(name: &str) -> io::Result<Option<Self>> {
        let users = Users::read()?;
        let account = users.find(|fields| fields.first() == Some(&name));
        Ok(account.map(|(name, uid, gid)| users.account(Some(name), uid, gid)))
    }

    /// The account of a user; one that the system does not know by name has the group alone.
    fn numbered((uid, gid): (u32, u32)) -> io::Result<Self> {
        let users = Users::read()?;
        let id = uid.to_string();
        Ok(match users.find(|fields| fields.get(2) == Some(&&*id)) {
            Some((name, uid, gid)) => users.account(Some(name), uid, gid),
            None => users.account(None, uid, gid),
        })
    }

    /// Makes the directories of an installation, as root, and gives to this account what root has in them: a stock server keeps
    /// some files for root alone. It reads them as root, so that it goes on working when it gets the installation back.
    ///
    /// # Errors
    /// When a directory cannot be made or something cannot be given away.
    pub fn prepare(&self, roots: &Roots) -> io::Result<()> {
        roots.create_directories()?;
        if self.is_root() {
            return Ok(());
        }
        // How many levels of directories below each are looked at. Logs of single tasks lie deeper: there are very many of them,
        // and those that root wrote belong to the owner of their directory already.
        for (top, depth) in [
            (roots.etc(), 4),
            (roots.var_lib(), 4),
            (roots.var_log(), 2),
            (roots.run(), 4),
        ] {
            hand_over(&top, depth, self.uid, self.gid)?;
        }
        Ok(())
    }

    /// Makes this process one of this account, for good.
    ///
    /// # Errors
    /// When there are threads already, or the system refuses. The process must end then.
    pub fn become_it(&self) -> io::Result<()> {
        if fs::read_dir("/proc/self/task")?.count() != 1 {
            return Err(io::Error::other(
                "unable to give up the privileges of root - there are several threads already",
            ));
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        rustix::thread::set_thread_groups(&groups)
            .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
            .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
            .map_err(|err| {
                let err = io::Error::from(err);
                io::Error::new(err.kind(), format!("unable to become {self} - {err}"))
            })?;
        let root = Uid::ROOT;
        if rustix::thread::set_thread_res_uid(root, root, root).is_ok() && !self.is_root() {
            return Err(io::Error::other(format!(
                "unable to become {self} - the system gave the privileges of root back"
            )));
        }
        Ok(())
    }
}

impl std::fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "user {name}"),
            None => write!(f, "user number {}", self.uid),
        }
    }
}

/// Makes the directories of an installation that has none yet. Root gives them to the account that the server will run as.
///
/// # Errors
/// When that cannot be done.
pub fn create_installation(roots: &Roots) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        ServiceAccount::of_installation(roots)?.prepare(roots)
    } else {
        roots.create_directories()
    }
}

/// Makes the folder of the state files of jobs where an installation has lost it. Root gives it to the account that the server
/// runs as.
///
/// # Errors
/// When that cannot be done.
pub fn create_job_states(roots: &Roots) -> io::Result<()> {
    let made = roots.create_job_states()?;
    if made.is_empty() || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let account = ServiceAccount::of_installation(roots)?;
    for path in made {
        let (user, group) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
        rustix::fs::chown(&path, Some(user), Some(group))
            .map_err(|err| named(&path, &err.into()))?;
    }
    Ok(())
}

/// Makes the directory of a datastore before root makes the datastore, so that it belongs to the account that the server runs as.
/// Does nothing for anybody but root, and nothing where the server runs as root; what cannot be made is left to the datastore.
pub fn make_directory(roots: &Roots, path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if let Ok(account) = ServiceAccount::of_installation(roots)
        && !account.is_root()
        && let Err(err) = privileged_helper::make_directory(path, account.uid, account.gid)
    {
        tracing::warn!("{err}");
    }
}

/// The name of a user of this system; `None` when it has none.
pub(crate) fn name_of(uid: u32) -> Option<String> {
    ServiceAccount::numbered((uid, 0)).ok()?.name
}

/// The system's lists of users and groups.
struct Users {
    passwd: String,
    group: String,
}

impl Users {
    fn read() -> io::Result<Self> {
        let read = |path: &str| match fs::read(path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(err) => Err(named(Path::new(path), &err)),
        };
        Ok(Self {
            passwd: read("/etc/passwd")?,
            group: read("/etc/group")?,
        })
    }

    /// The first user that fits: name, number, group.
    fn find(&self, fits: impl Fn(&[&str]) -> bool) -> Option<(String, u32, u32)> {
        self.passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let ids = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
            fits(&fields).then(|| (fields.first().unwrap_or(&"").to_string(), ids.0, ids.1))
        })
    }

    fn account(&self, name: Option<String>, uid: u32, gid: u32) -> ServiceAccount {
        let mut groups = vec![gid];
        for line in self.group.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let is_member =
                |members: &&str| members.split(',').any(|one| Some(one) == name.as_deref());
            if let (Some(id), Some(_)) = (
                fields.get(2).and_then(|id| id.parse().ok()),
                fields.get(3).filter(|members| is_member(members)),
            ) && !groups.contains(&id)
            {
                groups.push(id);
            }
        }
        ServiceAccount {
            name,
            uid,
            gid,
            groups,
        }
    }
}

fn named(path: &Path, err: &io::Error) -> io::Error {
    io::Error::new(err.kind(), format!("unable to look at {path:?} - {err}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::os::unix::fs::chown;

    #[test]
    fn the_owner_of_the_configuration_counts_and_before_there_is_one_that_of_the_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        let own = fs::metadata(dir.path()).unwrap().uid();
        assert_eq!(ServiceAccount::of_installation(&roots).unwrap().uid, own);
        let absent = Roots::below(dir.path().join("absent"));
        assert!(ServiceAccount::of_installation(&absent).unwrap().is_root());
        if !rustix::process::geteuid().is_root() {
            println!("skipped: not root (ownership)");
            return;
        }
        chown(dir.path(), Some(1234), Some(2345)).unwrap();
        let account = ServiceAccount::of_installation(&roots).unwrap();
        assert_eq!((account.uid, account.gid), (1234, 2345));
        create_installation(&roots).unwrap();
        let etc = fs::metadata(roots.etc()).unwrap();
        assert_eq!((etc.uid(), etc.gid()), (1234, 2345));
        chown(dir.path(), Some(0), Some(0)).unwrap();
        assert_eq!(ServiceAccount::of_installation(&roots).unwrap().uid, 1234);
    }

    #[test]
    fn an_account_has_all_its_groups() {
        let users = Users {
            passwd: "root:x:0:0::/root:/bin/sh\nbackup:x:34:34:backup:/var/backups:/x\n".into(),
            group: "root:x:0:\nbackup:x:34:\ntape:x:26:other,backup\nnot:x:27:backups\n".into(),
        };
        let (name, uid, gid) = users
            .find(|fields| fields.first() == Some(&"backup"))
            .unwrap();
        let account = users.account(Some(name), uid, gid);
        assert_eq!((account.uid, account.gid), (34, 34));
        assert_eq!(account.groups, [34, 26]);
        assert_eq!(account.to_string(), "user backup");
    }

    #[test]
    fn a_process_with_threads_does_not_give_up_half_of_its_privileges() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || receiver.recv());
        let account = ServiceAccount::of_installation(&Roots::below("/nonexistent")).unwrap();
        let err = account.become_it().unwrap_err();
        assert!(err.to_string().contains("several threads"), "{err}");
        drop(sender);
        let _ = thread.join();
    }
}
