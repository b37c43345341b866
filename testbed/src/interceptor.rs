//! A man in the middle: shows a certificate of its own, passes on everything, and remembers what the client sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Listens on loopback until it is dropped.
pub struct Interceptor {
    /// Where it listens.
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    _runtime: Runtime,
}

impl Interceptor {
    /// Stands before `server`, with a certificate for `127.0.0.1` that nobody knows.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        let certificate = params.self_signed(&key)?.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let connector = TlsConnector::from(crate::any_certificate::accepted()?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .context("listening")?;
        let address = listener.local_addr()?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = Arc::clone(&heard);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, connector) = (acceptor.clone(), connector.clone());
                let ears = Arc::clone(&ears);
                // Whoever does not trust the certificate goes away, which is what is wanted.
                tokio::spawn(async move {
                    let _ = pass_on(client, server, acceptor, connector, &ears).await;
                });
            }
        });
        Ok(Self {
            address,
            heard,
            _runtime: runtime,
        })
    }

    /// All that clients have sent so far, inside of TLS.
    #[must_use]
    pub fn heard(&self) -> String {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&heard).into_owned()
    }
}

async fn pass_on(
    client: TcpStream,
    server: SocketAddr,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    heard: &Mutex<Vec<u8>>,
) -> Result<()> {
    let client = acceptor.accept(client).await?;
    let server = TcpStream::connect(server).await?;
    let server = connector.connect("127.0.0.1".try_into()?, server).await?;
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let up = async {
        let mut buffer = vec![0; 16384];
        loop {
            let count = from_client.read(&mut buffer).await?;
            let bytes = buffer.get(..count).unwrap_or_default();
            heard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(bytes);
            if bytes.is_empty() {
                return Ok(());
            }
            to_server.write_all(bytes).await?;
        }
    };
    let down = async {
        tokio::io::copy(&mut from_server, &mut to_client).await?;
        Ok(())
    };
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}
