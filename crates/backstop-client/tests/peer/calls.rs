//! The calls inside of a session.

use std::collections::HashMap;
use std::sync::Arc;

use backstop_format::Digest;
use backstop_format::blob::DataBlob;
use backstop_format::index::{AnyIndex, ChunkIndex as _, DynamicIndexBuilder, FixedIndexBuilder};
use bytes::Bytes;
use h2::server::SendResponse;
use http::{Method, Response, Uri};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::State;

type Query = HashMap<String, String>;
type Reply = Result<Vec<u8>, (u16, String)>;

pub fn query(uri: &Uri) -> Query {
    let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    uri.query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

enum Index {
    Fixed(FixedIndexBuilder),
    Dynamic(DynamicIndexBuilder),
}

struct Writer {
    name: String,
    index: Index,
    count: u64,
}

/// A session of either kind.
struct Session {
    state: Arc<Mutex<State>>,
    time: i64,
    known: HashMap<Digest, u64>,
    files: HashMap<String, Vec<u8>>,
    writers: HashMap<i64, Writer>,
    next_writer: i64,
}

pub async fn serve_session<S>(stream: S, state: Arc<Mutex<State>>, backup: bool, query: &Query)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = h2::server::Builder::new()
        .initial_window_size(32 << 20)
        .initial_connection_window_size(32 << 20)
        .max_frame_size(4 << 20)
        .handshake::<_, Bytes>(stream)
        .await
        .unwrap();
    let session = Arc::new(Mutex::new(Session {
        state: Arc::clone(&state),
        time: query["backup-time"].parse().unwrap(),
        known: HashMap::new(),
        files: HashMap::new(),
        writers: HashMap::new(),
        next_writer: 1,
    }));
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if request.uri().path().ends_with("_chunk") {
            let mut state = state.lock();
            state.chunk_uploads += 1;
            if state.cut_at_chunk == Some(state.chunk_uploads) {
                return;
            }
        }
        let session = Arc::clone(&session);
        tokio::spawn(async move {
            let (parts, mut body) = request.into_parts();
            let mut content = Vec::new();
            while let Some(piece) = body.data().await {
                let Ok(piece) = piece else { return };
                content.extend_from_slice(&piece);
                let _ = body.flow_control().release_capacity(piece.len());
            }
            let query = self::query(&parts.uri);
            let reply = {
                let mut session = session.lock();
                let path = parts.uri.path().trim_start_matches('/');
                session
                    .state
                    .lock()
                    .calls
                    .push(format!("{} {path}", parts.method));
                if backup {
                    session.backup_call(&parts.method, path, &query, content)
                } else {
                    session.reader_call(path, &query)
                }
            };
            answer(&mut respond, reply);
        });
    }
}

fn answer(respond: &mut SendResponse<Bytes>, reply: Reply) {
    let (status, body) = match reply {
        Ok(body) => (200, body),
        Err((status, text)) => (status, text.into_bytes()),
    };
    let head = Response::builder().status(status).body(()).unwrap();
    if let Ok(mut stream) = respond.send_response(head, false) {
        let _ = stream.send_data(body.into(), true);
    }
}

fn data(value: Value) -> Reply {
    Ok(json!({"data": value}).to_string().into_bytes())
}

fn bad(text: impl Into<String>) -> (u16, String) {
    (400, text.into())
}

fn check(right: bool, text: &str) -> Result<(), (u16, String)> {
    if right { Ok(()) } else { Err(bad(text)) }
}

impl Session {
    fn backup_call(&mut self, method: &Method, path: &str, query: &Query, body: Vec<u8>) -> Reply {
        let number = |key: &str| query.get(key).and_then(|text| text.parse::<u64>().ok());
        match (method.as_str(), path) {
            ("GET", "previous_backup_time") => data(self.previous_time().into()),
            ("GET", "previous") => {
                let name = &query["archive-name"];
                let time = self
                    .previous_time()
                    .ok_or_else(|| bad("no valid previous backup"))?;
                let raw = self.file(time, name)?;
                self.register(name, &raw);
                Ok(raw)
            }
            ("POST", "blob") => {
                check(
                    number("encoded-size") == Some(body.len() as u64),
                    "wrong size",
                )?;
                DataBlob::load(body.clone()).map_err(|error| bad(error.to_string()))?;
                self.files.insert(query["file-name"].clone(), body);
                data(Value::Null)
            }
            ("POST", "dynamic_index" | "fixed_index") => {
                let index = if path == "fixed_index" {
                    Index::Fixed(FixedIndexBuilder::new(number("size"), 4 << 20).unwrap())
                } else {
                    Index::Dynamic(DynamicIndexBuilder::new())
                };
                let id = self.next_writer;
                self.next_writer += 1;
                let name = query["archive-name"].clone();
                self.writers.insert(
                    id,
                    Writer {
                        name,
                        index,
                        count: 0,
                    },
                );
                data(id.into())
            }
            ("POST", "dynamic_chunk" | "fixed_chunk") => self.chunk(query, body),
            ("PUT", "dynamic_index" | "fixed_index") => {
                self.append(&serde_json::from_slice(&body).unwrap())
            }
            ("POST", "dynamic_close" | "fixed_close") => self.close(query),
            ("POST", "speedtest") => data(Value::Null),
            ("POST", "finish") => {
                check(
                    self.writers.is_empty(),
                    "found open index writer - unable to finish backup",
                )?;
                check(
                    self.files.contains_key("index.json.blob"),
                    "unable to update manifest blob",
                )?;
                let files = std::mem::take(&mut self.files);
                self.state.lock().snapshots.insert(self.time, files);
                data(Value::Null)
            }
            _ => Err((404, format!("Path '{path}' not found."))),
        }
    }

    fn reader_call(&mut self, path: &str, query: &Query) -> Reply {
        match path {
            "download" => {
                let name = &query["file-name"];
                let raw = self.file(self.time, name)?;
                self.register(name, &raw);
                Ok(raw)
            }
            "chunk" => {
                let digest: Digest = query["digest"].parse().unwrap();
                if !self.known.contains_key(&digest) {
                    return Err((401, format!("download chunk {digest} not allowed")));
                }
                let chunk = self.state.lock().chunks.get(&digest).cloned();
                chunk.ok_or_else(|| bad("reading file failed: No such file"))
            }
            _ => Err((404, format!("Path '{path}' not found."))),
        }
    }

    fn previous_time(&self) -> Option<i64> {
        self.state.lock().snapshots.keys().next_back().copied()
    }

    fn file(&self, time: i64, name: &str) -> Reply {
        let state = self.state.lock();
        let found = state
            .snapshots
            .get(&time)
            .and_then(|files| files.get(name))
            .cloned();
        found.ok_or_else(|| (404, format!("open file {name} failed - not found")))
    }

    fn register(&mut self, name: &str, raw: &[u8]) {
        if let (false, Ok(index)) = (name.ends_with(".blob"), AnyIndex::parse(raw)) {
            for position in 0..index.chunk_count() {
                let span = index.chunk(position).unwrap();
                self.known.insert(span.digest, span.size());
            }
        }
    }

    fn chunk(&mut self, query: &Query, body: Vec<u8>) -> Reply {
        let size: u64 = query["size"].parse().unwrap();
        let digest: Digest = query["digest"].parse().unwrap();
        check(
            query["encoded-size"] == body.len().to_string(),
            "uploaded chunk has unexpected size.",
        )?;
        let blob = DataBlob::load(body).map_err(|error| bad(error.to_string()))?;
        if !blob.is_encrypted() {
            blob.verify_plain_chunk(&digest, size)
                .map_err(|error| bad(error.to_string()))?;
        }
        let mut state = self.state.lock();
        if state
            .fail_chunk
            .is_some_and(|first| state.chunk_uploads >= first)
        {
            return Err(bad("No space left on device"));
        }
        state.chunks.insert(digest, blob.into_raw());
        drop(state);
        self.known.insert(digest, size);
        data(digest.to_string().into())
    }

    fn append(&mut self, body: &Value) -> Reply {
        let writer = self
            .writers
            .get_mut(&body["wid"].as_i64().unwrap())
            .unwrap();
        let offsets = body["offset-list"].as_array().unwrap();
        let digests = body["digest-list"].as_array().unwrap();
        check(
            offsets.len() == digests.len(),
            "offset list has wrong length",
        )?;
        for (offset, digest) in offsets.iter().zip(digests) {
            let digest: Digest = digest.as_str().unwrap().parse().unwrap();
            let offset = offset.as_u64().unwrap();
            let size = *self
                .known
                .get(&digest)
                .ok_or_else(|| bad(format!("no such chunk {digest}")))?;
            match &mut writer.index {
                Index::Fixed(index) => index
                    .add(offset, size, &digest)
                    .map_err(|error| bad(error.to_string()))?,
                Index::Dynamic(index) => {
                    check(index.size() == offset, "got strange chunk offset")?;
                    index.append(size, &digest).unwrap();
                }
            }
            writer.count += 1;
        }
        data(Value::Null)
    }

    fn close(&mut self, query: &Query) -> Reply {
        let writer = self
            .writers
            .remove(&query["wid"].parse().unwrap())
            .ok_or_else(|| bad("no such writer"))?;
        let (raw, checksum, size) = match writer.index {
            Index::Fixed(index) => index.finish(),
            Index::Dynamic(index) => index.finish(),
        }
        .map_err(|error| bad(error.to_string()))?;
        check(
            query["chunk-count"] == writer.count.to_string(),
            "wrong chunk count",
        )?;
        check(query["size"] == size.to_string(), "wrong size")?;
        check(query["csum"] == checksum.to_string(), "wrong checksum")?;
        self.files.insert(writer.name, raw);
        data(Value::Null)
    }
}
