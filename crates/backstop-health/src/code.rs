//! The stable words for states and for what is checked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How bad something is; the order is that of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It cannot be told.
    Unknown,
    /// Somebody should look at it soon.
    Warning,
    /// Somebody should look at it now.
    Critical,
}

impl State {
    /// All, the worst first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::Warning, Self::Unknown, Self::Ok];

    /// Whether somebody has to look at it.
    pub const fn is_bad(self) -> bool {
        !matches!(self, Self::Ok)
    }

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| {
            format!("'{text}' is no state; there are ok, unknown, warning and critical")
        })
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What is checked. The words never change their meaning: `docs/health.md` explains each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// A configuration file cannot be read, so that what it holds is not done.
    ConfigUnreadable = "config-unreadable",
    /// The last run of a job failed, or ended with warnings.
    JobFailed = "job-failed",
    /// A job was not started when its schedule said so.
    JobLate = "job-late",
    /// A job runs for far longer than it usually does.
    JobSlow = "job-slow",
    /// A job with a schedule never ran.
    JobNeverRan = "job-never-ran",
    /// The newest backup of a group is too old, or there is none.
    BackupStale = "backup-stale",
    /// The newest backup of a group has shrunk or grown beyond reason.
    BackupSize = "backup-size",
    /// Verification has found damage in backups of a group.
    BackupVerifyFailed = "backup-verify-failed",
    /// A group, or a whole datastore, is not there any more, and nobody has removed it through this server.
    BackupGone = "backup-gone",
    /// The manifest of a backup, or the owner of a group, cannot be read.
    BackupUnreadable = "backup-unreadable",
    /// Backups of a group were not verified for too long.
    BackupVerifyOld = "backup-verify-old",
    /// The file system of a datastore is gone, failing or hanging.
    DatastoreUnavailable = "datastore-unavailable",
    /// The groups of a datastore were not looked at for too long.
    DatastoreListing = "datastore-listing",
    /// A maintenance mode closes a datastore.
    DatastoreMaintenance = "datastore-maintenance",
    /// A datastore is full, or will be soon.
    DatastoreFilling = "datastore-filling",
    /// A datastore holds corrupt chunks.
    DatastoreCorrupt = "datastore-corrupt",
    /// Garbage was not collected for too long.
    GcOverdue = "gc-overdue",
    /// A certificate ends soon, or has ended.
    CertificateExpiring = "certificate-expiring",
    /// A remote shows another certificate than the one that is expected of it.
    CertificateChanged = "certificate-changed",
    /// A remote cannot be reached, so that nothing is known of its certificate.
    RemoteUnreachable = "remote-unreachable",
    /// A sync job meets groups of another owner.
    OwnerCollision = "owner-collision",
    /// Several sync jobs write to the same place from different sources.
    TargetCollision = "target-collision",
    /// The clock of the host has jumped.
    ClockJump = "clock-jump",
    /// What the server remembered of its checks was lost.
    MemoryLost = "memory-lost",
    /// Nobody can be told of errors, or nobody was told of something.
    NotificationNobody = "notification-nobody",
    /// Notifications could not be delivered.
    NotificationUndelivered = "notification-undelivered",
    /// A monitor did not take a heartbeat.
    HeartbeatUndelivered = "heartbeat-undelivered",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Code {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|code| code.as_str() == text);
        found.copied().ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|code| code.as_str()).collect();
            format!("'{text}' is not checked; there are {}", all.join(", "))
        })
    }
}
