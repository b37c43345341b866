//! The two output formats, `json` and `extjs`.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::body::{self, Body};
use super::error::ApiError;
use super::reply::Reply;

/// The output format, chosen by the second path component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// `/api2/json`: status codes tell errors, error bodies are plain text.
    Json,
    /// `/api2/extjs`: errors are part of a 200 reply.
    Extjs,
}

/// Parts of an answer below this number of bytes are put together.
const SMALL: usize = 16 << 10;
const JSON: HeaderValue = HeaderValue::from_static("application/json;charset=UTF-8");

impl OutputFormat {
    /// Parses the path component.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "extjs" => Some(Self::Extjs),
            _ => None,
        }
    }

    /// Puts a handler's answer into its envelope.
    pub fn success(self, reply: Reply) -> Response<Body> {
        match reply {
            Reply::Raw(response) => response,
            Reply::Data {
                json,
                mut attributes,
            } => {
                if self == Self::Extjs {
                    attributes.insert("success".into(), Value::Bool(true));
                    attributes.insert("status".into(), json!(200));
                }
                respond(StatusCode::OK, envelope(json, &attributes))
            }
        }
    }

    /// Renders an error.
    pub fn error(self, err: &ApiError) -> Response<Body> {
        match self {
            Self::Json => respond(err.status(), body::full(err.to_string())),
            Self::Extjs => {
                let errors: Map<String, Value> = err
                    .parameter_errors()
                    .iter()
                    .map(|(name, text)| (name.clone(), Value::String(text.clone())))
                    .collect();
                let message = if errors.is_empty() {
                    err.to_string()
                } else {
                    "parameter verification errors".to_owned()
                };
                let body = json!({
                    "errors": errors,
                    "message": message,
                    "status": err.status().as_u16(),
                    "success": false,
                });
                respond(StatusCode::OK, body::full(body.to_string()))
            }
        }
    }
}

/// An error that happens before an output format is known, or that is never wrapped: plain text without a content type.
pub fn plain_error(err: &ApiError) -> Response<Body> {
    let mut response = Response::new(body::full(err.to_string()));
    *response.status_mut() = err.status();
    response
}

fn envelope(data: Vec<Bytes>, attributes: &Map<String, Value>) -> Body {
    let mut end = String::new();
    for (name, value) in attributes {
        end.push_str(&format!(",{}:{value}", Value::String(name.clone())));
    }
    end.push('}');
    let mut parts = vec![Bytes::from_static(b"{\"data\":")];
    parts.extend(data);
    parts.push(end.into());
    body::parts(joined(parts))
}

/// Puts small neighbours together, so that few pieces are sent.
fn joined(parts: Vec<Bytes>) -> Vec<Bytes> {
    let mut all = Vec::new();
    let mut small = Vec::new();
    for part in parts {
        if part.len() < SMALL {
            small.extend_from_slice(&part);
        }
        if part.len() >= SMALL || small.len() >= SMALL {
            all.push(std::mem::take(&mut small).into());
        }
        if part.len() >= SMALL {
            all.push(part);
        }
    }
    all.push(small.into());
    all
}

fn respond(status: StatusCode, content: Body) -> Response<Body> {
    let mut response = Response::new(content);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use http_body_util::BodyExt;

    async fn text(response: Response<Body>) -> String {
        String::from_utf8(
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .to_vec(),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn attributes_stand_beside_the_data() {
        let reply = Reply::data(&["a"])
            .unwrap()
            .with("total", 1)
            .with_digest("00");
        assert_eq!(
            text(OutputFormat::Json.success(reply)).await,
            r#"{"data":["a"],"digest":"00","total":1}"#
        );
        let reply = Reply::null().with_digest("00");
        assert_eq!(
            text(OutputFormat::Extjs.success(reply)).await,
            r#"{"data":null,"digest":"00","status":200,"success":true}"#
        );
    }

    #[tokio::test]
    async fn an_answer_in_parts_arrives_whole_in_few_pieces_with_its_length_told() {
        let sizes = [0, 1, SMALL, 3, SMALL - 1, SMALL - 1, 5 * SMALL, 7, 0];
        let parts: Vec<Bytes> = (sizes.iter().zip(b'a'..))
            .map(|(size, letter)| vec![letter; *size].into())
            .collect();
        let whole = parts.concat();
        let pieces = joined(parts.clone());
        assert_eq!(pieces.concat(), whole);
        assert!(pieces.len() <= 8, "{}", pieces.len());
        let body = OutputFormat::Json.success(Reply::json(parts)).into_body();
        let told = hyper::body::Body::size_hint(&body).exact();
        let got = body.collect().await.unwrap().to_bytes();
        assert_eq!(told, Some(got.len() as u64));
        assert_eq!(got, [b"{\"data\":", &*whole, b"}"].concat());
    }

    #[tokio::test]
    async fn an_extjs_error_is_a_200_that_says_no() {
        let response = OutputFormat::Extjs.error(&ApiError::forbidden("permission check failed"));
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            text(response).await,
            r#"{"errors":{},"message":"permission check failed","status":403,"success":false}"#
        );
        let response = OutputFormat::Extjs.error(&ApiError::parameter("a", "bad"));
        assert_eq!(
            text(response).await,
            r#"{"errors":{"a":"bad"},"message":"parameter verification errors","status":400,"success":false}"#
        );
    }
}
