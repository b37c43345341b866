//! What an archive knows about one file system object (`docs/formats/pxar.md`).

/// Type bits of a mode.
pub const MODE_TYPE_MASK: u64 = 0o170_000;
/// Mode type of a socket.
pub const MODE_SOCKET: u64 = 0o140_000;
/// Mode type of a symbolic link.
pub const MODE_SYMLINK: u64 = 0o120_000;
/// Mode type of a regular file.
pub const MODE_FILE: u64 = 0o100_000;
/// Mode type of a block device.
pub const MODE_BLOCK: u64 = 0o060_000;
/// Mode type of a directory.
pub const MODE_DIRECTORY: u64 = 0o040_000;
/// Mode type of a character device.
pub const MODE_CHAR: u64 = 0o020_000;
/// Mode type of a fifo.
pub const MODE_FIFO: u64 = 0o010_000;

/// A point in time: seconds since 1970 rounded down, plus nanoseconds 0..=999,999,999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds since the epoch, rounded towards minus infinity.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 1,000,000,000.
    pub nanos: u32,
}

impl Timestamp {
    /// The time given by whole seconds.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }
}

/// Mode, owner, time and flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stat {
    /// The complete `st_mode`: type, set-id bits, sticky bit and permissions.
    pub mode: u64,
    /// File flags in the archive's own bits (chattr and FAT attributes).
    pub flags: u64,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
}

impl Stat {
    /// The type bits of the mode.
    pub const fn file_type(&self) -> u64 {
        self.mode & MODE_TYPE_MASK
    }

    /// Set-id, sticky and permission bits.
    pub const fn permissions(&self) -> u32 {
        (self.mode & 0o7777) as u32
    }
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Full name such as `user.comment`, without NUL.
    pub name: Vec<u8>,
    /// The value; any bytes.
    pub value: Vec<u8>,
}

/// Permissions of one named user or group in an ACL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AclEntry {
    /// Numeric user or group.
    pub id: u64,
    /// Read 4, write 2, execute 1.
    pub permissions: u64,
}

/// The base entries of a directory's default ACL; `None` where the entry is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AclDefault {
    /// Owner.
    pub user_obj: Option<u64>,
    /// Owning group.
    pub group_obj: Option<u64>,
    /// Everybody else.
    pub other: Option<u64>,
    /// Mask.
    pub mask: Option<u64>,
}

/// POSIX ACLs as far as they say more than the mode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acl {
    /// Named users of the access ACL, sorted by (id, permissions).
    pub users: Vec<AclEntry>,
    /// Named groups of the access ACL, sorted by (id, permissions).
    pub groups: Vec<AclEntry>,
    /// Permissions of the owning group, present when the access ACL has a mask (the mode's group bits then hold the mask).
    pub group_obj: Option<u64>,
    /// Base entries of the default ACL.
    pub default: Option<AclDefault>,
    /// Named users of the default ACL.
    pub default_users: Vec<AclEntry>,
    /// Named groups of the default ACL.
    pub default_groups: Vec<AclEntry>,
}

impl Acl {
    /// Nothing beyond the mode.
    pub fn is_empty(&self) -> bool {
        !self.has_access() && !self.has_default()
    }

    /// An access ACL beyond the mode exists.
    pub fn has_access(&self) -> bool {
        self.group_obj.is_some() || !self.users.is_empty() || !self.groups.is_empty()
    }

    /// A default ACL exists.
    pub fn has_default(&self) -> bool {
        self.default.is_some() || !self.default_users.is_empty() || !self.default_groups.is_empty()
    }
}

/// Everything stored about an object except its name and content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Mode, owner, time, flags.
    pub stat: Stat,
    /// Extended attributes in archive order.
    pub xattrs: Vec<Xattr>,
    /// POSIX ACLs.
    pub acl: Acl,
    /// Raw value of `security.capability`.
    pub fcaps: Option<Vec<u8>>,
    /// File system project (quota) id.
    pub quota_project_id: Option<u64>,
}

impl Metadata {
    /// Metadata with a mode and a time and nothing else.
    pub fn new(mode: u64, mtime: Timestamp) -> Self {
        Self {
            stat: Stat {
                mode,
                mtime,
                ..Stat::default()
            },
            ..Self::default()
        }
    }
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
}

impl Device {
    /// Splits a Linux `dev_t`.
    pub const fn from_dev(dev: u64) -> Self {
        Self {
            major: ((dev >> 8) & 0xfff) | ((dev >> 32) & 0xffff_f000),
            minor: (dev & 0xff) | ((dev >> 12) & 0xffff_ff00),
        }
    }

    /// Composes a Linux `dev_t`; `None` when a number has more than 32 bits.
    pub const fn to_dev(self) -> Option<u64> {
        if self.major > u32::MAX as u64 || self.minor > u32::MAX as u64 {
            return None;
        }
        Some(
            ((self.major & 0xfff) << 8)
                | ((self.major & 0xffff_f000) << 32)
                | (self.minor & 0xff)
                | ((self.minor & 0xffff_ff00) << 12),
        )
    }
}

/// Where a regular file's content lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadPlace {
    /// In the archive itself; absolute position of the first content byte.
    Inline(u64),
    /// In the payload stream; absolute position of the PAYLOAD header there.
    Referenced(u64),
}

/// What kind of object an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory; its children follow.
    Directory,
    /// A regular file.
    File {
        /// Content length in bytes.
        size: u64,
        /// Where the content lies.
        place: PayloadPlace,
    },
    /// A symbolic link with its target (any bytes but NUL).
    Symlink(Vec<u8>),
    /// A further name of an earlier regular file. Has no metadata of its own.
    Hardlink {
        /// Distance from this entry's FILENAME header back to the target's.
        offset: u64,
        /// Path of the target relative to the archive root.
        target: Vec<u8>,
    },
    /// A block or character device (the mode tells which).
    Device(Device),
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The last path component; empty for the root.
    pub name: Vec<u8>,
    /// Metadata; default values for a hard link.
    pub metadata: Metadata,
    /// Kind and kind-specific data.
    pub kind: EntryKind,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn device_numbers_split_and_join() {
        assert_eq!(Device::from_dev(0x501), Device { major: 5, minor: 1 });
        for dev in [0, 0x501, 0x1234_5678_9abc_def0, u64::MAX] {
            assert_eq!(Device::from_dev(dev).to_dev(), Some(dev));
        }
        assert_eq!(
            Device {
                major: 1 << 32,
                minor: 0
            }
            .to_dev(),
            None
        );
    }
}
