//! The table of calls of a backup session, with the limits that the protocol sets.

use backstop_format::blob::{ENCRYPTED_HEADER_SIZE, HEADER_SIZE, MAX_CHUNK_SIZE};
use backstop_types::is_safe_id;
use backstop_types::schema::{Property, Schema};

use crate::router::Method;
use crate::session_http2::calls::Call;

const MAX_ENCODED: i64 = (MAX_CHUNK_SIZE + ENCRYPTED_HEADER_SIZE) as i64;

static FILE_NAME: Schema = Schema::pattern(is_safe_id);
static DIGEST: Schema = Schema::pattern(is_lower_hex_digest);
static DIGESTS: Schema = Schema::array(&DIGEST);
static OFFSET: Schema = Schema::integer(0, i64::MAX);
static OFFSETS: Schema = Schema::array(&OFFSET);
static WRITER: Schema = Schema::integer(1, 256);
static CHUNK_SIZE: Schema = Schema::integer(1, MAX_CHUNK_SIZE as i64);
static ENCODED_CHUNK: Schema = Schema::integer(HEADER_SIZE as i64 + 1, MAX_ENCODED);
static ENCODED_BLOB: Schema = Schema::integer(HEADER_SIZE as i64, MAX_ENCODED);
static AT_LEAST_ONE: Schema = Schema::integer(1, i64::MAX);
static COUNT: Schema = Schema::integer(0, i64::MAX);

const ARCHIVE: Property = Property::required("archive-name", &FILE_NAME);
const WID: Property = Property::required("wid", &WRITER);
const CSUM: Property = Property::required("csum", &DIGEST);

const NOTHING: &[Property] = &[];
const CHUNK: &[Property] = &[
    WID,
    Property::required("digest", &DIGEST),
    Property::required("size", &CHUNK_SIZE),
    Property::required("encoded-size", &ENCODED_CHUNK),
];
const APPEND: &[Property] = &[
    WID,
    Property::required("digest-list", &DIGESTS),
    Property::required("offset-list", &OFFSETS),
];

/// All calls.
pub const CALLS: &[Call] = &[
    Call {
        method: Method::Post,
        name: "blob",
        params: &[
            Property::required("file-name", &FILE_NAME),
            Property::required("encoded-size", &ENCODED_BLOB),
        ],
        raw_body: true,
    },
    Call {
        method: Method::Post,
        name: "dynamic_index",
        params: &[ARCHIVE],
        raw_body: false,
    },
    Call {
        method: Method::Put,
        name: "dynamic_index",
        params: APPEND,
        raw_body: false,
    },
    Call {
        method: Method::Post,
        name: "dynamic_chunk",
        params: CHUNK,
        raw_body: true,
    },
    Call {
        method: Method::Post,
        name: "dynamic_close",
        params: &[
            WID,
            Property::required("chunk-count", &AT_LEAST_ONE),
            Property::required("size", &AT_LEAST_ONE),
            CSUM,
        ],
        raw_body: false,
    },
    Call {
        method: Method::Post,
        name: "fixed_index",
        params: &[
            ARCHIVE,
            Property::optional("size", &AT_LEAST_ONE),
            Property::optional("reuse-csum", &DIGEST),
        ],
        raw_body: false,
    },
    Call {
        method: Method::Put,
        name: "fixed_index",
        params: APPEND,
        raw_body: false,
    },
    Call {
        method: Method::Post,
        name: "fixed_chunk",
        params: CHUNK,
        raw_body: true,
    },
    Call {
        method: Method::Post,
        name: "fixed_close",
        params: &[
            WID,
            Property::required("chunk-count", &COUNT),
            Property::required("size", &COUNT),
            CSUM,
        ],
        raw_body: false,
    },
    Call {
        method: Method::Get,
        name: "previous",
        params: &[ARCHIVE],
        raw_body: false,
    },
    Call {
        method: Method::Get,
        name: "previous_backup_time",
        params: NOTHING,
        raw_body: false,
    },
    Call {
        method: Method::Post,
        name: "speedtest",
        params: NOTHING,
        raw_body: true,
    },
    Call {
        method: Method::Post,
        name: "finish",
        params: NOTHING,
        raw_body: false,
    },
];

fn is_lower_hex_digest(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
