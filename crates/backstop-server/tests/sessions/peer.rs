//! A client of the session protocols: TLS, the HTTP/1.1 upgrade, then HTTP/2. Nothing of the server's own code.

use std::net::SocketAddr;

use backstop_format::Digest;
use backstop_format::blob::DataBlob;
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const BACKUP: &str = "proxmox-backup-protocol-v1";
pub const READER: &str = "proxmox-backup-reader-protocol-v1";

/// Opens a TLS connection.
pub async fn connect(addr: SocketAddr) -> TlsStream<TcpStream> {
    let config = testbed::any_certificate::accepted().unwrap();
    let tcp = TcpStream::connect(addr).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, tcp).await.unwrap()
}

/// An answer of the server.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `data` of a successful answer.
    pub fn data(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        let mut value: Value = serde_json::from_slice(&self.body).unwrap();
        let object = value.as_object_mut().unwrap();
        assert!(object.contains_key("data"));
        object["data"].take()
    }

    /// The text of a refusal with status 400.
    pub fn refusal(&self) -> String {
        assert_eq!(self.status, StatusCode::BAD_REQUEST, "{}", self.text());
        self.text()
    }
}

/// One request over HTTP/1.1; gives the answer's head and what was read of its body.
pub async fn exchange(stream: &mut TlsStream<TcpStream>, request: &str) -> Reply {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    let mut piece = [0u8; 4096];
    let end = loop {
        let count = stream.read(&mut piece).await.unwrap();
        assert!(
            count > 0,
            "connection closed before the answer: {}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&piece[..count]);
        if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8(seen[..end].to_vec())
        .unwrap()
        .to_ascii_lowercase();
    let status = StatusCode::from_bytes(head.split(' ').nth(1).unwrap().as_bytes()).unwrap();
    let mut body = seen[end..].to_vec();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        let length: usize = length.trim().parse().unwrap();
        while body.len() < length {
            let count = stream.read(&mut piece).await.unwrap();
            assert!(count > 0);
            body.extend_from_slice(&piece[..count]);
        }
    }
    Reply {
        status,
        body: body.into(),
    }
}

/// One REST call with form parameters in the body, or without a body.
pub async fn rest(addr: SocketAddr, method: Method, path: &str, body: &[u8], auth: &str) -> Reply {
    let stream = hyper_util::rt::TokioIo::new(connect(addr).await);
    let (mut send, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(format!("/api2/json/{path}"))
        .header("host", "localhost:8007")
        .header("authorization", format!("PBSAPIToken={auth}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::copy_from_slice(body)))
        .unwrap();
    let response = send.send_request(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    drop(send);
    connection.await.unwrap().unwrap();
    Reply { status, body }
}

/// The HTTP/1.1 request that asks for a session.
pub fn upgrade_request(protocol: &str, query: &str, auth: &str) -> String {
    let endpoint = if protocol == BACKUP {
        "backup"
    } else {
        "reader"
    };
    format!(
        "GET /api2/json/{endpoint}?{query} HTTP/1.1\r\nhost: localhost:8007\r\nconnection: upgrade\r\n\
         upgrade: {protocol}\r\nauthorization: PBSAPIToken={auth}\r\n\r\n"
    )
}

/// A session.
pub struct Peer {
    send: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

impl Peer {
    /// Asks for a session; the refusal if there is none.
    pub async fn open(
        addr: SocketAddr,
        protocol: &str,
        query: &str,
        auth: &str,
    ) -> Result<Self, Reply> {
        let mut stream = connect(addr).await;
        let reply = exchange(&mut stream, &upgrade_request(protocol, query, auth)).await;
        if reply.status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(reply);
        }
        assert!(reply.body.is_empty());
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 30)
            .initial_connection_window_size(1 << 30)
            .max_frame_size(4 << 20)
            .handshake(stream)
            .await
            .unwrap();
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { send, connection })
    }

    /// One call.
    pub async fn call(&self, method: Method, path: &str, kind: &str, body: Bytes) -> Reply {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://localhost:8007/{path}"))
            .header("content-type", kind)
            .body(())
            .unwrap();
        let mut send = self.send.clone().ready().await.unwrap();
        let (response, mut stream) = send.send_request(request, body.is_empty()).unwrap();
        if !body.is_empty() {
            // an early refusal resets the stream; the answer tells why
            let _ = stream.send_data(body, true);
        }
        let response = response.await.unwrap();
        let status = response.status();
        let mut incoming = response.into_body();
        let mut content = Vec::new();
        while let Some(data) = incoming.data().await {
            let Ok(data) = data else { break };
            let _ = incoming.flow_control().release_capacity(data.len());
            content.extend_from_slice(&data);
        }
        Reply {
            status,
            body: content.into(),
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call(
            Method::GET,
            path,
            "application/x-www-form-urlencoded",
            Bytes::new(),
        )
        .await
    }

    pub async fn post(&self, path: &str) -> Reply {
        self.call(
            Method::POST,
            path,
            "application/x-www-form-urlencoded",
            Bytes::new(),
        )
        .await
    }

    pub async fn send_json(&self, method: Method, path: &str, body: Value) -> Reply {
        self.call(method, path, "application/json", body.to_string().into())
            .await
    }

    /// Uploads raw bytes.
    pub async fn upload(&self, path: &str, raw: &[u8]) -> Reply {
        self.call(
            Method::POST,
            path,
            "application/octet-stream",
            Bytes::copy_from_slice(raw),
        )
        .await
    }

    /// Uploads a chunk of plain data through a writer; `kind` is `dynamic` or `fixed`.
    pub async fn upload_chunk(&self, kind: &str, wid: u64, plain: &[u8]) -> Reply {
        let blob = DataBlob::encode(plain, None, true).unwrap();
        let (digest, size) = (Digest::of(plain), plain.len());
        let encoded = blob.raw().len();
        let path =
            format!("{kind}_chunk?wid={wid}&digest={digest}&size={size}&encoded-size={encoded}");
        self.upload(&path, blob.raw()).await
    }

    pub async fn upload_blob(&self, name: &str, blob: &DataBlob) -> Reply {
        let path = format!("blob?file-name={name}&encoded-size={}", blob.raw().len());
        self.upload(&path, blob.raw()).await
    }

    /// Uploads `chunks` as the archive `name` and closes its index; gives the manifest entry.
    pub async fn upload_archive(&self, name: &str, chunks: &[&[u8]]) -> Value {
        let wid = self
            .post(&format!("dynamic_index?archive-name={name}"))
            .await
            .data()
            .as_u64()
            .unwrap();
        let (mut digests, mut offsets, mut csum, mut end) =
            (Vec::new(), Vec::new(), Vec::new(), 0u64);
        for chunk in chunks {
            let digest = Digest::of(chunk);
            assert_eq!(
                self.upload_chunk("dynamic", wid, chunk).await.data(),
                json!(digest.to_string())
            );
            digests.push(digest.to_string());
            offsets.push(end);
            end += chunk.len() as u64;
            csum.extend_from_slice(&end.to_le_bytes());
            csum.extend_from_slice(digest.as_bytes());
        }
        let list = json!({"wid": wid, "digest-list": digests, "offset-list": offsets});
        self.send_json(Method::PUT, "dynamic_index", list)
            .await
            .data();
        let csum = Digest::of(&csum);
        let count = chunks.len();
        let close = format!("dynamic_close?wid={wid}&chunk-count={count}&size={end}&csum={csum}");
        self.post(&close).await.data();
        json!({"filename": name, "crypt-mode": "none", "size": end, "csum": csum.to_string()})
    }

    /// Uploads the manifest for a snapshot of `host/<id>` and finishes.
    pub async fn finish(&self, id: &str, time: i64, files: Vec<Value>) -> Reply {
        let manifest = json!({
            "backup-type": "host", "backup-id": id, "backup-time": time, "files": files, "signature": null,
            "unprotected": {},
        });
        let blob = DataBlob::encode(manifest.to_string().as_bytes(), None, true).unwrap();
        self.upload_blob("index.json.blob", &blob).await.data();
        self.post("finish").await
    }

    /// Closes the connection in an orderly way and waits until it is closed.
    pub async fn close(self) {
        drop(self.send);
        let _ = self.connection.await;
    }

    /// Breaks the connection off, as a killed client does.
    pub fn kill(self) {
        self.connection.abort();
    }
}
