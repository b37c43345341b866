#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
//! A peer in memory that speaks the session protocols, so that tests can damage what it stores and break what it says.
//! It checks what a real server checks of the calls that it answers.

pub mod bench;
mod calls;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use backstop_client::{ClientOptions, HttpClient};
use backstop_format::{Digest, Fingerprint};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the peer stores, and how it misbehaves.
#[derive(Default)]
pub struct State {
    /// Finished snapshots by time; files by name.
    pub snapshots: BTreeMap<i64, HashMap<String, Vec<u8>>>,
    pub chunks: HashMap<Digest, Vec<u8>>,
    /// Calls of sessions, as `METHOD path`.
    pub calls: Vec<String>,
    /// Values of the `Authorization` and `Cookie` headers seen.
    pub credentials: Vec<String>,
    /// Answer upgrades with this status and text.
    pub refuse: Option<(u16, &'static str)>,
    /// Answer chunk uploads with an error once there were so many.
    pub fail_chunk: Option<usize>,
    /// Cut the connection at the n-th chunk upload.
    pub cut_at_chunk: Option<usize>,
    pub chunk_uploads: usize,
}

pub struct Peer {
    pub address: SocketAddr,
    pub fingerprint: Fingerprint,
    pub state: Arc<Mutex<State>>,
}

impl Peer {
    pub async fn start() -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["peer.test".to_owned()]).unwrap();
        let certificate = certified.cert.der().clone();
        let fingerprint = Fingerprint(Digest::of(&certificate).0);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
            certified.signing_key.serialize_der(),
        ));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request| serve(request, Arc::clone(&state)));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Self {
            address,
            fingerprint,
            state,
        }
    }

    /// Options of a client that trusts this peer and uses a token.
    pub fn options(&self) -> ClientOptions {
        let mut options =
            ClientOptions::new("127.0.0.1", self.address.port(), "u@pbs!t".parse().unwrap());
        options.secret = Some("secret".to_owned());
        options.fingerprint = Some(self.fingerprint);
        options
    }

    pub async fn client(&self) -> HttpClient {
        HttpClient::connect(self.options()).await.unwrap()
    }
}

async fn serve(
    mut request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    for name in ["authorization", "cookie"] {
        if let Some(value) = request.headers().get(name) {
            state
                .lock()
                .credentials
                .push(value.to_str().unwrap().to_owned());
        }
    }
    let path = request.uri().path().to_owned();
    let reply = match path.as_str() {
        "/api2/json/access/ticket" => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            if body["password"] == "secret" || body["password"] == "PBS:ticket" {
                let data = serde_json::json!({"data": {
                    "username": body["username"], "ticket": "PBS:ticket", "CSRFPreventionToken": "csrf"
                }});
                Response::new(Full::from(data.to_string()))
            } else {
                refusal(401, "permission check failed.")
            }
        }
        "/api2/json/version" => Response::new(Full::from(r#"{"data":{"version":"4.2"}}"#)),
        "/api2/json/backup" | "/api2/json/reader" => {
            if let Some((status, text)) = state.lock().refuse {
                return Ok(refusal(status, text));
            }
            let query = calls::query(request.uri());
            let backup = path.ends_with("backup");
            let protocol = request.headers()["upgrade"].clone();
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let stream = TokioIo::new(upgrade.await.unwrap());
                calls::serve_session(stream, state, backup, &query).await;
            });
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "upgrade")
                .header("upgrade", protocol)
                .body(Full::default())
                .unwrap()
        }
        _ => refusal(404, "Path not found."),
    };
    Ok(reply)
}

fn refusal(status: u16, text: &'static str) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .body(Full::from(text))
        .unwrap()
}
