//! Privileges and the fixed roles that grant them.

use std::fmt;
use std::ops::{BitAnd, BitAndAssign, BitOr, BitOrAssign};
use std::str::FromStr;

use crate::name::{NameError, serde_text};

/// A set of privileges.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Privileges(u32);

macro_rules! privileges {
    ($($bit:literal $constant:ident $text:literal $doc:literal;)*) => {
        impl Privileges {
            $(#[doc = $doc] pub const $constant: Self = Self(1 << $bit);)*
            /// Every privilege.
            pub const ALL: Self = Self($((1 << $bit) |)* 0);
            /// Each single privilege with its name, in the order in which lists show them.
            pub const NAMES: &'static [(Self, &'static str)] = &[$((Self::$constant, $text),)*];
        }
    };
}

privileges! {
    0 SYS_AUDIT "Sys.Audit" "See the state of the host and of all tasks.";
    1 SYS_MODIFY "Sys.Modify" "Change the host's configuration.";
    2 SYS_POWER_MANAGEMENT "Sys.PowerManagement" "Reboot and shut down.";
    3 DATASTORE_AUDIT "Datastore.Audit" "See a datastore's settings and list its content.";
    4 DATASTORE_ALLOCATE "Datastore.Allocate" "Create and delete datastores.";
    5 DATASTORE_MODIFY "Datastore.Modify" "Change a datastore's settings and content.";
    6 DATASTORE_READ "Datastore.Read" "Read any backup.";
    7 DATASTORE_VERIFY "Datastore.Verify" "Verify backups.";
    8 DATASTORE_BACKUP "Datastore.Backup" "Make backups, read own ones.";
    9 DATASTORE_PRUNE "Datastore.Prune" "Delete own backups.";
    10 PERMISSIONS_MODIFY "Permissions.Modify" "Change users and permissions.";
    11 REMOTE_AUDIT "Remote.Audit" "See remotes and sync jobs.";
    12 REMOTE_MODIFY "Remote.Modify" "Change remotes.";
    13 REMOTE_READ "Remote.Read" "Pull from a remote.";
    14 REMOTE_DATASTORE_BACKUP "Remote.DatastoreBackup" "Push backups to a remote.";
    15 REMOTE_DATASTORE_MODIFY "Remote.DatastoreModify" "Change namespaces of a remote.";
    16 REMOTE_DATASTORE_PRUNE "Remote.DatastorePrune" "Delete backups on a remote.";
    17 SYS_CONSOLE "Sys.Console" "Open a console.";
    18 TAPE_AUDIT "Tape.Audit" "See tapes and tape jobs.";
    19 TAPE_MODIFY "Tape.Modify" "Change tape settings.";
    20 TAPE_WRITE "Tape.Write" "Write tapes.";
    21 TAPE_READ "Tape.Read" "Read tapes.";
    22 REALM_ALLOCATE "Realm.Allocate" "Create, change and delete realms.";
}

impl Privileges {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// Both sets together, in constants.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are in the set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether at least one of `other` is in the set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The names of the privileges in the set, in list order.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES
            .iter()
            .filter(|(privilege, _)| self.contains(*privilege))
            .map(|(_, name)| *name)
            .collect()
    }
}

impl fmt::Display for Privileges {
    /// The names joined by `|`, as in `missing Datastore.Audit|Datastore.Backup`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join("|"))
    }
}

impl fmt::Debug for Privileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Privileges({self})")
    }
}

impl FromStr for Privileges {
    type Err = NameError;

    /// Reads the name of one privilege.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::NAMES
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(privilege, _)| *privilege)
            .ok_or_else(|| NameError::new("privilege", text, "no such privilege"))
    }
}

impl BitOr for Privileges {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for Privileges {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Privileges {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitAndAssign for Privileges {
    fn bitand_assign(&mut self, other: Self) {
        self.0 &= other.0;
    }
}

macro_rules! roles {
    ($($variant:ident $comment:literal [$($privilege:ident)*];)*) => {
        /// A named set of privileges. The roles are fixed; none can be added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Role {
            $(#[doc = $comment] $variant,)*
        }

        impl Role {
            /// All roles.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The names of all roles.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($variant),)*];

            /// The role's name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            /// The description that lists show.
            #[must_use]
            pub const fn comment(self) -> &'static str {
                match self { $(Self::$variant => $comment,)* }
            }

            /// What the role grants.
            #[must_use]
            pub const fn privileges(self) -> Privileges {
                match self {
                    $(Self::$variant => Privileges::NONE$(.union(Privileges::$privilege))*,)*
                }
            }
        }
    };
}

roles! {
    Admin "Administrator" [ALL];
    Audit "Auditor" [SYS_AUDIT DATASTORE_AUDIT];
    NoAccess "Disable Access" [];
    DatastoreAdmin "Datastore Administrator" [DATASTORE_AUDIT DATASTORE_MODIFY DATASTORE_READ DATASTORE_VERIFY DATASTORE_BACKUP DATASTORE_PRUNE];
    DatastoreReader "Datastore Reader (inspect datastore content and do restores)" [DATASTORE_AUDIT DATASTORE_VERIFY DATASTORE_READ];
    DatastoreBackup "Datastore Backup (backup and restore owned backups)" [DATASTORE_BACKUP];
    DatastorePowerUser "Datastore PowerUser (backup, restore and prune owned backup)" [DATASTORE_PRUNE DATASTORE_BACKUP];
    DatastoreAudit "Datastore Auditor" [DATASTORE_AUDIT];
    RemoteAudit "Remote Auditor" [REMOTE_AUDIT];
    RemoteAdmin "Remote Administrator" [REMOTE_AUDIT REMOTE_MODIFY REMOTE_READ];
    RemoteSyncOperator "Synchronization Operator" [REMOTE_AUDIT REMOTE_READ];
    RemoteSyncPushOperator "Synchronisation Operator (push direction)" [REMOTE_AUDIT REMOTE_DATASTORE_BACKUP];
    RemoteDatastorePowerUser "Remote Datastore Prune" [REMOTE_AUDIT REMOTE_DATASTORE_BACKUP REMOTE_DATASTORE_PRUNE];
    RemoteDatastoreAdmin "Remote Datastore Admin" [REMOTE_AUDIT REMOTE_DATASTORE_BACKUP REMOTE_DATASTORE_MODIFY REMOTE_DATASTORE_PRUNE];
    TapeAudit "Tape Auditor" [TAPE_AUDIT];
    TapeAdmin "Tape Administrator" [TAPE_AUDIT TAPE_MODIFY TAPE_READ TAPE_WRITE];
    TapeOperator "Tape Operator" [TAPE_AUDIT TAPE_READ TAPE_WRITE];
    TapeReader "Tape Reader" [TAPE_AUDIT TAPE_READ];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| NameError::new("role", text, format!("unknown role '{text}'")))
    }
}

impl Ord for Role {
    /// By name, as configuration files list them.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for Role {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

serde_text!(Role);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn roles_equal_those_that_the_reference_server_lists() {
        let capture = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/pbs-4.2.3/rest/487-roles.json"
        );
        let capture: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(capture).unwrap()).unwrap();
        let body: serde_json::Value =
            serde_json::from_str(capture["body"].as_str().unwrap()).unwrap();
        let expected: BTreeMap<String, (Vec<String>, String)> = body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|role| {
                let privs = serde_json::from_value(role["privs"].clone()).unwrap();
                let text = |key: &str| role[key].as_str().unwrap().to_string();
                (text("roleid"), (privs, text("comment")))
            })
            .collect();
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        assert_eq!(expected.len(), Role::ALL.len());
        for role in Role::ALL {
            let (privs, comment) = expected.get(role.as_str()).unwrap();
            let own = role
                .privileges()
                .names()
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(sorted(own), sorted(privs.clone()), "{role}");
            assert_eq!(role.comment(), comment);
            assert_eq!(role.to_string().parse::<Role>().unwrap(), *role);
        }
        assert!("Nope".parse::<Role>().is_err());
    }

    #[test]
    fn a_privilege_survives_its_name() {
        for (privilege, name) in Privileges::NAMES {
            assert_eq!(name.parse::<Privileges>().unwrap(), *privilege);
            assert_eq!(privilege.to_string(), *name);
        }
        assert!(Role::NoAccess.privileges().is_empty());
    }
}
