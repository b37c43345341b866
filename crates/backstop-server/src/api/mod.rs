//! The endpoints, in rooms that follow the URL tree.

pub mod access;
pub mod admin;
pub mod backstop;
pub mod config;
pub mod nodes;
pub mod page;
pub mod ping;
mod pull;
mod push;
pub mod status;
pub mod version;

use hyper::StatusCode;

use crate::config::EditError;
use crate::http::ApiError;
use crate::router::Endpoint;
use crate::{backup_session, reader_session};

/// All endpoints of the server.
pub fn endpoints() -> Vec<Endpoint> {
    [
        access::endpoints(),
        admin::endpoints(),
        backstop::endpoints(),
        config::endpoints(),
        nodes::endpoints(),
        ping::endpoints(),
        pull::endpoints(),
        push::endpoints(),
        status::endpoints(),
        version::endpoints(),
        backup_session::upgrade::endpoints(),
        reader_session::upgrade::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A refused change of the configuration, as the caller is told of it.
pub(crate) fn edit_error(err: EditError) -> ApiError {
    match err {
        EditError::Parameters(errors) => ApiError::from_parameters(errors),
        err => {
            let status = StatusCode::from_u16(err.status()).unwrap_or(StatusCode::BAD_REQUEST);
            ApiError::new(status, crate::http::error::chain(&err))
        }
    }
}
