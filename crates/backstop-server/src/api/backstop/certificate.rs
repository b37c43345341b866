//! `/backstop/certificate`: which certificate is in use, which comes next, and what the old keys signed.
//!
//! What pinned peers need is not secret: the certificate in use is shown to everybody who connects, and the chain to those who do
//! not trust the server yet, so that they send no credentials.

use backstop_types::Privileges;
use backstop_types::schema::{Format, Property, Schema};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::certificate_change::{self, ChangeError};
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

static GRACE_SPAN: Schema = Schema::text(1, 64, Format::Verify(is_grace));
/// How long a certificate is announced.
pub const GRACE: Property = Property::optional("grace", &GRACE_SPAN);
const SETTINGS: &[Property] = &[GRACE];

fn is_grace(text: &str) -> Result<(), String> {
    certificate_change::parse_grace(text).map(|_| ())
}

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    const ONE: &str = "/backstop/certificate";
    let endpoint = |method, path, about, params, permission, handler| Endpoint {
        method,
        path,
        about,
        params,
        permission,
        handler: Handler::blocking(handler),
    };
    let modify = Permission::all("/system/certificates", Privileges::SYS_MODIFY);
    vec![
        endpoint(
            Method::Get,
            ONE,
            "Tells which certificate is in use, and which one is announced.",
            &[],
            Permission::Anybody,
            status as fn(&RequestContext, &Params) -> Result<Reply, ApiError>,
        ),
        endpoint(
            Method::Put,
            ONE,
            "Sets how long certificates are announced; without a time, a day.",
            SETTINGS,
            modify,
            set,
        ),
        endpoint(
            Method::Post,
            "/backstop/certificate/switch",
            "Switches to the certificate that is announced.",
            &[],
            modify,
            switch,
        ),
        endpoint(
            Method::Delete,
            "/backstop/certificate/next",
            "Withdraws the certificate that is announced.",
            &[],
            modify,
            withdraw,
        ),
        endpoint(
            Method::Get,
            "/backstop/certificate-chain",
            "The continuity chain that leads to the certificate in use.",
            &[],
            Permission::World,
            chain,
        ),
    ]
}

/// A refused change of the certificate, as the caller is told of it.
pub fn refused(err: ChangeError) -> ApiError {
    ApiError::bad_request(crate::http::error::chain(&err))
}

fn status(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let current = server.certificates().current();
    let mut status =
        certificate_change::status(server.config(), current.fingerprint()).map_err(refused)?;
    status.grace = Some(certificate_change::grace(server.config())?);
    Reply::data(&status)
}

fn set(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let grace = grace(params)?;
    certificate_change::set_grace(context.server().config(), grace)?;
    Ok(Reply::null())
}

/// The time of announcement among the parameters, in seconds.
///
/// # Errors
/// When it is none.
pub fn grace(params: &Params) -> Result<Option<i64>, ApiError> {
    let grace = params.text("grace").map(certificate_change::parse_grace);
    grace.transpose().map_err(ApiError::bad_request)
}

fn switch(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let fingerprint = certificate_change::switch_now(server.config()).map_err(refused)?;
    server
        .use_certificate_files()
        .map_err(|err| refused(err.into()))?;
    Reply::data(&fingerprint)
}

fn withdraw(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let fingerprint = certificate_change::withdraw(server.config()).map_err(refused)?;
    Reply::data(&fingerprint)
}

fn chain(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let current = server.certificates().current();
    let chain = certificate_change::published_chain(server.config(), current.fingerprint())?;
    Reply::data(&json!({ "chain": STANDARD.encode(chain.to_bytes()) }))
}
