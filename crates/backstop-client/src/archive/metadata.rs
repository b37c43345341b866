//! Reading an object's metadata from its file descriptor.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use backstop_format::pxar::entry::{MODE_DIRECTORY, MODE_FILE, Metadata, Stat, Timestamp, Xattr};
use backstop_format::pxar::item::MAX_XATTR_NAME;
use rustix::io::Errno;

use super::options::Features;
use super::{acl, flags};

const FCAPS: &[u8] = b"security.capability";
const BUFFER: usize = 64 * 1024;

/// What a file system can tell about its files; learned at the first file of each.
#[derive(Debug, Clone, Copy)]
struct Abilities {
    chattr: bool,
    fat: bool,
    project_ids: bool,
    xattrs: bool,
}

/// Reads metadata; keeps buffers and what it learned about file systems.
pub(crate) struct MetadataReader {
    features: Features,
    skip_e2big: bool,
    names: Vec<u8>,
    value: Vec<u8>,
    /// By device and whether the object is a directory.
    devices: HashMap<(u64, bool), Abilities>,
}

/// Stat values as archives hold them, flags left out.
pub(crate) fn archive_stat(stat: &rustix::fs::Stat) -> Stat {
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Stat {
        mode: u64::from(stat.st_mode),
        flags: 0,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Timestamp {
            seconds: stat.st_mtime,
            nanos: u32::try_from(nanos).unwrap_or(0),
        },
    }
}

impl MetadataReader {
    pub fn new(features: Features, skip_e2big: bool) -> Self {
        Self {
            features,
            skip_e2big,
            names: vec![0; BUFFER],
            value: vec![0; BUFFER],
            devices: HashMap::new(),
        }
    }

    /// The metadata of an open directory or regular file.
    pub fn read(&mut self, fd: BorrowedFd<'_>, stat: &rustix::fs::Stat) -> Result<Metadata, Errno> {
        let mut metadata = Metadata {
            stat: archive_stat(stat),
            ..Metadata::default()
        };
        if !matches!(metadata.stat.file_type(), MODE_FILE | MODE_DIRECTORY) {
            return Ok(metadata);
        }
        let device = (stat.st_dev, metadata.stat.file_type() == MODE_DIRECTORY);
        let mut can = match self.devices.get(&device) {
            Some(abilities) => *abilities,
            None => abilities(fd)?,
        };
        if can.chattr {
            match flags::read_chattr(fd) {
                Ok(found) => metadata.stat.flags |= found,
                Err(err) if flags::is_unsupported(err) => can.chattr = false,
                Err(err) => return Err(err),
            }
        }
        if can.fat {
            match flags::read_fat(fd) {
                Ok(found) => metadata.stat.flags |= found,
                Err(err) if flags::is_unsupported(err) => can.fat = false,
                Err(err) => return Err(err),
            }
        }
        if can.project_ids {
            match flags::read_project_id(fd) {
                Ok(0) => {}
                Ok(id) => metadata.quota_project_id = Some(u64::from(id)),
                Err(err) if flags::is_unsupported(err) => can.project_ids = false,
                Err(err) => return Err(err),
            }
        }
        if can.xattrs {
            can.xattrs = self.xattrs(fd, &mut metadata)?;
        }
        self.devices.insert(device, can);
        Ok(metadata)
    }

    /// Reads extended attributes, ACLs and capabilities; false when the file system has none.
    fn xattrs(&mut self, fd: BorrowedFd<'_>, metadata: &mut Metadata) -> Result<bool, Errno> {
        let length = match rustix::fs::flistxattr(fd, &mut self.names[..]) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => return Ok(false),
            Err(Errno::BADF) => return Ok(true),
            Err(Errno::TOOBIG | Errno::RANGE) if self.skip_e2big => return Ok(true),
            Err(err) => return Err(err),
        };
        let names = self.names.get(..length).unwrap_or_default();
        for name in names
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
        {
            let wanted = match name {
                FCAPS => self.features.fcaps,
                name if name == acl::ACCESS.as_bytes() || name == acl::DEFAULT.as_bytes() => {
                    self.features.acls
                }
                name => self.features.xattrs && is_stored(name),
            };
            if !wanted {
                continue;
            }
            let value = match rustix::fs::fgetxattr(fd, name, &mut self.value[..]) {
                Ok(length) => self.value.get(..length).unwrap_or_default(),
                // Gone since the names were listed.
                Err(Errno::NODATA | Errno::BADF) => continue,
                Err(Errno::TOOBIG | Errno::RANGE) if self.skip_e2big => continue,
                Err(err) => return Err(err),
            };
            if name == FCAPS {
                metadata.fcaps = Some(value.to_vec());
            } else if name == acl::ACCESS.as_bytes() {
                if !acl::read_access(value, &mut metadata.acl) {
                    return Err(Errno::INVAL);
                }
            } else if name == acl::DEFAULT.as_bytes() {
                if !acl::read_default(value, &mut metadata.acl) {
                    return Err(Errno::INVAL);
                }
            } else {
                metadata.xattrs.push(Xattr {
                    name: name.to_vec(),
                    value: value.to_vec(),
                });
            }
        }
        Ok(true)
    }
}

/// Which extended attributes archives hold.
pub(crate) fn is_stored(name: &[u8]) -> bool {
    name.len() <= MAX_XATTR_NAME
        && (name.starts_with(b"user.")
            || name.starts_with(b"trusted.")
            || name == b"security.NTACL")
}

fn abilities(fd: BorrowedFd<'_>) -> Result<Abilities, Errno> {
    let magic = file_system_magic(fd)?;
    Ok(Abilities {
        chattr: true,
        fat: matches!(magic, flags::magic::MSDOS | flags::magic::FUSE),
        project_ids: matches!(
            magic,
            flags::magic::EXT4 | flags::magic::XFS | flags::magic::FUSE | flags::magic::ZFS
        ),
        xattrs: true,
    })
}

/// The file system's magic number.
pub(crate) fn file_system_magic(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    // 32-bit numbers in a signed field of varying width.
    Ok(u64::from(rustix::fs::fstatfs(fd)?.f_type as u32))
}
