//! What a handler knows beside its parameters: the server, and who is calling.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use backstop_types::AuthId;
use hyper::header::HeaderMap;

use crate::http::ApiError;
use crate::server::Server;

/// One request, as a handler sees it. Cheap to clone. `Debug` leaves the headers out, which hold credentials.
#[derive(Clone)]
pub struct RequestContext {
    server: Arc<Server>,
    caller: Option<AuthId>,
    peer: SocketAddr,
    headers: Arc<HeaderMap>,
}

impl fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestContext")
            .field("caller", &self.caller)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl RequestContext {
    pub(super) fn new(
        server: Arc<Server>,
        caller: Option<AuthId>,
        peer: SocketAddr,
        headers: HeaderMap,
    ) -> Self {
        Self {
            server,
            caller,
            peer,
            headers: Arc::new(headers),
        }
    }

    /// The server with all its parts.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Who calls; `None` only for endpoints that need no log-in.
    pub fn caller(&self) -> Option<&AuthId> {
        self.caller.as_ref()
    }

    /// Who calls, for endpoints that need a log-in.
    ///
    /// # Errors
    /// 401 when nobody logged in.
    pub fn auth_id(&self) -> Result<&AuthId, ApiError> {
        self.caller
            .as_ref()
            .ok_or_else(|| ApiError::unauthorized("authentication failed"))
    }

    /// Address of the client.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Headers of the request. They hold credentials, so they must not be logged.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}
