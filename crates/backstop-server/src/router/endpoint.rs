//! The declaration of an endpoint.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use backstop_types::schema::Property;
use hyper::body::Incoming;

use crate::http::upgrade::Upgrade;
use crate::http::{ApiError, Reply};

use super::context::RequestContext;
use super::params::Params;
use super::permission::Permission;

/// The methods that are routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Reads.
    Get,
    /// Changes what exists.
    Put,
    /// Creates, or starts something.
    Post,
    /// Removes.
    Delete,
}

impl Method {
    /// Parses the method of a request; `None` for one that is not routed.
    pub fn of(method: &hyper::Method) -> Option<Self> {
        match *method {
            hyper::Method::GET => Some(Self::Get),
            hyper::Method::PUT => Some(Self::Put),
            hyper::Method::POST => Some(Self::Post),
            hyper::Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }
}

/// What a handler resolves to.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<Reply, ApiError>> + Send>>;

/// A handler that may block.
pub type BlockingHandler =
    dyn Fn(&RequestContext, &Params) -> Result<Reply, ApiError> + Send + Sync;

/// The code behind an endpoint.
#[derive(Clone)]
pub enum Handler {
    /// Runs on the control runtime; it must not block.
    Async(Arc<dyn Fn(RequestContext, Params) -> HandlerFuture + Send + Sync>),
    /// Runs on a thread for blocking work.
    Blocking(Arc<BlockingHandler>),
    /// Gets the body as it is; parameters come from path and query alone.
    Stream(Arc<dyn Fn(RequestContext, Params, Incoming) -> HandlerFuture + Send + Sync>),
    /// Takes over the connection; parameters come from path and query alone.
    Upgrade(Arc<dyn Fn(RequestContext, Params, Upgrade) -> HandlerFuture + Send + Sync>),
}

impl Handler {
    /// A handler that waits without blocking.
    pub fn future<F, Fut>(handler: F) -> Self
    where
        F: Fn(RequestContext, Params) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, ApiError>> + Send + 'static,
    {
        Self::Async(Arc::new(move |context, params| {
            Box::pin(handler(context, params))
        }))
    }

    /// A handler that reads files, waits for locks or computes.
    pub fn blocking<F>(handler: F) -> Self
    where
        F: Fn(&RequestContext, &Params) -> Result<Reply, ApiError> + Send + Sync + 'static,
    {
        Self::Blocking(Arc::new(handler))
    }

    /// A handler for uploads, and for downloads that answer with a raw response.
    pub fn stream<F, Fut>(handler: F) -> Self
    where
        F: Fn(RequestContext, Params, Incoming) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, ApiError>> + Send + 'static,
    {
        Self::Stream(Arc::new(move |context, params, body| {
            Box::pin(handler(context, params, body))
        }))
    }

    /// A handler that turns the connection into a session.
    pub fn upgrade<F, Fut>(handler: F) -> Self
    where
        F: Fn(RequestContext, Params, Upgrade) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, ApiError>> + Send + 'static,
    {
        Self::Upgrade(Arc::new(move |context, params, upgrade| {
            Box::pin(handler(context, params, upgrade))
        }))
    }

    /// Whether the body of a request is left to the handler.
    pub fn takes_raw_body(&self) -> bool {
        matches!(self, Self::Stream(_) | Self::Upgrade(_))
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Async(_) => "Async",
            Self::Blocking(_) => "Blocking",
            Self::Stream(_) => "Stream",
            Self::Upgrade(_) => "Upgrade",
        })
    }
}

/// One endpoint: the only way to make a handler reachable.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Method.
    pub method: Method,
    /// Path below `/api2/FORMAT`, with `{name}` for parameters: `/admin/datastore/{store}/status`.
    pub path: &'static str,
    /// What it does, for documents.
    pub about: &'static str,
    /// All parameters, those of the path included. Their order is the order of error messages.
    pub params: &'static [Property],
    /// Who may call it.
    pub permission: Permission,
    /// The code.
    pub handler: Handler,
}
