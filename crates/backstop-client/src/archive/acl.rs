//! POSIX ACLs as the kernel keeps them in extended attributes, and as archives hold them.

use backstop_format::pxar::entry::{Acl, AclDefault, AclEntry};

/// Attribute of the access ACL.
pub(crate) const ACCESS: &str = "system.posix_acl_access";
/// Attribute of a directory's default ACL.
pub(crate) const DEFAULT: &str = "system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const UNDEFINED_ID: u32 = u32::MAX;

#[derive(Default)]
struct Entries {
    users: Vec<AclEntry>,
    groups: Vec<AclEntry>,
    base: AclDefault,
}

/// Parses the attribute's value; `None` when it is not a version 2 ACL.
fn parse(value: &[u8]) -> Option<Entries> {
    let (version, rest) = value.split_first_chunk::<4>()?;
    let (records, []) = rest.as_chunks::<8>() else {
        return None;
    };
    if u32::from_le_bytes(*version) != VERSION {
        return None;
    }
    let mut entries = Entries::default();
    for &[tag0, tag1, perm0, perm1, id0, id1, id2, id3] in records {
        let permissions = u64::from(u16::from_le_bytes([perm0, perm1]));
        let id = u64::from(u32::from_le_bytes([id0, id1, id2, id3]));
        match u16::from_le_bytes([tag0, tag1]) {
            USER_OBJ => entries.base.user_obj = Some(permissions),
            USER => entries.users.push(AclEntry { id, permissions }),
            GROUP_OBJ => entries.base.group_obj = Some(permissions),
            GROUP => entries.groups.push(AclEntry { id, permissions }),
            MASK => entries.base.mask = Some(permissions),
            OTHER => entries.base.other = Some(permissions),
            _ => return None,
        }
    }
    entries.users.sort_unstable();
    entries.groups.sort_unstable();
    Some(entries)
}

/// Takes in the access ACL; false when the value cannot be understood.
pub(crate) fn read_access(value: &[u8], acl: &mut Acl) -> bool {
    let Some(entries) = parse(value) else {
        return false;
    };
    acl.users = entries.users;
    acl.groups = entries.groups;
    // With a mask, the group bits of the mode are the mask and not the group's permissions.
    acl.group_obj = entries.base.mask.and(entries.base.group_obj);
    true
}

/// Takes in the default ACL; false when the value cannot be understood.
pub(crate) fn read_default(value: &[u8], acl: &mut Acl) -> bool {
    let Some(entries) = parse(value) else {
        return false;
    };
    acl.default_users = entries.users;
    acl.default_groups = entries.groups;
    acl.default = (entries.base != AclDefault::default()).then_some(entries.base);
    true
}

/// The access ACL's attribute value for an object of the given mode; `None` when an id or
/// permission does not fit.
pub(crate) fn access_value(acl: &Acl, mode: u32) -> Option<Vec<u8>> {
    let group_bits = u64::from(mode >> 3 & 7);
    let has_mask = acl.has_access();
    let base = AclDefault {
        user_obj: Some(u64::from(mode >> 6 & 7)),
        group_obj: Some(acl.group_obj.unwrap_or(group_bits)),
        other: Some(u64::from(mode & 7)),
        mask: has_mask.then_some(group_bits),
    };
    value(&acl.users, &acl.groups, &base)
}

/// The default ACL's attribute value.
pub(crate) fn default_value(acl: &Acl) -> Option<Vec<u8>> {
    value(
        &acl.default_users,
        &acl.default_groups,
        &acl.default.unwrap_or_default(),
    )
}

fn value(users: &[AclEntry], groups: &[AclEntry], base: &AclDefault) -> Option<Vec<u8>> {
    let mut out = VERSION.to_le_bytes().to_vec();
    let mut put = |tag: u16, permissions: u64, id: u32| {
        let permissions = u16::try_from(permissions).ok().filter(|&bits| bits <= 7)?;
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&permissions.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
        Some(())
    };
    let put_base =
        |tag, permissions: Option<u64>, put: &mut dyn FnMut(u16, u64, u32) -> Option<()>| {
            permissions.map_or(Some(()), |permissions| put(tag, permissions, UNDEFINED_ID))
        };
    put_base(USER_OBJ, base.user_obj, &mut put)?;
    for user in users {
        put(USER, user.permissions, u32::try_from(user.id).ok()?)?;
    }
    put_base(GROUP_OBJ, base.group_obj, &mut put)?;
    for group in groups {
        put(GROUP, group.permissions, u32::try_from(group.id).ok()?)?;
    }
    put_base(MASK, base.mask, &mut put)?;
    put_base(OTHER, base.other, &mut put)?;
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn access_acls_come_back_with_the_mode() {
        let acl = Acl {
            users: vec![
                AclEntry {
                    id: 33,
                    permissions: 6,
                },
                AclEntry {
                    id: 1000,
                    permissions: 7,
                },
            ],
            groups: vec![AclEntry {
                id: 34,
                permissions: 5,
            }],
            group_obj: Some(4),
            ..Acl::default()
        };
        let value = access_value(&acl, 0o670).unwrap();
        assert_eq!(value.len(), 4 + 7 * 8);
        let mut found = Acl::default();
        assert!(read_access(&value, &mut found));
        assert_eq!(found, acl);
        assert_eq!(parse(&value).unwrap().base.mask, Some(7));
    }

    #[test]
    fn default_acls_come_back_with_what_is_absent() {
        let default = AclDefault {
            user_obj: Some(7),
            group_obj: Some(5),
            other: Some(0),
            mask: None,
        };
        let acl = Acl {
            default: Some(default),
            ..Acl::default()
        };
        let mut found = Acl::default();
        assert!(read_default(&default_value(&acl).unwrap(), &mut found));
        assert_eq!(found, acl);
    }

    #[test]
    fn values_of_another_shape_are_refused() {
        let mut acl = Acl::default();
        for value in [
            &b""[..],
            b"\x01\0\0\0",
            b"\x02\0\0\0\x01",
            b"\x02\0\0\0\x40\0\x07\0\0\0\0\0",
        ] {
            assert!(!read_access(value, &mut acl));
        }
        acl.users.push(AclEntry {
            id: 1 << 40,
            permissions: 7,
        });
        assert_eq!(access_value(&acl, 0o644), None);
        acl.users = vec![AclEntry {
            id: 1,
            permissions: 8,
        }];
        assert_eq!(access_value(&acl, 0o644), None);
    }
}
