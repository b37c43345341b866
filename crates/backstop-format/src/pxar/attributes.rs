//! The items that describe one entry: its stat, extended attributes, ACLs, capabilities, project
//! id, and the leaf item that ends it. Shared by the writer and both readers.

use std::io::Read;

use super::entry::{
    Acl, AclDefault, AclEntry, Device, EntryKind, MODE_FIFO, MODE_SOCKET, Metadata, PayloadPlace,
    Stat, Timestamp, Xattr,
};
use super::item::{self, Header, MAX_ATTRIBUTES, put_header};
use super::{PxarError, Result};

const ABSENT: u64 = u64::MAX;

/// Appends the metadata items of an entry called `name`.
pub(crate) fn put_metadata(out: &mut Vec<u8>, metadata: &Metadata, name: &[u8]) -> Result<()> {
    let unstorable = |problem| PxarError::Unstorable {
        name: name.to_vec(),
        problem,
    };
    let stat = &metadata.stat;
    if stat.mtime.nanos >= 1_000_000_000 {
        return Err(unstorable(
            "modification time has more than 999999999 nanoseconds",
        ));
    }
    put_header(out, item::ENTRY, 40);
    out.extend_from_slice(&stat.mode.to_le_bytes());
    out.extend_from_slice(&stat.flags.to_le_bytes());
    out.extend_from_slice(&stat.uid.to_le_bytes());
    out.extend_from_slice(&stat.gid.to_le_bytes());
    out.extend_from_slice(&stat.mtime.seconds.to_le_bytes());
    out.extend_from_slice(&stat.mtime.nanos.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for xattr in &metadata.xattrs {
        if xattr.name.len() > item::MAX_XATTR_NAME || xattr.name.contains(&0) {
            return Err(unstorable(
                "name of an extended attribute is too long or contains NUL",
            ));
        }
        if xattr.name.len() + 1 + xattr.value.len() > item::MAX_XATTR_NAME + item::MAX_XATTR_VALUE {
            return Err(unstorable("extended attribute is too large"));
        }
        put_header(
            out,
            item::XATTR,
            (xattr.name.len() + 1 + xattr.value.len()) as u64,
        );
        out.extend_from_slice(&xattr.name);
        out.push(0);
        out.extend_from_slice(&xattr.value);
    }
    put_acl(out, &metadata.acl);
    if let Some(fcaps) = &metadata.fcaps {
        if fcaps.len() > item::MAX_XATTR_VALUE {
            return Err(unstorable("file capabilities are too large"));
        }
        put_header(out, item::FCAPS, fcaps.len() as u64);
        out.extend_from_slice(fcaps);
    }
    if let Some(id) = metadata.quota_project_id {
        put_words(out, item::QUOTA_PROJID, &[id]);
    }
    Ok(())
}

fn put_words(out: &mut Vec<u8>, kind: u64, words: &[u64]) {
    put_header(out, kind, 8 * words.len() as u64);
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

fn put_acl(out: &mut Vec<u8>, acl: &Acl) {
    let entries = |out: &mut Vec<u8>, kind, entries: &[AclEntry]| {
        for entry in entries {
            put_words(out, kind, &[entry.id, entry.permissions]);
        }
    };
    entries(out, item::ACL_USER, &acl.users);
    entries(out, item::ACL_GROUP, &acl.groups);
    if let Some(permissions) = acl.group_obj {
        put_words(out, item::ACL_GROUP_OBJ, &[permissions]);
    }
    if let Some(default) = acl.default {
        let words = [
            default.user_obj,
            default.group_obj,
            default.other,
            default.mask,
        ];
        put_words(
            out,
            item::ACL_DEFAULT,
            &words.map(|word| word.unwrap_or(ABSENT)),
        );
    }
    entries(out, item::ACL_DEFAULT_USER, &acl.default_users);
    entries(out, item::ACL_DEFAULT_GROUP, &acl.default_groups);
}

/// Reads items one after the other and knows its position.
#[derive(Debug)]
pub(crate) struct ItemReader<R> {
    pub inner: R,
    pub position: u64,
}

impl<R: Read> ItemReader<R> {
    /// Fills `buf` as far as the stream goes; returns the number of bytes read.
    pub fn fill(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.inner.read(rest) {
                Ok(0) => break,
                Ok(n) => filled = filled.saturating_add(n),
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(err) => return Err(PxarError::io("reading", self.position, err)),
            }
        }
        self.position = self.position.saturating_add(filled as u64);
        Ok(filled)
    }

    /// The next item header; `None` when the stream ends before it.
    pub fn header(&mut self) -> Result<Option<Header>> {
        let position = self.position;
        let mut bytes = [0; 16];
        match self.fill(&mut bytes)? {
            0 => Ok(None),
            16 => Header::parse(&bytes, position).map(Some),
            _ => Err(self.truncated("rest of an item header")),
        }
    }

    pub fn truncated(&self, missing: &'static str) -> PxarError {
        PxarError::Truncated {
            position: self.position,
            missing,
        }
    }

    /// The content of an item whose size its type bounds (see [`item`]).
    pub fn content(&mut self, header: &Header) -> Result<Vec<u8>> {
        let mut content = vec![0; usize::try_from(header.content).unwrap_or(0)];
        match self.fill(&mut content)? {
            n if n as u64 == header.content => Ok(content),
            _ => Err(self.truncated("rest of an item")),
        }
    }

    /// The content of an item of `N` little-endian words.
    pub fn words<const N: usize>(&mut self, header: &Header) -> Result<[u64; N]> {
        let content = self.content(header)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(content.chunks_exact(8)) {
            *word = bytes
                .iter()
                .rev()
                .fold(0, |value, &byte| value << 8 | u64::from(byte));
        }
        Ok(words)
    }

    /// The content of a FILENAME item: a valid path component.
    pub fn filename(&mut self, header: &Header) -> Result<Vec<u8>> {
        let mut name = self.content(header)?;
        if name.pop() != Some(0) || !item::is_valid_name(&name) {
            return Err(PxarError::BadName {
                name,
                position: header.position,
            });
        }
        Ok(name)
    }

    /// The content of a HARDLINK item.
    pub fn hardlink(&mut self, header: &Header) -> Result<EntryKind> {
        let mut content = self.content(header)?;
        if content.pop() != Some(0) {
            return Err(header.bad("target path does not end with NUL"));
        }
        match content.split_first_chunk::<8>() {
            Some((offset, target)) if !target.is_empty() => Ok(EntryKind::Hardlink {
                offset: u64::from_le_bytes(*offset),
                target: target.to_vec(),
            }),
            _ => Err(header.bad("target path is empty")),
        }
    }

    /// Reads the metadata that begins with the ENTRY item `first`. Returns it with the header of
    /// the first item that does not belong to it, or `None` where the stream ends instead.
    pub fn metadata(&mut self, first: &Header) -> Result<(Metadata, Option<Header>)> {
        let mut metadata = Metadata {
            stat: self.stat(first)?,
            ..Metadata::default()
        };
        let mut attribute_bytes = 0u64;
        loop {
            let Some(header) = self.header()? else {
                return Ok((metadata, None));
            };
            if !self.attribute(&header, &mut metadata)? {
                return Ok((metadata, Some(header)));
            }
            attribute_bytes = attribute_bytes.saturating_add(header.content);
            if attribute_bytes > MAX_ATTRIBUTES {
                return Err(PxarError::Limit {
                    what: "bytes of attributes per entry",
                    limit: MAX_ATTRIBUTES,
                    position: header.position,
                });
            }
        }
    }

    fn stat(&mut self, header: &Header) -> Result<Stat> {
        let halves = |word: u64| (word as u32, (word >> 32) as u32);
        match header.kind {
            item::ENTRY => {
                let [mode, flags, ids, seconds, nanos] = self.words(header)?;
                let (uid, gid) = halves(ids);
                let nanos = halves(nanos).0;
                if nanos >= 1_000_000_000 {
                    return Err(header.bad("modification time has too many nanoseconds"));
                }
                let mtime = Timestamp {
                    seconds: seconds as i64,
                    nanos,
                };
                Ok(Stat {
                    mode,
                    flags,
                    uid,
                    gid,
                    mtime,
                })
            }
            item::ENTRY_V1 => {
                let [mode, flags, ids, time] = self.words(header)?;
                let (uid, gid) = halves(ids);
                let seconds = (time / 1_000_000_000) as i64;
                let mtime = Timestamp {
                    seconds,
                    nanos: (time % 1_000_000_000) as u32,
                };
                Ok(Stat {
                    mode,
                    flags,
                    uid,
                    gid,
                    mtime,
                })
            }
            _ => Err(header.unexpected("the start of an entry")),
        }
    }

    /// Takes in one attribute item; false (and nothing read) when it is of another kind.
    fn attribute(&mut self, header: &Header, metadata: &mut Metadata) -> Result<bool> {
        let acl = &mut metadata.acl;
        let list = match header.kind {
            item::ACL_USER => &mut acl.users,
            item::ACL_GROUP => &mut acl.groups,
            item::ACL_DEFAULT_USER => &mut acl.default_users,
            item::ACL_DEFAULT_GROUP => &mut acl.default_groups,
            _ => return self.other_attribute(header, metadata),
        };
        let [id, permissions] = self.words(header)?;
        list.push(AclEntry { id, permissions });
        Ok(true)
    }

    fn other_attribute(&mut self, header: &Header, metadata: &mut Metadata) -> Result<bool> {
        fn set<T>(header: &Header, slot: &mut Option<T>, value: T) -> Result<bool> {
            match slot.replace(value) {
                None => Ok(true),
                Some(_) => Err(header.bad("occurs twice in one entry")),
            }
        }
        match header.kind {
            item::XATTR => {
                let mut name = self.content(header)?;
                let Some(end) = name.iter().position(|&byte| byte == 0) else {
                    return Err(header.bad("attribute name does not end with NUL"));
                };
                let value = name.split_off(end + 1);
                name.pop();
                metadata.xattrs.push(Xattr { name, value });
                Ok(true)
            }
            item::ACL_GROUP_OBJ => {
                let [permissions] = self.words(header)?;
                set(header, &mut metadata.acl.group_obj, permissions)
            }
            item::ACL_DEFAULT => {
                let words: [u64; 4] = self.words(header)?;
                let [user_obj, group_obj, other, mask] =
                    words.map(|word| (word != ABSENT).then_some(word));
                let default = AclDefault {
                    user_obj,
                    group_obj,
                    other,
                    mask,
                };
                set(header, &mut metadata.acl.default, default)
            }
            item::FCAPS => {
                let value = self.content(header)?;
                set(header, &mut metadata.fcaps, value)
            }
            item::QUOTA_PROJID => {
                let [id] = self.words(header)?;
                set(header, &mut metadata.quota_project_id, id)
            }
            _ => Ok(false),
        }
    }

    /// The kind of an entry whose metadata is followed by `next`. Returns `next` back when it
    /// does not belong to the entry.
    pub fn kind(
        &mut self,
        metadata: &Metadata,
        next: Option<Header>,
    ) -> Result<(EntryKind, Option<Header>)> {
        let by_mode = || match metadata.stat.file_type() {
            MODE_FIFO => EntryKind::Fifo,
            MODE_SOCKET => EntryKind::Socket,
            _ => EntryKind::Directory,
        };
        let Some(header) = next else {
            return Ok((by_mode(), None));
        };
        let kind = match header.kind {
            item::FILENAME | item::GOODBYE => return Ok((by_mode(), Some(header))),
            item::PAYLOAD => EntryKind::File {
                size: header.content,
                place: PayloadPlace::Inline(header.content_start()),
            },
            item::PAYLOAD_REF => {
                let [offset, size] = self.words(&header)?;
                EntryKind::File {
                    size,
                    place: PayloadPlace::Referenced(offset),
                }
            }
            item::SYMLINK => {
                let mut target = self.content(&header)?;
                match target.pop() {
                    Some(0) => EntryKind::Symlink(target),
                    _ => return Err(header.bad("link target does not end with NUL")),
                }
            }
            item::DEVICE => {
                let [major, minor] = self.words(&header)?;
                EntryKind::Device(Device { major, minor })
            }
            _ => return Err(header.unexpected("an attribute or the content of the entry")),
        };
        Ok((kind, None))
    }
}
