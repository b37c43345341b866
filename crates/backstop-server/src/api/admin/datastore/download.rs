//! Files of a snapshot: downloading them as stored or decoded, and uploading the client's log.

use std::sync::Arc;
use std::time::Duration;

use backstop_format::blob::{DataBlob, ENCRYPTED_HEADER_SIZE, MAX_BLOB_SIZE, MAX_CHUNK_SIZE};
use backstop_types::schema::Property;
use backstop_types::{ArchiveKind, ArchiveName, Namespace, Operation, Privileges, Snapshot};
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::parameters::{
    FILE_NAME, GROUP_ID, NS, SNAPSHOT_TIME, STORE, TYPE, file_name, namespace, snapshot, store,
};
use super::reach::Reach;
use super::snapshot_files::{check_readable, manifest_of};
use crate::archive_reader::{ArchiveReader, reader_body};
use crate::datastores::DatastoreHandle;
use crate::http::body::{Body, full, read_limited};
use crate::http::{ApiError, Reply};
use crate::reader_session::file_body;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext, dispatch};

const FILE: &[Property] = &[STORE, NS, SNAPSHOT_TIME, GROUP_ID, TYPE, FILE_NAME];
const LOG: &[Property] = &[STORE, NS, SNAPSHOT_TIME, GROUP_ID, TYPE];

/// A client's log has to arrive within this time.
const LOG_TIMEOUT: Duration = Duration::from_secs(300);

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::Get,
            path: "/admin/datastore/{store}/download",
            about: "A file of a snapshot as it is stored.",
            params: FILE,
            // the handler checks the namespace and the owner
            permission: Permission::Anybody,
            handler: Handler::stream(|context, params, _| on_thread(context, params, download)),
        },
        Endpoint {
            method: Method::Get,
            path: "/admin/datastore/{store}/download-decoded",
            about: "The content of an unencrypted file of a snapshot.",
            params: FILE,
            permission: Permission::Anybody,
            handler: Handler::stream(|context, params, _| {
                on_thread(context, params, download_decoded)
            }),
        },
        Endpoint {
            method: Method::Post,
            path: "/admin/datastore/{store}/upload-backup-log",
            about: "Adds the client's log to a snapshot.",
            params: LOG,
            permission: Permission::Anybody,
            handler: Handler::stream(upload_log),
        },
    ]
}

/// Runs what blocks on a thread of the datastore; bodies are then sent from the calling task's runtime.
pub async fn on_thread<T, F>(
    context: RequestContext,
    params: Params,
    work: F,
) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce(&RequestContext, &Params) -> Result<T, ApiError> + Send + 'static,
{
    let server = Arc::clone(context.server());
    let store = params.text("store").map(str::to_owned);
    dispatch::on_thread(&server, store.as_deref(), move || work(&context, &params)).await
}

/// Answers with bytes.
pub fn bytes(content: Body) -> Reply {
    let mut response = Response::new(content);
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    Reply::Raw(response)
}

/// The datastore and the snapshot, for callers that may read it.
pub fn open_readable(
    context: &RequestContext,
    params: &Params,
) -> Result<(DatastoreHandle, Namespace, Snapshot), ApiError> {
    let (store, ns, snapshot) = (store(params)?, namespace(params)?, snapshot(params)?);
    let (reach, datastore) = Reach::open(
        context,
        &store,
        &ns,
        Privileges::DATASTORE_READ,
        Privileges::DATASTORE_BACKUP,
        Operation::Read,
    )?;
    reach.check_group(&datastore, &ns, &snapshot.group)?;
    Ok((datastore, ns, snapshot))
}

fn open_failed(err: backstop_datastore::DatastoreError) -> ApiError {
    if err.is_not_found() {
        return ApiError::bad_request("File open failed: No such file or directory (os error 2)");
    }
    ApiError::bad_request(format!(
        "File open failed: {}",
        crate::http::error::chain(&err)
    ))
}

fn download(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (datastore, ns, snapshot) = open_readable(context, params)?;
    let file = datastore
        .open_file(&ns, &snapshot, &file_name(params)?)
        .map_err(open_failed)?;
    Ok(bytes(file_body(file, Arc::clone(datastore.place()))))
}

fn download_decoded(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (datastore, ns, snapshot) = open_readable(context, params)?;
    let name = file_name(params)?;
    let manifest = manifest_of(&datastore, &ns, &snapshot)?;
    check_readable(&manifest, name.as_str())?;
    if name.kind() != ArchiveKind::Blob {
        let archive = ArchiveReader::open(datastore, &ns, &snapshot, &name, &manifest)?;
        return Ok(bytes(reader_body(archive)));
    }
    let blob = datastore
        .load_blob(&ns, &snapshot, &name)
        .map_err(open_failed)?;
    if blob.is_encrypted() {
        return Err(ApiError::bad_request(format!(
            "cannot decode '{name}' - is encrypted"
        )));
    }
    Ok(bytes(full(blob.decode(None, MAX_BLOB_SIZE)?)))
}

async fn upload_log(
    context: RequestContext,
    params: Params,
    body: Incoming,
) -> Result<Reply, ApiError> {
    on_thread(context.clone(), params.clone(), open_for_log).await?;
    let limit = MAX_CHUNK_SIZE + ENCRYPTED_HEADER_SIZE;
    let raw = read_limited(body, limit, LOG_TIMEOUT).await?;
    on_thread(context, params, move |context, params| {
        let (datastore, ns, snapshot) = open_for_log(context, params)?;
        let blob = DataBlob::load(raw.into())?;
        if datastore
            .snapshot_path(&ns, &snapshot)
            .join(ArchiveName::CLIENT_LOG)
            .exists()
        {
            return Err(ApiError::bad_request("backup already contains a log."));
        }
        datastore.store_client_log(&ns, &snapshot, &blob)?;
        Ok(Reply::null())
    })
    .await
}

/// The datastore and the snapshot, for its owner.
fn open_for_log(
    context: &RequestContext,
    params: &Params,
) -> Result<(DatastoreHandle, Namespace, Snapshot), ApiError> {
    let (store, ns, snapshot) = (store(params)?, namespace(params)?, snapshot(params)?);
    let caller = context.auth_id()?;
    let path = ns.acl_path(&store);
    if !context
        .server()
        .privileges(caller, &path)
        .contains(Privileges::DATASTORE_BACKUP)
    {
        return Err(ApiError::missing_privilege("Datastore.Backup", &path));
    }
    let datastore = context
        .server()
        .datastores()
        .lookup(&store, Operation::Write)?;
    let owner = datastore
        .owner(&ns, &snapshot.group)
        .map_err(super::not_found)?;
    if !caller.owns(&owner) {
        return Err(ApiError::bad_request(format!(
            "backup owner check failed ({caller} != {owner})"
        )));
    }
    Ok((datastore, ns, snapshot))
}
