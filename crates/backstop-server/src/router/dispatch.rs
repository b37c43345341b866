//! The way of a request: format, look-up, log-in, permission, parameters, handler, envelope.
//!
//! This order never changes: nobody learns anything about paths, parameters or objects before the checks
//! that come first were passed.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backstop_types::AuthId;
use bytes::Bytes;
use futures_util::FutureExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, SET_COOKIE, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use jiff::Zoned;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument as _, Span};

use crate::access::append_only;
use crate::audit_log::Told;
use crate::datastores::Interrupted;
use crate::exposition;
use crate::http::access_log::Access;
use crate::http::body::{self, Body, read_parameters};
use crate::http::credentials::{Credentials, EXPIRED_COOKIE};
use crate::http::envelope::{OutputFormat, plain_error};
use crate::http::upgrade::Upgrade;
use crate::http::{ApiError, Reply, deflate, path, security_headers};
use crate::server::Server;

use super::context::RequestContext;
use super::endpoint::{Endpoint, Handler, Method};
use super::params::Params;
use super::permission::Permission;

/// How late a refusal for lack of privileges is answered.
const FORBIDDEN_DELAY: Duration = Duration::from_millis(500);

/// Numbers the requests of this process in its log.
static REQUESTS: AtomicU64 = AtomicU64::new(1);

/// Answers one request, whatever happens.
pub async fn respond(
    server: Arc<Server>,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Response<Body> {
    let begin = Instant::now();
    let connection = peer;
    let peer = server.client_of(request.headers(), peer);
    let seen = Seen::of(&request);
    let deflated = deflate::accepted(request.headers());
    let mut caller = None;
    let id = REQUESTS.fetch_add(1, Ordering::Relaxed);
    let answer = AssertUnwindSafe(answer(&server, request, (connection, peer), &mut caller))
        .catch_unwind()
        .instrument(tracing::error_span!(
            "request",
            id,
            method = seen.method,
            path = seen.path
        ))
        .await;
    let outcome = answer.unwrap_or_else(|panic| Outcome::from(panicked(&seen, &*panic)));
    server
        .latency()
        .note(&seen.method, outcome.response.status(), begin.elapsed());
    if let Some(delay) = outcome.delay {
        sleep_until(begin + delay).await;
    }
    let mut response = outcome.response;
    if outcome.clear_cookie {
        response
            .headers_mut()
            .append(SET_COOKIE, HeaderValue::from_static(EXPIRED_COOKIE));
    }
    security_headers::add(
        &mut response,
        server.certificates().current().is_self_signed(),
    );
    server
        .access_log()
        .write(seen.line(&response, peer, caller.as_ref()));
    if deflated {
        deflate::compress(response)
    } else {
        response
    }
}

/// What the access log needs of a request.
struct Seen {
    method: String,
    path: String,
    query: Option<String>,
    agent: Option<String>,
}

impl Seen {
    fn of(request: &Request<Incoming>) -> Self {
        let agent = request
            .headers()
            .get(USER_AGENT)
            .and_then(|agent| agent.to_str().ok());
        Self {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().map(str::to_owned),
            agent: agent.map(|agent| agent.chars().take(256).collect()),
        }
    }

    fn line(&self, response: &Response<Body>, peer: SocketAddr, caller: Option<&AuthId>) -> String {
        let access = Access {
            peer: peer.ip(),
            user: caller.map(AuthId::to_string),
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            status: response.status(),
            size: response.body().size_hint().exact().unwrap_or(0),
            agent: self.agent.as_deref(),
        };
        access.line(&Zoned::now())
    }
}

fn panicked(seen: &Seen, panic: &(dyn Any + Send)) -> Response<Body> {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown reason");
    tracing::error!(
        method = seen.method,
        path = seen.path,
        text,
        "a handler panicked"
    );
    plain_error(&ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal error",
    ))
}

struct Outcome {
    response: Response<Body>,
    delay: Option<Duration>,
    clear_cookie: bool,
}

impl From<Response<Body>> for Outcome {
    fn from(response: Response<Body>) -> Self {
        Self {
            response,
            delay: None,
            clear_cookie: false,
        }
    }
}

impl Outcome {
    fn error(err: &ApiError, response: Response<Body>) -> Self {
        Self {
            clear_cookie: response.status() == StatusCode::UNAUTHORIZED,
            response,
            delay: (!err.delay().is_zero()).then(|| err.delay()),
        }
    }

    fn plain(err: &ApiError) -> Self {
        Self::error(err, plain_error(err))
    }
}

async fn answer(
    server: &Arc<Server>,
    request: Request<Incoming>,
    (connection, peer): (SocketAddr, SocketAddr),
    caller: &mut Option<AuthId>,
) -> Outcome {
    let parts = match path::components(request.uri().path(), request.uri().query()) {
        Ok(parts) => parts,
        Err(err) => return Outcome::plain(&err),
    };
    let (format, below) = match parts.as_slice() {
        [api] if api == "api2" => {
            let text = format!("invalid api path '{}'", request.uri().path());
            return Outcome::plain(&ApiError::not_found(text));
        }
        [api, format, below @ ..] if api == "api2" => match OutputFormat::parse(format) {
            Some(format) => (format, below),
            None => {
                return Outcome::plain(&ApiError::bad_request(format!(
                    "Unsupported output format '{format}'."
                )));
            }
        },
        [metrics] if metrics == "metrics" => {
            return match scrape(server, &request, (connection, peer), caller).await {
                Ok(response) => Outcome::from(response),
                Err(err) => Outcome::plain(&err),
            };
        }
        _ => {
            return match crate::api::page::serve(request.method(), &parts) {
                Ok(response) => Outcome::from(response),
                Err(err) => Outcome::plain(&err),
            };
        }
    };
    let found = server.tree().find(Method::of(request.method()), below);
    let endpoint = found.as_ref().and_then(|found| found.endpoint);
    match authenticate(server, endpoint, &request, peer).await {
        Ok(id) => *caller = id,
        // Never wrapped in an envelope.
        Err(err) => return Outcome::plain(&err),
    }
    let (method, shown) = (request.method().clone(), shown_path(&request, below));
    let mut told = Told::default();
    let result = match (endpoint, found) {
        (Some(endpoint), Some(found)) => {
            let caller = caller.as_ref();
            let path = &found.params;
            call(server, endpoint, path, request, (peer, caller), &mut told).await
        }
        (None, Some(found)) if found.index.is_some() => index(&found.index.unwrap_or_default()),
        _ => Err(ApiError::not_found(format!("Path '{}' not found.", shown))),
    };
    if let Some(caller) = caller
        && method != hyper::Method::GET
    {
        let status = result.as_ref().map_or_else(ApiError::status, Reply::status);
        let what = (method.as_str(), format!("/{}", below.join("/")));
        server
            .audit_log()
            .request(peer, &caller.to_string(), (what.0, &what.1), told, status);
    }
    match result {
        Ok(reply) => Outcome::from(format.success(reply)),
        Err(err) => Outcome::error(&err, format.error(&err)),
    }
}

/// Answers a scrape of Prometheus.
async fn scrape(
    server: &Arc<Server>,
    request: &Request<Incoming>,
    (connection, peer): (SocketAddr, SocketAddr),
    caller: &mut Option<AuthId>,
) -> Result<Response<Body>, ApiError> {
    if *request.method() != hyper::Method::GET {
        return Err(ApiError::bad_request("invalid http method for path"));
    }
    let (this, headers) = (Arc::clone(server), request.headers().clone());
    let check = move || exposition::access::check(&this, &headers, connection, peer);
    *caller = spawn_blocking(check).await?.map_err(|err| {
        if err.status() == StatusCode::FORBIDDEN {
            err.after(FORBIDDEN_DELAY)
        } else {
            err
        }
    })?;
    let this = Arc::clone(server);
    let text = spawn_blocking(move || exposition::text(&this)).await?;
    let text =
        text.map_err(|err| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, err.to_string()))?;
    let mut response = Response::new(body::full(text));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static(exposition::CONTENT_TYPE),
    );
    Ok(response)
}

/// The path as the text for an unknown one shows it: without empty components.
fn shown_path(request: &Request<Incoming>, below: &[String]) -> String {
    let format = request
        .uri()
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .nth(1)
        .unwrap_or_default();
    std::iter::once(format!("/api2/{format}"))
        .chain(below.iter().cloned())
        .collect::<Vec<_>>()
        .join("/")
}

async fn authenticate(
    server: &Arc<Server>,
    endpoint: Option<&Endpoint>,
    request: &Request<Incoming>,
    peer: SocketAddr,
) -> Result<Option<AuthId>, ApiError> {
    if endpoint.is_some_and(|endpoint| matches!(endpoint.permission, Permission::World)) {
        return Ok(None);
    }
    let refused = || ApiError::unauthorized("authentication failed");
    let Some(credentials) = Credentials::of(request.headers()) else {
        return Err(refused());
    };
    let writes = *request.method() != hyper::Method::GET;
    let (server, log) = (Arc::clone(server), server.auth_log().clone());
    let checked = spawn_blocking(move || server.authenticate(&credentials, peer, writes)).await?;
    match checked {
        Ok(id) => Ok(Some(id)),
        Err(refusal) => {
            log.failure(
                peer,
                refusal.user.as_deref().unwrap_or("unknown"),
                &refusal.reason,
            );
            Err(refused())
        }
    }
}

fn index(names: &[&str]) -> Result<Reply, ApiError> {
    Reply::data(
        &names
            .iter()
            .map(|name| json!({ "subdir": name }))
            .collect::<Vec<_>>(),
    )
}

/// Checks the rule of an endpoint. Rules that need files are checked on a thread for blocking work.
async fn is_allowed(
    server: &Arc<Server>,
    permission: Permission,
    path: &[(&'static str, String)],
    caller: Option<&AuthId>,
) -> Result<bool, ApiError> {
    match permission {
        Permission::World => return Ok(true),
        Permission::Anybody => return Ok(caller.is_some()),
        _ => {}
    }
    let (server, path, caller) = (Arc::clone(server), path.to_vec(), caller.cloned());
    let check = move || {
        let find = |name: &str| path.iter().find(|(known, _)| *known == name);
        let parameter = |name: &str| find(name).map(|(_, value)| value.as_str());
        let granted = |id: &AuthId, path: &str| server.privileges(id, path);
        permission.allows(caller.as_ref(), &parameter, &granted)
    };
    Ok(spawn_blocking(check).await?)
}

async fn call(
    server: &Arc<Server>,
    endpoint: &Endpoint,
    path: &[(&'static str, String)],
    mut request: Request<Incoming>,
    (peer, caller): (SocketAddr, Option<&AuthId>),
    told: &mut Told,
) -> Result<Reply, ApiError> {
    if !is_allowed(server, endpoint.permission, path, caller).await? {
        return Err(ApiError::forbidden("permission check failed").after(FORBIDDEN_DELAY));
    }
    if !append_only::may_call(endpoint)
        && let Some(caller) = caller.filter(|caller| caller.is_token())
    {
        let (server, caller) = (Arc::clone(server), caller.clone());
        let check = move || server.access().is_append_only(&caller);
        if spawn_blocking(check).await? {
            return Err(ApiError::forbidden(append_only::REFUSAL).after(FORBIDDEN_DELAY));
        }
    }
    let on_upgrade =
        matches!(endpoint.handler, Handler::Upgrade(_)).then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let mut parse = |body: Option<&[u8]>| {
        let params =
            Params::of_request(endpoint.params, path, head.uri.query(), &head.headers, body)?;
        *told = Told::of(&params);
        Ok::<_, ApiError>(params)
    };
    let context = |headers| RequestContext::new(Arc::clone(server), caller.cloned(), peer, headers);
    match (&endpoint.handler, on_upgrade) {
        (Handler::Stream(handler), _) => {
            let params = parse(None)?;
            handler(context(head.headers), params, body).await
        }
        (Handler::Upgrade(handler), Some(on_upgrade)) => {
            let params = parse(None)?;
            let upgrade = Upgrade::new(
                head.version,
                &head.headers,
                on_upgrade,
                server.runtimes().data.clone(),
            );
            handler(context(head.headers), params, upgrade).await
        }
        (Handler::Upgrade(_), None) => {
            Err(ApiError::bad_request("the connection cannot be upgraded"))
        }
        (Handler::Async(handler), _) => {
            let params = parse(Some(&parameters_of(body).await?))?;
            handler(context(head.headers), params).await
        }
        (Handler::Blocking(handler), _) => {
            let params = parse(Some(&parameters_of(body).await?))?;
            let (handler, context) = (Arc::clone(handler), context(head.headers));
            let store = params.text("store").map(str::to_owned);
            let work = move || handler(&context, &params);
            on_thread(server, store.as_deref(), work).await
        }
    }
}

/// Runs what blocks on a thread that may: on one of the datastore's own where the call is about one, so that a file system
/// that hangs holds up nobody else.
///
/// # Errors
/// Those of `work`; 503 when the datastore is not available.
pub async fn on_thread<T, F>(server: &Server, store: Option<&str>, work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ApiError> + Send + 'static,
{
    let place = store.and_then(|store| server.datastores().known_place(store));
    let work = in_span(work);
    let done = match &place {
        // What is unavailable already tells the look-up, after the checks that come before it.
        Some(place) if place.check().is_ok() => place.call(work).await,
        _ => run_anywhere(work).await,
    };
    match done {
        Ok(Err(err)) => match place.and_then(|place| place.check().err()) {
            Some(reason) if reason.to_string() == err.to_string() => Err(not_now(&reason)),
            _ => Err(err),
        },
        Ok(result) => result,
        Err(Interrupted::Panicked(panic)) => std::panic::resume_unwind(panic),
        Err(reason) => Err(not_now(&reason)),
    }
}

/// Work that logs as part of the request that it is done for, on whichever thread.
fn in_span<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let span = Span::current();
    move || span.in_scope(work)
}

fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(in_span(work))
}

async fn run_anywhere<T, F>(work: F) -> Result<T, Interrupted>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|err| match err.try_into_panic() {
        Ok(panic) => Interrupted::Panicked(panic),
        Err(_) => Interrupted::Stopped,
    })
}

fn not_now(reason: &impl std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, reason.to_string())
}

async fn parameters_of(body: Incoming) -> Result<Bytes, ApiError> {
    if body.is_end_stream() {
        Ok(Bytes::new())
    } else {
        read_parameters(body).await
    }
}
