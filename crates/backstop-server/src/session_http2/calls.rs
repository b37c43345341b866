//! The calls of a session: which exist, which parameters they take, and how their answers look.
//!
//! The caller was authorised when the connection was upgraded; what is sent as credentials afterwards is ignored.

use std::future::Future;
use std::sync::Arc;

use backstop_types::schema::Property;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::http::ApiError;
use crate::http::body::{self, Body};
use crate::router::{Method, Params};

/// Content type of all JSON answers.
const JSON: HeaderValue = HeaderValue::from_static("application/json;charset=UTF-8");
/// Content type of all files and chunks.
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// One call of a session.
#[derive(Debug)]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Name, without the leading slash.
    pub name: &'static str,
    /// Its parameters.
    pub params: &'static [Property],
    /// Whether the body is data; parameters then come from the query alone.
    pub raw_body: bool,
}

/// What a call answers.
#[derive(Debug)]
pub enum Answer {
    /// Goes into `{"data": …}`.
    Data(Value),
    /// Bytes as they are.
    Bytes(Body),
}

/// A session: its calls and what they do.
pub trait Session: Send + Sync + 'static {
    /// All calls.
    const CALLS: &'static [Call];

    /// Carries out a call; `body` is there for calls with a raw body.
    fn call(
        self: Arc<Self>,
        call: &'static Call,
        params: Params,
        body: Option<Incoming>,
    ) -> impl Future<Output = Result<Answer, ApiError>> + Send;

    /// Notes a call in the task log, if the client asked for a detailed one.
    fn log_call(&self, text: &str);

    /// Notes a failed call in the task log.
    fn log_failure(&self, text: &str);
}

/// Answers one request.
pub async fn answer<S: Session>(session: Arc<S>, request: Request<Incoming>) -> Response<Body> {
    let start = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let err = match carry_out(&session, request).await {
        Ok(Answer::Data(data)) => {
            return respond(
                StatusCode::OK,
                &JSON,
                body::full(json!({"data": data}).to_string()),
            );
        }
        Ok(Answer::Bytes(bytes)) => return respond(StatusCode::OK, &BYTES, bytes),
        Err(err) => err,
    };
    session.log_failure(&format!("{method} {path}: {}: {err}", err.status()));
    if !err.delay().is_zero() {
        tokio::time::sleep_until(start + err.delay()).await;
    }
    respond(err.status(), &JSON, body::full(err.to_string()))
}

async fn carry_out<S: Session>(
    session: &Arc<S>,
    request: Request<Incoming>,
) -> Result<Answer, ApiError> {
    let (head, incoming) = request.into_parts();
    let path = head.uri.path();
    session.log_call(&format!("{} {path}", head.method));
    let name = path.trim_matches('/');
    if name.is_empty() && head.method == hyper::Method::GET {
        return Ok(Answer::Data(list::<S>()));
    }
    let method = Method::of(&head.method);
    let call = S::CALLS
        .iter()
        .find(|call| Some(call.method) == method && call.name == name);
    let Some(call) = call else {
        return Err(ApiError::not_found(format!("Path '{path}' not found.")));
    };
    let query = head.uri.query();
    if call.raw_body {
        let params = Params::of_request(call.params, &[], query, &head.headers, None)?;
        return Arc::clone(session).call(call, params, Some(incoming)).await;
    }
    let content = body::read_parameters(incoming).await?;
    let params = Params::of_request(call.params, &[], query, &head.headers, Some(&content))?;
    Arc::clone(session).call(call, params, None).await
}

fn list<S: Session>() -> Value {
    let mut names: Vec<&str> = S::CALLS.iter().map(|call| call.name).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| json!({"subdir": name}))
        .collect()
}

fn respond(status: StatusCode, content_type: &HeaderValue, content: Body) -> Response<Body> {
    let mut response = Response::new(content);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, content_type.clone());
    response
}
