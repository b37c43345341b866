//! The table of calls of a reader session.

use backstop_types::is_safe_id;
use backstop_types::schema::{Property, Schema};

use crate::router::Method;
use crate::session_http2::calls::Call;

static FILE_NAME: Schema = Schema::pattern(is_safe_id);
static DIGEST: Schema = Schema::pattern(is_lower_hex_digest);

/// All calls.
pub const CALLS: &[Call] = &[
    Call {
        method: Method::Get,
        name: "download",
        params: &[Property::required("file-name", &FILE_NAME)],
        raw_body: false,
    },
    Call {
        method: Method::Get,
        name: "chunk",
        params: &[Property::required("digest", &DIGEST)],
        raw_body: false,
    },
    Call {
        method: Method::Get,
        name: "speedtest",
        params: &[],
        raw_body: false,
    },
];

fn is_lower_hex_digest(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
