//! Files and directories from inside an archive: a file as it is, a directory as zip or as tar.zst.

mod packing;

use std::io;
use std::sync::Arc;

use backstop_format::pxar::accessor::{Accessor, Node};
use backstop_format::pxar::entry::EntryKind;
use backstop_format::read_at::ReadAt;
use backstop_types::schema::Property;
use backstop_types::{ArchiveName, Namespace, Operation, Snapshot};
use bytes::Bytes;

use super::catalog::decode_path;
use super::download::{bytes, on_thread, open_readable};
use super::parameters::{
    ARCHIVE_NAME, FILE_PATH, GROUP_ID, NS, SNAPSHOT_TIME, STORE, TAR, TYPE, store,
};
use super::snapshot_files::{check_readable, manifest_of};
use crate::archive_reader::ArchiveReader;
use crate::datastores::Place;
use crate::http::body::{Body, streamed};
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const PARAMS: &[Property] = &[
    STORE,
    NS,
    SNAPSHOT_TIME,
    GROUP_ID,
    TYPE,
    FILE_PATH,
    TAR,
    ARCHIVE_NAME,
];

/// Bytes of a file that are read at once.
const PIECE: u64 = 1 << 20;

/// An opened archive, with its content if that is stored apart.
type Archive = Arc<Accessor<ArchiveReader, ArchiveReader>>;

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Get,
        path: "/admin/datastore/{store}/pxar-file-download",
        about: "A file or directory from inside an archive.",
        params: PARAMS,
        // the handler checks the namespace and the owner
        permission: Permission::Anybody,
        handler: Handler::stream(|context, params, _| on_thread(context, params, download)),
    }]
}

/// Splits `archive/path`, unless the archive is named apart.
fn archive_and_path(params: &Params) -> Result<(ArchiveName, Vec<u8>), ApiError> {
    let path = decode_path(params.required_text("filepath")?)?;
    if let Some(name) = params.parse("archive-name")? {
        return Ok((name, path));
    }
    let path = path.strip_prefix(b"/").unwrap_or(&path);
    let mut parts = path.splitn(2, |byte| *byte == b'/');
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    Ok((name.parse()?, parts.next().unwrap_or_default().to_vec()))
}

fn download(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (_, ns, snapshot) = open_readable(context, params)?;
    let (name, path) = archive_and_path(params)?;
    let (archive, place) = open_archive(context, params, &ns, &snapshot, &name)?;
    let missing = || {
        ApiError::bad_request(format!(
            "error opening '{:?}'",
            String::from_utf8_lossy(&path)
        ))
    };
    let node = archive.lookup(&path)?.ok_or_else(missing)?;
    let node = archive.follow_hardlink(node)?;
    match node.entry.kind {
        EntryKind::File { size, .. } => Ok(bytes(file_body(archive, place, node, size))),
        EntryKind::Directory if params.bool("tar", false) => {
            Ok(bytes(packing::tar(archive, node)?))
        }
        EntryKind::Directory => Ok(bytes(packing::zip(archive, node)?)),
        _ => Err(ApiError::bad_request(
            "cannot download this type of file; it has no content",
        )),
    }
}

fn open_archive(
    context: &RequestContext,
    params: &Params,
    ns: &Namespace,
    snapshot: &Snapshot,
    name: &ArchiveName,
) -> Result<(Archive, Arc<Place>), ApiError> {
    let store = store(params)?;
    let open = |name: &ArchiveName| {
        let datastore = context
            .server()
            .datastores()
            .lookup(&store, Operation::Read)?;
        let manifest = manifest_of(&datastore, ns, snapshot)?;
        check_readable(&manifest, name.as_str())?;
        ArchiveReader::open(datastore, ns, snapshot, name, &manifest)
    };
    let archive = open(name)?;
    let place = Arc::clone(archive.place());
    let accessor = match name.as_str().strip_suffix(".mpxar.didx") {
        Some(stem) => Accessor::split(archive, open(&format!("{stem}.ppxar.didx").parse()?)?)?,
        // of one stream only: its content is never looked for anywhere else
        None => Accessor::split(archive.clone(), archive)?,
    };
    Ok((Arc::new(accessor), place))
}

/// A file as the body of an answer. Between pieces no thread waits.
fn file_body(archive: Archive, place: Arc<Place>, node: Node, size: u64) -> Body {
    let (sender, body) = streamed(1);
    let node = Arc::new(node);
    tokio::spawn(async move {
        let mut offset = 0;
        while offset < size {
            let (archive, node) = (Arc::clone(&archive), Arc::clone(&node));
            let read = place.work(move || read_piece(&archive, &node, offset, size));
            let piece = read
                .await
                .unwrap_or_else(|err| Err(io::Error::other(err.to_string())));
            let length = piece.as_ref().map_or(0, |piece| piece.len() as u64);
            offset += length;
            // a client that went away needs nothing more, and after an error there is nothing more
            if sender.send(piece).await.is_err() || length == 0 {
                return;
            }
        }
    });
    body
}

fn read_piece(archive: &Archive, node: &Node, offset: u64, size: u64) -> io::Result<Bytes> {
    let content = archive.content(node).map_err(io::Error::other)?;
    let length = PIECE.min(size.saturating_sub(offset));
    let mut piece = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    content.read_exact_at(&mut piece, offset)?;
    Ok(piece.into())
}
