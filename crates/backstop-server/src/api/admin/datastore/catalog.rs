//! Listing the directories inside a snapshot's archives: from the catalog, or from the metadata of one archive.

use backstop_format::catalog::{CatalogKind, CatalogReader};
use backstop_format::pxar::accessor::{Accessor, Node};
use backstop_format::pxar::entry::{EntryKind, MODE_CHAR};
use backstop_types::ArchiveName;
use backstop_types::record::CatalogItem;
use backstop_types::schema::Property;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::content;
use super::download::open_readable;
use super::parameters::{ARCHIVE_NAME, FILE_PATH, GROUP_ID, NS, SNAPSHOT_TIME, STORE, TYPE};
use super::snapshot_files::{check_readable, manifest_of};
use crate::archive_reader::ArchiveReader;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Method, Params, RequestContext};

const PARAMS: &[Property] = &[
    STORE,
    NS,
    SNAPSHOT_TIME,
    GROUP_ID,
    TYPE,
    FILE_PATH,
    ARCHIVE_NAME,
];

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    vec![content(
        Method::Get,
        "/admin/datastore/{store}/catalog",
        "A directory inside a snapshot's archives.",
        PARAMS,
        catalog,
    )]
}

/// The path that a request names: base64, or one of the words for the root.
pub fn decode_path(text: &str) -> Result<Vec<u8>, ApiError> {
    match text {
        "root" | "/" => Ok(b"/".to_vec()),
        text => STANDARD.decode(text).map_err(|err| {
            ApiError::bad_request(format!("base64 decoding of path failed - {err}"))
        }),
    }
}

fn catalog(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (datastore, ns, snapshot) = open_readable(context, params)?;
    let path = decode_path(params.required_text("filepath")?)?;
    let named: Option<ArchiveName> = params.parse("archive-name")?;
    let name = match &named {
        Some(name) => name.clone(),
        None => ArchiveName::CATALOG.parse()?,
    };
    let manifest = manifest_of(&datastore, &ns, &snapshot)?;
    check_readable(&manifest, name.as_str())?;
    let archive = ArchiveReader::open(datastore, &ns, &snapshot, &name, &manifest)?;
    Reply::data(&if named.is_some() {
        list_archive(archive, &path)?
    } else {
        list_catalog(archive, &path)?
    })
}

fn list_catalog(archive: ArchiveReader, path: &[u8]) -> Result<Vec<CatalogItem>, ApiError> {
    let reader = CatalogReader::new(archive)?;
    let text = String::from_utf8_lossy(path).into_owned();
    let missing = || {
        let text = if text.starts_with('/') {
            text.clone()
        } else {
            format!("/{text}")
        };
        ApiError::bad_request(format!("path {text:?} not found in catalog"))
    };
    let at = match reader.lookup(path)?.ok_or_else(missing)? {
        CatalogKind::Directory(at) => at,
        _ => {
            return Err(ApiError::bad_request(format!(
                "path {text:?} is no directory"
            )));
        }
    };
    let directory = reader.directory(at)?;
    let parent = path.strip_prefix(b"/").unwrap_or(path);
    Ok(directory
        .entries()
        .map(|entry| {
            let file = match entry.kind {
                CatalogKind::File { size, mtime } => Some((size, mtime)),
                _ => None,
            };
            item(parent, entry.name, entry.kind.letter(), file)
        })
        .collect())
}

fn list_archive(archive: ArchiveReader, path: &[u8]) -> Result<Vec<CatalogItem>, ApiError> {
    let accessor = Accessor::new(archive)?;
    let text = String::from_utf8_lossy(path).into_owned();
    let node = accessor.lookup(path)?;
    let node =
        node.ok_or_else(|| ApiError::bad_request(format!("path {text:?} not found in archive")))?;
    let directory = accessor.directory(&node)?;
    let parent = path.strip_suffix(b"/").unwrap_or(path);
    let mut items = Vec::new();
    for child in directory.children_in_table_order() {
        let child = child?;
        items.push(item(
            parent,
            &child.entry.name,
            letter(&child),
            file_of(&child),
        ));
    }
    Ok(items)
}

fn letter(node: &Node) -> u8 {
    match node.entry.kind {
        EntryKind::Directory => b'd',
        EntryKind::File { .. } => b'f',
        EntryKind::Symlink(_) => b'l',
        EntryKind::Hardlink { .. } => b'h',
        EntryKind::Fifo => b'p',
        EntryKind::Socket => b's',
        EntryKind::Device(_) if node.entry.metadata.stat.file_type() == MODE_CHAR => b'c',
        EntryKind::Device(_) => b'b',
    }
}

/// Size and time of a regular file; times before 1970 are rounded towards it.
fn file_of(node: &Node) -> Option<(u64, i64)> {
    let EntryKind::File { size, .. } = node.entry.kind else {
        return None;
    };
    let mtime = node.entry.metadata.stat.mtime;
    let seconds = if mtime.seconds < 0 && mtime.nanos > 0 {
        mtime.seconds + 1
    } else {
        mtime.seconds
    };
    Some((size, seconds))
}

fn item(parent: &[u8], name: &[u8], letter: u8, file: Option<(u64, i64)>) -> CatalogItem {
    let mut path = parent.to_vec();
    path.push(b'/');
    path.extend_from_slice(name);
    CatalogItem {
        filepath: STANDARD.encode(&path),
        text: String::from_utf8_lossy(name).into_owned(),
        kind: char::from(letter).to_string(),
        leaf: !matches!(letter, b'd' | b'v'),
        size: file.map(|(size, _)| size),
        mtime: file.map(|(_, mtime)| mtime),
    }
}
