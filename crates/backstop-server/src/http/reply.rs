//! What a handler answers with.

use bytes::Bytes;
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
        /// The result, already serialised as JSON: its parts, one after the other.
        json: Vec<Bytes>,
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
        Ok(Self::json(vec![serde_json::to_vec(value)?.into()]))
    }

    /// A result that is JSON already, in parts that are sent one after the other without being copied.
    pub fn json(json: Vec<Bytes>) -> Self {
        Self::Data {
            json,
            attributes: Map::new(),
        }
    }

    /// No result: `"data": null`.
    pub fn null() -> Self {
        Self::json(vec![Bytes::from_static(b"null")])
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
