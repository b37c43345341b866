//! Dispatch of the calls of a backup session.

use std::sync::Arc;

use backstop_format::Digest;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::calls::CALLS;
use super::error::SessionError;
use super::index_writer::{CloseClaim, IndexKind};
use super::session::BackupSession;
use super::upload::ChunkAnnouncement;
use crate::http::ApiError;
use crate::router::{Method, Params};
use crate::session_http2::calls::{Answer, Call, Session};

impl From<SessionError> for Refusal {
    fn from(err: SessionError) -> Self {
        Self(ApiError::new(err.status(), err.to_string()))
    }
}

impl From<ApiError> for Refusal {
    fn from(err: ApiError) -> Self {
        Self(err)
    }
}

/// An error on its way to the client.
struct Refusal(ApiError);

impl Session for BackupSession {
    const CALLS: &'static [Call] = CALLS;

    async fn call(
        self: Arc<Self>,
        call: &'static Call,
        params: Params,
        body: Option<Incoming>,
    ) -> Result<Answer, ApiError> {
        carry_out(&self, call, &params, body)
            .await
            .map_err(|refusal| refusal.0)
    }

    fn log_call(&self, text: &str) {
        self.debug(|| text.to_owned());
    }

    fn log_failure(&self, text: &str) {
        self.log(text);
    }
}

async fn carry_out(
    session: &Arc<BackupSession>,
    call: &'static Call,
    params: &Params,
    body: Option<Incoming>,
) -> Result<Answer, Refusal> {
    let text = |name: &str| params.required_text(name).map(str::to_owned);
    let kind = if call.name.starts_with("fixed") {
        IndexKind::Fixed
    } else {
        IndexKind::Dynamic
    };
    let data = match (call.method, call.name, body) {
        (Method::Post, "blob", Some(body)) => {
            session
                .upload_blob(text("file-name")?, length(params, "encoded-size")?, body)
                .await?;
            Value::Null
        }
        (Method::Post, "dynamic_chunk" | "fixed_chunk", Some(body)) => {
            let announced = ChunkAnnouncement {
                digest: digest(params, "digest")?,
                size: u32::try_from(number(params, "size")?).unwrap_or(u32::MAX),
                encoded_size: length(params, "encoded-size")?,
            };
            let digest = session
                .upload_chunk(kind, wid(params)?, announced, body)
                .await?;
            json!(digest.to_string())
        }
        (Method::Post, "speedtest", Some(body)) => {
            session.speedtest(body).await?;
            Value::Null
        }
        (Method::Post, "dynamic_index", _) => {
            json!(session.create_dynamic(text("archive-name")?).await?)
        }
        (Method::Post, "fixed_index", _) => {
            let size = params.unsigned("size")?;
            let reuse = params
                .has("reuse-csum")
                .then(|| digest(params, "reuse-csum"))
                .transpose()?;
            json!(
                session
                    .create_fixed(text("archive-name")?, size, reuse)
                    .await?
            )
        }
        (Method::Put, "dynamic_index" | "fixed_index", _) => {
            session
                .append(kind, wid(params)?, digests(params)?, offsets(params)?)
                .await?;
            Value::Null
        }
        (Method::Post, "dynamic_close" | "fixed_close", _) => {
            let claim = CloseClaim {
                chunk_count: number(params, "chunk-count")?,
                size: number(params, "size")?,
                csum: digest(params, "csum")?,
            };
            session.close(kind, wid(params)?, claim).await?;
            Value::Null
        }
        (Method::Get, "previous", _) => return Ok(session.previous(text("archive-name")?).await?),
        (Method::Get, "previous_backup_time", _) => session.previous_backup_time(),
        (Method::Post, "finish", _) => {
            session.finish().await?;
            Value::Null
        }
        _ => return Err(ApiError::not_found(format!("Path '/{}' not found.", call.name)).into()),
    };
    Ok(Answer::Data(data))
}

fn number(params: &Params, name: &str) -> Result<u64, ApiError> {
    params
        .unsigned(name)?
        .ok_or_else(|| ApiError::parameter(name, "parameter is missing and it is not optional."))
}

fn length(params: &Params, name: &str) -> Result<usize, ApiError> {
    usize::try_from(number(params, name)?).map_err(ApiError::from)
}

fn wid(params: &Params) -> Result<u16, ApiError> {
    u16::try_from(number(params, "wid")?).map_err(ApiError::from)
}

fn digest(params: &Params, name: &str) -> Result<Digest, ApiError> {
    params.required_text(name)?.parse().map_err(ApiError::from)
}

fn digests(params: &Params) -> Result<Vec<Digest>, ApiError> {
    params
        .texts("digest-list")
        .into_iter()
        .map(|text| text.parse().map_err(ApiError::from))
        .collect()
}

fn offsets(params: &Params) -> Result<Vec<u64>, ApiError> {
    let list = params.as_map().get("offset-list").and_then(Value::as_array);
    let wrong = || ApiError::parameter("offset-list", "Expected integer value.");
    list.into_iter()
        .flatten()
        .map(|value| value.as_u64().ok_or_else(wrong))
        .collect()
}
