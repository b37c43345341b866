//! File flags (chattr and FAT attributes) and project ids, read and set through ioctls.

use std::os::fd::BorrowedFd;

use rustix::fs::IFlags;
use rustix::io::Errno;
use rustix::ioctl::{self, Getter, Setter};

/// File system magic numbers (`statfs`).
pub(crate) mod magic {
    pub(crate) const EXT4: u64 = 0xef53;
    pub(crate) const XFS: u64 = 0x5846_5342;
    pub(crate) const FUSE: u64 = 0x6573_5546;
    pub(crate) const ZFS: u64 = 0x2fc1_2fc1;
    pub(crate) const MSDOS: u64 = 0x4d44;
    /// File systems without content of their own; they are never archived.
    pub(crate) const VIRTUAL: [u64; 18] = [
        0x4249_4e4d,
        0x0027_e0eb,
        0x6367_7270,
        0x6265_6570,
        0x6462_6720,
        0x0000_1cd1,
        0xde5e_81e4,
        0x6573_5543,
        0x9584_58f6,
        0x1980_0202,
        0x6e66_7364,
        0x0000_9fa0,
        0x6165_676c,
        0x6759_6969,
        0x7363_6673,
        0xf97c_ff8c,
        0x4341_5d53,
        0x6265_6572,
    ];
}

/// Archive bit, kernel bit.
const CHATTR: [(u64, u32); 10] = [
    (0x1_0000, 0x20),
    (0x2_0000, 0x80),
    (0x4_0000, 0x4),
    (0x8_0000, 0x80_0000),
    (0x10_0000, 0x40),
    (0x20_0000, 0x1_0000),
    (0x40_0000, 0x10),
    (0x80_0000, 0x8),
    (0x100_0000, 0x400),
    (0x200_0000, 0x2000_0000),
];

const FAT: [(u64, u32); 3] = [(0x2000, 0x02), (0x4000, 0x04), (0x8000, 0x20)];

/// Archive flags that can be set before data is written: noatime, compress, no copy-on-write,
/// no compression, project inherit.
pub(crate) const INITIAL: u64 = 0x2_0000 | 0x4_0000 | 0x8_0000 | 0x100_0000 | 0x200_0000;

/// All chattr flags of archives.
pub(crate) const ALL_CHATTR: u64 = 0x3ff_0000;
/// All FAT flags of archives.
pub(crate) const ALL_FAT: u64 = 0xe000;

fn to_archive(table: &[(u64, u32)], kernel: u32) -> u64 {
    table
        .iter()
        .filter(|(_, bit)| kernel & bit != 0)
        .fold(0, |flags, (flag, _)| flags | flag)
}

fn to_kernel(table: &[(u64, u32)], archive: u64) -> u32 {
    table
        .iter()
        .filter(|(flag, _)| archive & flag != 0)
        .fold(0, |bits, (_, bit)| bits | bit)
}

/// The ioctl is one that this object or file system does not have.
pub(crate) fn is_unsupported(err: Errno) -> bool {
    matches!(
        err,
        Errno::NOTTY | Errno::NOSYS | Errno::BADF | Errno::OPNOTSUPP | Errno::INVAL
    )
}

/// Reads chattr flags as archive flags.
pub(crate) fn read_chattr(fd: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    Ok(to_archive(&CHATTR, rustix::fs::ioctl_getflags(fd)?.bits()))
}

/// Sets those chattr flags that are in `mask` as `archive` says, and leaves the others.
pub(crate) fn set_chattr(fd: BorrowedFd<'_>, archive: u64, mask: u64) -> rustix::io::Result<()> {
    let before = rustix::fs::ioctl_getflags(fd)?.bits();
    let after = before & !to_kernel(&CHATTR, mask) | to_kernel(&CHATTR, archive & mask);
    if before == after {
        return Ok(());
    }
    rustix::fs::ioctl_setflags(fd, IFlags::from_bits_retain(after))
}

const FAT_GET: ioctl::Opcode = ioctl::opcode::read::<u32>(b'r', 0x10);
const FAT_SET: ioctl::Opcode = ioctl::opcode::write::<u32>(b'r', 0x11);

/// Reads FAT attributes as archive flags.
pub(crate) fn read_fat(fd: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    // SAFETY: FAT_IOCTL_GET_ATTRIBUTES writes one u32.
    let attributes: u32 = unsafe { ioctl::ioctl(fd, Getter::<FAT_GET, u32>::new()) }?;
    Ok(to_archive(&FAT, attributes))
}

/// Sets the FAT attributes that archives know and leaves the others.
pub(crate) fn set_fat(fd: BorrowedFd<'_>, archive: u64) -> rustix::io::Result<()> {
    // SAFETY: FAT_IOCTL_GET_ATTRIBUTES writes one u32.
    let before: u32 = unsafe { ioctl::ioctl(fd, Getter::<FAT_GET, u32>::new()) }?;
    let after = before & !to_kernel(&FAT, ALL_FAT) | to_kernel(&FAT, archive);
    if before == after {
        return Ok(());
    }
    // SAFETY: FAT_IOCTL_SET_ATTRIBUTES reads one u32.
    unsafe { ioctl::ioctl(fd, Setter::<FAT_SET, u32>::new(after)) }
}

/// `struct fsxattr` of the kernel.
#[repr(C)]
#[derive(Clone, Copy)]
struct Fsxattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

const PROJECT_GET: ioctl::Opcode = ioctl::opcode::read::<Fsxattr>(b'X', 31);
const PROJECT_SET: ioctl::Opcode = ioctl::opcode::write::<Fsxattr>(b'X', 32);

/// Reads the project id.
pub(crate) fn read_project_id(fd: BorrowedFd<'_>) -> rustix::io::Result<u32> {
    // SAFETY: FS_IOC_FSGETXATTR writes one struct fsxattr, in which every bit pattern is valid.
    let attributes = unsafe { ioctl::ioctl(fd, Getter::<PROJECT_GET, Fsxattr>::new()) }?;
    Ok(attributes.projid)
}

/// Sets the project id.
pub(crate) fn set_project_id(fd: BorrowedFd<'_>, id: u32) -> rustix::io::Result<()> {
    // SAFETY: as in `read_project_id`.
    let before = unsafe { ioctl::ioctl(fd, Getter::<PROJECT_GET, Fsxattr>::new()) }?;
    if before.projid == id {
        return Ok(());
    }
    let after = Fsxattr {
        projid: id,
        ..before
    };
    // SAFETY: FS_IOC_FSSETXATTR reads one struct fsxattr.
    unsafe { ioctl::ioctl(fd, Setter::<PROJECT_SET, Fsxattr>::new(after)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_translate_both_ways() {
        for (flag, bit) in CHATTR {
            assert_eq!(to_archive(&CHATTR, bit), flag);
            assert_eq!(to_kernel(&CHATTR, flag), bit);
        }
        assert_eq!(to_archive(&CHATTR, u32::MAX), ALL_CHATTR);
        assert_eq!(to_archive(&FAT, u32::MAX), ALL_FAT);
    }
}
