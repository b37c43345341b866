//! What the API sends and receives: one record per shape, with the key names, the order and the
//! null-or-absent behaviour of stock servers. Reading ignores unknown keys; keys that older
//! servers lack are optional.

mod access;
mod certificate;
mod content;
mod datastore;
mod job;
mod second_factor;
mod simulation;
mod task;

pub use access::{
    AclItem, DomainItem, NewToken, RegeneratedToken, RoleItem, SubjectKind, TicketReply, TokenItem,
    UserItem, UserTokenItem,
};
pub use certificate::{AnnouncedCertificate, CertificateStatus};
pub use content::{
    CatalogItem, DeleteStats, FileItem, GroupItem, NamespaceItem, PruneItem, SnapshotItem,
    SnapshotVerification, VerifyState,
};
pub use datastore::{
    ActiveOperations, BackendType, CacheStats, DatastoreConfig, DatastoreListItem, DatastoreStatus,
    DatastoreUsage, GcJobStatus, GcStatus, MountStatus, TypeCount, TypeCounts,
};
pub use job::{PruneJobConfig, SyncDirection, SyncJobConfig, VerifyJobConfig};
pub use second_factor::{AddedFactor, FactorItem, UserFactorsItem};
pub use simulation::{PruneSimulation, PruneSimulationDay, PruneSimulationItem};
pub use task::{LogLine, TaskItem, TaskState, TaskStatus, TaskStatusKind, VersionInfo};

#[cfg(test)]
mod tests;
