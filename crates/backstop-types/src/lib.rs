//! The nouns of the API, shared by client and server: names, ids, groups, snapshots, task ids,
//! privileges and roles, configuration records, request and reply records.
//!
//! Everything here is pure: no files, no network, no clock. A name from outside becomes one of
//! these types at the door; whatever holds one of them may rely on its rules.

pub mod acl;
mod archive_name;
mod auth_id;
mod backup;
mod byte_size;
pub mod config_schema;
mod group_filter;
mod maintenance;
mod name;
mod namespace;
mod privilege;
pub mod property_string;
pub mod record;
mod repository;
pub mod schema;
pub mod second_factor;
pub mod section_config;
mod tuning;
mod upid;

pub use archive_name::{ArchiveKind, ArchiveName};
pub use auth_id::{AuthId, Realm, TokenName, UserId};
pub use backup::{BackupGroup, BackupId, BackupTime, BackupType, GroupOrSnapshot, Snapshot};
pub use byte_size::{ByteSize, SizeUnit};
pub use group_filter::GroupFilter;
pub use maintenance::{MaintenanceMode, MaintenanceType, Operation};
pub use name::{ConfigId, DatastoreName, NameError, is_safe_id};
pub use namespace::Namespace;
pub use privilege::{Privileges, Role};
pub use repository::{DEFAULT_PORT, Repository, is_dns_name, is_host};
pub use tuning::{ChunkOrder, SyncLevel, Tuning};
pub use upid::{Upid, escape_worker_id, is_node_name, unescape_worker_id};
