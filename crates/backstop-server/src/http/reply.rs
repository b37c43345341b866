//! What a handler answers with.

use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use super::body::Body;
use super::error::ApiError;

/// The answer of a handler: data for the envelope, or a complete response.
#[derive(Debug)]
pub enum Reply {
    /// Goes into the `{"data": …}` envelope of the output format that the caller chose.
    Data {
        /// The result, already serialised as JSON.
        json: Vec<u8>,
        /// Members beside `data`, such as `digest` and `total`.
        attributes: Map<String, Value>,
    },
    /// Sent as it is: downloads, upgrades, log-in replies.
    Raw(Response<Body>),
}

impl Reply {
    /// A result.
    ///
    /// # Errors
    /// When the value cannot be written as JSON, such as a map whose keys are not strings.
    pub fn data<T: Serialize + ?Sized>(value: &T) -> Result<Self, ApiError> {
        Ok(Self::json(serde_json::to_vec(value)?))
    }

    /// A result that is JSON already.
    pub fn json(json: Vec<u8>) -> Self {
        Self::Data {
            json,
            attributes: Map::new(),
        }
    }

    /// No result: `"data": null`.
    pub fn null() -> Self {
        Self::json(b"null".to_vec())
    }

    /// The status that it is sent with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Data { .. } => StatusCode::OK,
            Self::Raw(response) => response.status(),
        }
    }

    /// Adds a member beside `data`. A raw response stays as it is.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let Self::Data { attributes, .. } = &mut self {
            attributes.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Adds the digest of the configuration file that the result comes from.
    #[must_use]
    pub fn with_digest(self, digest: impl ToString) -> Self {
        self.with("digest", digest.to_string())
    }
}
