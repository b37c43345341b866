//! Items: the type constants, headers and size limits of the format.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::{PxarError, Result};

/// Size of an item header: type and full size, u64 each.
pub const HEADER_SIZE: u64 = 16;
/// Longest file name in bytes.
pub const MAX_NAME: usize = 4096;
/// Longest symbolic link target in bytes.
pub const MAX_LINK_TARGET: usize = 4096;
/// Longest name of an extended attribute in bytes.
pub const MAX_XATTR_NAME: usize = 255;
/// Longest value of an extended attribute in bytes.
pub const MAX_XATTR_VALUE: usize = 65536;
/// Largest prelude that is read into memory: 16 MiB.
pub const MAX_PRELUDE: u64 = 16 << 20;
/// Most bytes of attribute items (extended attributes, ACLs) that one entry may have: 64 MiB.
pub const MAX_ATTRIBUTES: u64 = 64 << 20;
/// Most children whose directory table is read into memory (24 bytes each).
pub const MAX_TABLE_ENTRIES: u64 = 1 << 24;
/// Deepest nesting of directories that is read or written.
pub const MAX_DEPTH: usize = 16_384;

const HASH_KEY: (u64, u64) = (0x83ac_3f1c_fbb4_50db, 0xaa4f_1b68_7936_9fbd);

/// The hash of a file name (without NUL) that orders directory tables.
pub fn name_hash(name: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(HASH_KEY.0, HASH_KEY.1);
    hasher.write(name);
    hasher.finish()
}

pub(crate) const FORMAT_VERSION: u64 = 0x730f_6c75_df16_a40d;
pub(crate) const PRELUDE: u64 = 0xe309_d79d_9f7b_771b;
pub(crate) const ENTRY: u64 = 0xd595_6474_e588_acef;
pub(crate) const ENTRY_V1: u64 = 0x11da_850a_1c1c_ceff;
pub(crate) const FILENAME: u64 = 0x1670_1121_0639_17b3;
pub(crate) const SYMLINK: u64 = 0x27f9_71e7_dbf5_dc5f;
pub(crate) const DEVICE: u64 = 0x9fc9_e906_586d_5ce9;
pub(crate) const XATTR: u64 = 0x0dab_0229_b57d_cd03;
pub(crate) const ACL_USER: u64 = 0x2ce8_540a_457d_55b8;
pub(crate) const ACL_GROUP: u64 = 0x136e_3ece_b04c_03ab;
pub(crate) const ACL_GROUP_OBJ: u64 = 0x1086_8031_e958_2876;
pub(crate) const ACL_DEFAULT: u64 = 0xbbbb_1341_5a68_96f5;
pub(crate) const ACL_DEFAULT_USER: u64 = 0xc893_57b4_0532_cd1f;
pub(crate) const ACL_DEFAULT_GROUP: u64 = 0xf90a_8a58_1603_8ffe;
pub(crate) const FCAPS: u64 = 0x2da9_dd9d_b5f7_fb67;
pub(crate) const QUOTA_PROJID: u64 = 0xe075_40e8_2f7d_1cbb;
pub(crate) const HARDLINK: u64 = 0x5126_9c84_22bd_7275;
pub(crate) const PAYLOAD: u64 = 0x2814_7a1b_0b7c_1a25;
pub(crate) const PAYLOAD_REF: u64 = 0x419d_3d6b_c4ba_977e;
pub(crate) const GOODBYE: u64 = 0x2fec_4fa6_42d5_731d;
pub(crate) const GOODBYE_TAIL_MARKER: u64 = 0xef5e_ed5b_753e_1555;
pub(crate) const PAYLOAD_START_MARKER: u64 = 0x834c_68c2_194a_4ed2;
pub(crate) const PAYLOAD_TAIL_MARKER: u64 = 0x6c72_b78b_984c_81b5;

const XATTR_CONTENT: u64 = (MAX_XATTR_NAME + MAX_XATTR_VALUE) as u64;

/// Name, smallest and largest content of each item type.
fn rules(kind: u64) -> Option<(&'static str, u64, u64)> {
    Some(match kind {
        FORMAT_VERSION => ("FORMAT_VERSION", 8, 8),
        PRELUDE => ("PRELUDE", 0, MAX_PRELUDE),
        ENTRY => ("ENTRY", 40, 40),
        ENTRY_V1 => ("ENTRY_V1", 32, 32),
        FILENAME => ("FILENAME", 2, MAX_NAME as u64 + 1),
        SYMLINK => ("SYMLINK", 1, MAX_LINK_TARGET as u64 + 1),
        DEVICE => ("DEVICE", 16, 16),
        XATTR => ("XATTR", 1, XATTR_CONTENT),
        ACL_USER => ("ACL_USER", 16, 16),
        ACL_GROUP => ("ACL_GROUP", 16, 16),
        ACL_GROUP_OBJ => ("ACL_GROUP_OBJ", 8, 8),
        ACL_DEFAULT => ("ACL_DEFAULT", 32, 32),
        ACL_DEFAULT_USER => ("ACL_DEFAULT_USER", 16, 16),
        ACL_DEFAULT_GROUP => ("ACL_DEFAULT_GROUP", 16, 16),
        FCAPS => ("FCAPS", 0, XATTR_CONTENT),
        QUOTA_PROJID => ("QUOTA_PROJID", 8, 8),
        HARDLINK => ("HARDLINK", 9, MAX_LINK_TARGET as u64 + 9),
        PAYLOAD => ("PAYLOAD", 0, u64::MAX),
        PAYLOAD_REF => ("PAYLOAD_REF", 16, 16),
        GOODBYE => ("GOODBYE", 24, u64::MAX),
        PAYLOAD_START_MARKER => ("PAYLOAD_START_MARKER", 0, 0),
        PAYLOAD_TAIL_MARKER => ("PAYLOAD_TAIL_MARKER", 0, 16),
        _ => return None,
    })
}

/// A checked item header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: u64,
    pub name: &'static str,
    /// Position of the header in its stream.
    pub position: u64,
    /// Length of what follows the header.
    pub content: u64,
}

impl Header {
    /// Checks type and size of the header bytes found at `position`.
    pub fn parse(bytes: &[u8; 16], position: u64) -> Result<Self> {
        let word = u128::from_le_bytes(*bytes);
        let kind = word as u64;
        let full_size = (word >> 64) as u64;
        let (name, min, max) = rules(kind).ok_or(PxarError::UnknownItem { kind, position })?;
        let bad_size = PxarError::BadSize {
            item: name,
            position,
            size: full_size,
        };
        let content = match full_size.checked_sub(HEADER_SIZE) {
            Some(content) if (min..=max).contains(&content) => content,
            _ => return Err(bad_size),
        };
        match position.checked_add(full_size) {
            Some(_) => Ok(Self {
                kind,
                name,
                position,
                content,
            }),
            None => Err(bad_size),
        }
    }

    /// Position behind the item; cannot overflow after [`Header::parse`].
    pub fn end(&self) -> u64 {
        self.content_start().saturating_add(self.content)
    }

    pub fn content_start(&self) -> u64 {
        self.position.saturating_add(HEADER_SIZE)
    }

    pub fn unexpected(&self, expected: &'static str) -> PxarError {
        PxarError::UnexpectedItem {
            item: self.name,
            position: self.position,
            expected,
        }
    }

    pub fn bad(&self, problem: &'static str) -> PxarError {
        PxarError::BadContent {
            item: self.name,
            position: self.position,
            problem,
        }
    }
}

/// Appends an item header.
pub(crate) fn put_header(out: &mut Vec<u8>, kind: u64, content: u64) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&content.saturating_add(HEADER_SIZE).to_le_bytes());
}

/// A name that can be one component of a path: not empty, not `.` or `..`, without `/` and NUL,
/// at most [`MAX_NAME`] bytes.
pub fn is_valid_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != b"."
        && name != b".."
        && !name.iter().any(|&byte| byte == b'/' || byte == 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn name_hashes_match_the_documented_vectors() {
        for (name, hash) in [
            ("", 0x7661_4015_f8d1_bb6c),
            ("f", 0x4376_aba4_e3d5_1140),
            ("b", 0x4d1d_a3f5_12e8_c733),
            ("a.txt", 0xdc39_2d66_b611_aa72),
            ("dir", 0x2a98_c23e_d399_e2bc),
            ("ln", 0xdb98_b63a_37f0_30f3),
            ("x", 0xdc19_6e50_d6d8_df05),
            ("pipe", 0xbcfb_9d3b_f94e_b089),
            ("tty", 0xc625_4598_c7d6_5b54),
        ] {
            assert_eq!(name_hash(name.as_bytes()), hash, "{name}");
        }
    }

    #[test]
    fn type_constants_are_hashes_of_their_names() {
        for (name, constant) in [
            ("VERSION", FORMAT_VERSION),
            ("PRELUDE", PRELUDE),
            ("ENTRY_V2", ENTRY),
            ("ENTRY", ENTRY_V1),
            ("FILENAME", FILENAME),
            ("SYMLINK", SYMLINK),
            ("DEVICE", DEVICE),
            ("XATTR", XATTR),
            ("ACL_USER", ACL_USER),
            ("ACL_GROUP", ACL_GROUP),
            ("ACL_GROUP_OBJ", ACL_GROUP_OBJ),
            ("ACL_DEFAULT", ACL_DEFAULT),
            ("ACL_DEFAULT_USER", ACL_DEFAULT_USER),
            ("ACL_DEFAULT_GROUP", ACL_DEFAULT_GROUP),
            ("FCAPS", FCAPS),
            ("QUOTA_PROJID", QUOTA_PROJID),
            ("HARDLINK", HARDLINK),
            ("PXAR_PAYLOAD", PAYLOAD),
            ("PXAR_PAYLOAD_REF", PAYLOAD_REF),
            ("GOODBYE", GOODBYE),
            ("PXAR_GOODBYE_TAIL_MARKER", GOODBYE_TAIL_MARKER),
            ("PXAR_PAYLOAD_START_MARKER", PAYLOAD_START_MARKER),
            ("PXAR_PAYLOAD_TAIL_MARKER", PAYLOAD_TAIL_MARKER),
        ] {
            let text = format!("__PROXMOX_FORMAT_{name}__");
            assert_eq!(name_hash(text.as_bytes()), constant, "{name}");
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let header = |kind: u64, size: u64| {
            let mut bytes = [0u8; 16];
            bytes[..8].copy_from_slice(&kind.to_le_bytes());
            bytes[8..].copy_from_slice(&size.to_le_bytes());
            Header::parse(&bytes, 100)
        };
        assert!(header(ENTRY, 56).is_ok());
        for (kind, size) in [
            (ENTRY, 0),
            (ENTRY, 15),
            (ENTRY, 57),
            (FILENAME, 17),
            (FILENAME, 16 + 4098),
            (XATTR, 16 + 65792),
            (HARDLINK, 24),
            (DEVICE, 31),
            (PAYLOAD, u64::MAX),
            (GOODBYE, 39),
        ] {
            assert!(
                matches!(header(kind, size), Err(PxarError::BadSize { .. })),
                "{kind:x} {size}"
            );
        }
        assert!(matches!(
            header(7, 16),
            Err(PxarError::UnknownItem {
                kind: 7,
                position: 100
            })
        ));
    }
}
