//! What is known of a server at a moment, as plain values. Whoever gathers them judges nothing. Times are seconds since 1970.

use std::collections::{BTreeMap, BTreeSet};

use backstop_types::Namespace;

use crate::Scope;

/// All of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// When the server started: before, nothing could have been done.
    pub started: i64,
    /// Configuration files that cannot be read.
    pub configuration: Vec<ConfigurationFacts>,
    /// Jobs of all kinds.
    pub jobs: Vec<JobFacts>,
    /// Datastores.
    pub datastores: Vec<DatastoreFacts>,
    /// Whether those are all that are configured.
    pub knows_datastores: bool,
    /// Groups of the datastores that could be looked at.
    pub groups: Vec<GroupFacts>,
    /// Datastores whose groups are all among `groups`.
    pub listed: BTreeSet<String>,
    /// What verifies.
    pub verifications: Vec<VerificationFacts>,
    /// Where sync jobs write to.
    pub targets: Vec<TargetFacts>,
    /// Certificates, this server's and those of remotes.
    pub certificates: Vec<CertificateFacts>,
    /// The clock.
    pub clock: ClockFacts,
    /// What goes out: notifications and heartbeats.
    pub deliveries: Vec<DeliveryFacts>,
    /// Who can be told; `None`: that is not known.
    pub audience: Option<AudienceFacts>,
    /// Whether remotes answer.
    pub remotes: Vec<RemoteFacts>,
    /// What is not there any more though nobody has removed it.
    pub gone: Vec<GoneFacts>,
    /// What is remembered of the checks; `None`: nothing is.
    pub memory: Option<MemoryFacts>,
}

/// What is remembered of the checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryFacts {
    /// The file that holds what could not be read; `None`: all could.
    pub aside: Option<String>,
}

/// Who can be told of errors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AudienceFacts {
    /// Targets that can be reached, and that a matcher leads errors to.
    pub reached: Vec<String>,
    /// Why no other target counts, one reason each.
    pub reasons: Vec<String>,
    /// What reached nobody in the last day.
    pub unheard: Vec<UnheardFacts>,
}

/// Messages that were for somebody who has no address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnheardFacts {
    /// The target, or `user:` and the name of a user who is told directly.
    pub target: String,
    /// How many there were.
    pub count: u64,
    /// When the last one was.
    pub last: i64,
    /// Why it reached nobody.
    pub reason: String,
}

/// Whether a remote answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoteFacts {
    /// Its name.
    pub name: String,
    /// Why it did not answer when it was asked last; `None`: it did.
    pub error: Option<String>,
    /// Since when it does not answer.
    pub since: Option<i64>,
    /// How many times in a row it has not answered.
    pub failures: u32,
    /// Whether it has ever answered since the server started.
    pub has_answered: bool,
}

/// Backups that are not there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoneFacts {
    /// `group/…` or `datastore/…`.
    pub object: String,
    /// When that was seen.
    pub since: i64,
    /// Its newest backup, as far as it is known.
    pub newest: Option<i64>,
    /// How many further groups of a datastore are gone that are not named one by one.
    pub more: u64,
    /// Whether it is there again.
    pub is_back: bool,
}

impl Facts {
    /// The groups by datastore.
    pub(crate) fn groups_by_datastore(&self) -> BTreeMap<&str, Vec<&GroupFacts>> {
        let mut groups: BTreeMap<&str, Vec<&GroupFacts>> = BTreeMap::new();
        for group in &self.groups {
            groups.entry(&group.datastore).or_default().push(group);
        }
        groups
    }
}

/// Whether something that begins in one namespace, and goes so many levels below it (`None`: all), reaches another.
pub(crate) fn reaches(begin: &Namespace, depth: Option<usize>, namespace: &Namespace) -> bool {
    let below = namespace.depth().saturating_sub(begin.depth());
    begin.contains(namespace) && depth.is_none_or(|depth| below <= depth)
}

/// A configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationFacts {
    /// Its name, such as `sync.cfg`.
    pub file: String,
    /// Why it cannot be read; `None`: it can.
    pub error: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Ok,
    /// With this many warnings.
    Warnings(u64),
    /// With an error.
    Failed(String),
    /// Nobody knows: it was cut off.
    Unknown,
}

/// A run of a job that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFacts {
    /// Its start.
    pub start: i64,
    /// Its end.
    pub end: i64,
    /// How it ended.
    pub outcome: Outcome,
    /// Its task.
    pub task: String,
}

/// A job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFacts {
    /// `sync`, `prune`, `verify`, `gc` or `realm-sync`.
    pub kind: &'static str,
    /// Its id in the configuration.
    pub id: String,
    /// What it concerns.
    pub scope: Scope,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Its calendar event.
    pub schedule: Option<String>,
    /// What the schedule counts from: the start of the last run, or when the job was made or changed.
    pub reference: i64,
    /// Since when it runs.
    pub running: Option<i64>,
    /// Its last run that has ended.
    pub last: Option<RunFacts>,
    /// When a run last ended well.
    pub last_success: Option<i64>,
    /// How many runs failed since then.
    pub failures: u64,
    /// Why nothing is known of its runs.
    pub unreadable: Option<String>,
}

impl JobFacts {
    /// What its checks are about.
    pub fn object(&self) -> String {
        format!("job/{}/{}", self.kind, self.id)
    }
}

/// Whether a datastore can be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reachable {
    /// It can.
    #[default]
    Yes,
    /// Its file system is gone, failing or hanging.
    No(String),
    /// It was asked, and has not answered for so many seconds.
    Silent(i64),
    /// A maintenance mode closes it, wholly or for writing.
    Maintenance(String),
}

/// A datastore.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DatastoreFacts {
    /// Its name.
    pub name: String,
    /// Whether it can be used.
    pub reachable: Reachable,
    /// Whether its content was looked at; else nothing is said of that.
    pub looked: bool,
    /// The listing of its groups; `None`: it cannot be listed, and something else says why.
    pub listing: Option<ListingFacts>,
    /// Its size and what of it is available, in bytes.
    pub space: Option<(u64, u64)>,
    /// Shares in use, 0 to 1, in the order of time.
    pub history: Vec<(i64, f64)>,
    /// The last garbage collection: when it ended, and how many corrupt chunks it found. `None`: there was none.
    pub collected: Option<(i64, u64)>,
    /// Whether garbage collection has a schedule.
    pub collects: bool,
    /// Its oldest snapshot.
    pub oldest: Option<i64>,
    /// When it was first seen.
    pub first_seen: Option<i64>,
}

/// The listing of the groups of a datastore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListingFacts {
    /// When the last one that is known began; `None`: there was none since the server started.
    pub at: Option<i64>,
    /// How many groups it has found.
    pub groups: u64,
    /// Since when one is under way.
    pub running: Option<i64>,
}

/// A finished snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// When it was made.
    pub time: i64,
    /// The size of what was backed up, in bytes.
    pub size: Option<u64>,
}

/// A backup group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupFacts {
    /// The datastore.
    pub datastore: String,
    /// The namespace.
    pub namespace: Namespace,
    /// Type and id, such as `vm/100`.
    pub group: String,
    /// Its owner.
    pub owner: Option<String>,
    /// The newest finished snapshots, newest first.
    pub newest: Vec<SnapshotFacts>,
    /// The oldest finished snapshot.
    pub oldest: Option<i64>,
    /// Times of snapshots in which verification found damage, newest first.
    pub damaged: Vec<i64>,
    /// When a snapshot of it was last verified.
    pub verified: Option<i64>,
    /// Times of snapshots whose manifest cannot be read, newest first.
    pub unreadable: Vec<i64>,
    /// Why its owner cannot be told; `None`: it can.
    pub ownerless: Option<String>,
    /// How many snapshots there are, with those that are not finished.
    pub snapshots: u64,
}

impl GroupFacts {
    /// What its checks are about: `group/store1/ns/a/vm/100`.
    pub fn object(&self) -> String {
        group_object(&self.datastore, &self.namespace, &self.group)
    }

    /// Where it belongs to.
    pub fn scope(&self) -> Scope {
        Scope {
            datastore: Some(self.datastore.clone()),
            namespace: Some(self.namespace.clone()),
            group: Some(self.group.clone()),
            owner: self.owner.clone(),
            remote: None,
        }
    }
}

/// What the checks of a group are about.
pub fn group_object(datastore: &str, namespace: &Namespace, group: &str) -> String {
    if namespace.is_root() {
        return format!("group/{datastore}/{group}");
    }
    let below = namespace.to_string().replace('/', "/ns/");
    format!("group/{datastore}/ns/{below}/{group}")
}

/// A verification job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerificationFacts {
    /// Its id.
    pub job: String,
    /// The datastore.
    pub datastore: String,
    /// Where it begins.
    pub namespace: Namespace,
    /// How many levels of namespaces below that it goes; `None`: all.
    pub depth: Option<usize>,
    /// After how many days what was verified is verified again; `None`: never, or always.
    pub again_after: Option<i64>,
}

/// Where a sync job that pulls writes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetFacts {
    /// The job.
    pub job: String,
    /// What it concerns.
    pub scope: Scope,
    /// The datastore.
    pub datastore: String,
    /// The namespace.
    pub namespace: Namespace,
    /// How many levels of namespaces below that; `None`: all.
    pub depth: Option<usize>,
    /// Where it reads from, with remote, datastore and namespace.
    pub source: String,
    /// Whether it takes all groups.
    pub takes_all: bool,
    /// Who owns what it makes.
    pub owner: String,
}

/// A certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whose: `own`, or the name of a remote.
    pub remote: Option<String>,
    /// When it becomes valid and when it ends; `None`: not known.
    pub validity: Option<(i64, i64)>,
    /// Its SHA-256.
    pub fingerprint: Option<String>,
    /// What is wrong with the trust in it.
    pub untrusted: Option<String>,
    /// The certificate that follows by itself, when it is announced, and from when on.
    pub next: Option<i64>,
}

/// The clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClockFacts {
    /// Jumps that were seen: when, and by how many seconds, forward or back.
    pub jumps: Vec<(i64, i64)>,
    /// Datastores whose retention lock does not believe the clock, with the seconds that it is ahead.
    pub ahead: Vec<(String, i64)>,
}

/// A way out: a target of notifications, or a monitor that takes heartbeats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryFacts {
    /// Whether it takes heartbeats, and no notifications.
    pub heartbeat: bool,
    /// Its name.
    pub target: String,
    /// How many messages wait for it.
    pub waiting: u64,
    /// How many were given up lately.
    pub lost: u64,
    /// How many the receiver refuses; they are kept until somebody discards them or has them tried again.
    pub refused: u64,
    /// Since when the oldest waits, or when the first that is lost was made.
    pub since: Option<i64>,
    /// Why the last attempt failed.
    pub error: Option<String>,
}
