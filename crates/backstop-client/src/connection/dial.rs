//! Opens a trusted TLS connection to a server, directly or through a proxy.
//!
//! Never hands out a stream whose certificate was not accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backstop_format::{Digest, Fingerprint};
use backstop_outgoing::dial::connect_tcp;
use backstop_outgoing::tls::Judge;
use backstop_types::record::CertificateStatus;
use jiff::Timestamp;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate_verifier;
use super::continuity::{self, Unproven};
use super::options::ClientOptions;
use super::pins::{Known, PinChange, PinKeeper, Proof};
use super::trust::{PinOrAuthorities, UntrustedCertificate};
use crate::error::{ClientError, Result};

/// Limit for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How much encrypted data a connection buffers before it is written; larger means fewer system calls.
const TLS_BUFFER: usize = 512 * 1024;

/// Opens connections for one set of options and remembers an accepted certificate.
pub(crate) struct Dialer {
    options: ClientOptions,
    /// A fingerprint that was accepted during this run: confirmed by the user, or vouched for by the pinned key.
    accepted: parking_lot::Mutex<Option<Fingerprint>>,
    /// Whether every certificate that was shown was the pinned one.
    only_pinned: AtomicBool,
    /// The settings of the last connection, for the next one with the same trust: what it remembers of a handshake spares the
    /// next one the signature of the server and the look at its certificate.
    settings: parking_lot::Mutex<Option<Arc<TlsSettings>>>,
    /// Only one question at a time, to the user or to the server about its chain.
    asking: tokio::sync::Mutex<()>,
}

/// Settings of connections that trust the same.
struct TlsSettings {
    pin: Option<Fingerprint>,
    use_authorities: bool,
    judge: Arc<PinOrAuthorities>,
    config: Arc<ClientConfig>,
}

impl TlsSettings {
    fn new(
        pin: Option<Fingerprint>,
        use_authorities: bool,
        authorities: Option<Arc<Judge>>,
    ) -> std::result::Result<Self, rustls::Error> {
        let judge = Arc::new(PinOrAuthorities::new(pin, use_authorities, authorities));
        let config = certificate_verifier::client_config(Arc::clone(&judge))?;
        Ok(Self {
            pin,
            use_authorities,
            judge,
            config: Arc::new(config),
        })
    }
}

impl Dialer {
    pub fn new(options: ClientOptions) -> Self {
        Self {
            options,
            accepted: parking_lot::Mutex::new(None),
            only_pinned: AtomicBool::new(true),
            settings: parking_lot::Mutex::new(None),
            asking: tokio::sync::Mutex::new(()),
        }
    }

    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Connects and checks the certificate. If it is unknown, sees whether the pinned key vouches for it, or asks the user once.
    pub async fn dial(&self) -> Result<TlsStream<TcpStream>> {
        let pin = self.pin()?;
        let mut untrusted = match self.attempt(pin).await {
            Err(ClientError::Untrusted(untrusted)) => untrusted,
            other => return other,
        };
        if let (Some(pin), Some(keeper)) = (pin, &self.options.pins) {
            let shown = untrusted.presented.fingerprint;
            let one_question = self.asking.lock().await;
            // Another connection may have found out meanwhile.
            if *self.accepted.lock() != Some(shown) {
                match self.proof(Arc::clone(keeper), pin, &untrusted).await {
                    Ok(()) => *self.accepted.lock() = Some(shown),
                    Err(reason) => untrusted.unproven = Some(reason),
                }
            }
            drop(one_question);
            if *self.accepted.lock() == Some(shown) {
                return self.attempt(Some(shown)).await;
            }
        }
        let Some(confirm) = self.options.confirm_certificate.clone() else {
            return Err(ClientError::Untrusted(untrusted));
        };
        let _one_question = self.asking.lock().await;
        let presented = untrusted.presented.fingerprint;
        if *self.accepted.lock() != Some(presented) {
            let question = Arc::new(untrusted);
            let asked = Arc::clone(&question);
            let accepted = tokio::task::spawn_blocking(move || confirm(&asked))
                .await
                .unwrap_or(false);
            if !accepted {
                return Err(ClientError::Untrusted(Box::new((**question).clone())));
            }
            *self.accepted.lock() = Some(presented);
            self.remember(&presented);
        }
        self.attempt(Some(presented)).await
    }

    /// Sees whether the pinned key vouches for the certificate that is shown, and if so tells the keeper of the pin. Sends no
    /// credentials.
    async fn proof(
        &self,
        keeper: Arc<dyn PinKeeper>,
        pin: Fingerprint,
        untrusted: &UntrustedCertificate,
    ) -> std::result::Result<(), Unproven> {
        let shown = untrusted.presented.fingerprint;
        let asked = Arc::clone(&keeper);
        let known = tokio::task::spawn_blocking(move || asked.known(&pin)).await;
        let Known { announced, number } = known.unwrap_or_default();
        let (proof, number) = if announced == Some(shown) {
            (Proof::Announcement, number)
        } else {
            let stream = self.strictly(shown).await;
            let stream = stream.map_err(|error| Unproven::NoChain(error.to_string()))?;
            let chain = continuity::fetch(stream, &self.options.server()).await?;
            let now = Timestamp::now().as_second();
            let vouched = continuity::vouches(&chain, &pin, number, &shown, now)?;
            let links = vouched.links;
            (Proof::Chain { links }, vouched.number)
        };
        let change = PinChange {
            server: self.options.server(),
            from: pin,
            to: untrusted.presented.clone(),
            proof,
            number,
        };
        // A panic of the keeper costs the note, not the connection.
        let _ = tokio::task::spawn_blocking(move || keeper.changed(&change)).await;
        Ok(())
    }

    /// Tells the keeper of the pin what the server said of its certificates. Nothing is told when a certificate was accepted
    /// for another reason than the pin.
    pub async fn tell(&self, status: CertificateStatus) {
        let (Some(keeper), Ok(Some(pin))) = (self.options.pins.clone(), self.pin()) else {
            return;
        };
        if self.only_pinned.load(Ordering::Relaxed) && status.fingerprint == pin {
            let _ = tokio::task::spawn_blocking(move || keeper.told(&pin, &status)).await;
        }
    }

    /// The fingerprint to expect: accepted in this run, given, or stored for the host.
    fn pin(&self) -> Result<Option<Fingerprint>> {
        if let Some(accepted) = *self.accepted.lock() {
            return Ok(Some(accepted));
        }
        if let Some(given) = self.options.fingerprint {
            return Ok(Some(given));
        }
        match &self.options.fingerprint_store {
            Some(store) => store
                .load(&self.options.host)
                .map_err(|source| ClientError::File {
                    what: "reading",
                    path: store.path().to_owned(),
                    source,
                }),
            None => Ok(None),
        }
    }

    fn remember(&self, fingerprint: &Fingerprint) {
        if self.options.fingerprint.is_some() {
            return;
        }
        if let Some(store) = &self.options.fingerprint_store
            && let Err(error) = store.store(&self.options.host, fingerprint)
        {
            tracing::warn!(
                "unable to store the fingerprint in '{}' - {error}",
                store.path().display()
            );
        }
    }

    async fn attempt(&self, pin: Option<Fingerprint>) -> Result<TlsStream<TcpStream>> {
        let stream = self
            .tls(
                self.tcp().await?,
                pin,
                self.options.trust_system_authorities,
            )
            .await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let shown = certificates.first().map(|leaf| Digest::of(leaf).0);
        if shown.is_none() || shown != pin.map(|pin| pin.0) {
            self.only_pinned.store(false, Ordering::Relaxed);
        }
        Ok(stream)
    }

    /// A connection to the holder of this certificate's key, whoever that is.
    async fn strictly(&self, certificate: Fingerprint) -> Result<TlsStream<TcpStream>> {
        self.tls(self.tcp().await?, Some(certificate), false).await
    }

    async fn tcp(&self) -> Result<TcpStream> {
        let server = self.options.server();
        let stream = match &self.options.proxy {
            Some(proxy) => {
                tracing::info!("Using proxy connection: {proxy}");
                proxy.connect(&server).await?
            }
            None => connect_tcp(self.options.bare_host(), self.options.port)
                .await
                .map_err(|reason| ClientError::Connect { server, reason })?,
        };
        tune(&stream);
        Ok(stream)
    }

    /// The settings of a connection that trusts this much. A handshake is only remembered for connections that trust the same.
    fn settings(
        &self,
        pin: Option<Fingerprint>,
        use_authorities: bool,
    ) -> std::result::Result<Arc<TlsSettings>, rustls::Error> {
        let mut last = self.settings.lock();
        if let Some(settings) = &*last
            && (settings.pin, settings.use_authorities) == (pin, use_authorities)
        {
            return Ok(Arc::clone(settings));
        }
        let settings = Arc::new(TlsSettings::new(
            pin,
            use_authorities,
            self.options.judge.clone(),
        )?);
        *last = Some(Arc::clone(&settings));
        Ok(settings)
    }

    async fn tls(
        &self,
        tcp: TcpStream,
        pin: Option<Fingerprint>,
        use_authorities: bool,
    ) -> Result<TlsStream<TcpStream>> {
        let server = self.options.server();
        let failed = |reason: String| ClientError::Tls {
            server: server.clone(),
            reason,
        };
        let settings = self
            .settings(pin, use_authorities)
            .map_err(|error| failed(error.to_string()))?;
        let name = self.options.server_name.as_deref();
        let name = name.unwrap_or_else(|| self.options.bare_host());
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| failed(format!("'{name}' is not a valid host name")))?;
        let handshake = TlsConnector::from(Arc::clone(&settings.config)).connect(name, tcp);
        let result = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| {
                failed("the server did not finish the TLS handshake in time".to_owned())
            })?;
        match result {
            Ok(mut stream) => {
                stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
                Ok(stream)
            }
            Err(error) => Err(match settings.judge.refusal_behind(&error) {
                Some(refusal) => ClientError::Untrusted(Box::new(UntrustedCertificate {
                    server: server.clone(),
                    presented: refusal.presented,
                    expected: pin,
                    authority_error: refusal.authority_error,
                    unproven: None,
                    acceptance: self.options.acceptance.clone(),
                })),
                None => failed(error.to_string()),
            }),
        }
    }
}

/// Socket options; a failure costs speed or early detection only, so that it is not an error.
fn tune(stream: &TcpStream) {
    use rustix::net::sockopt;
    let results = [
        sockopt::set_tcp_nodelay(stream, true),
        sockopt::set_socket_keepalive(stream, true),
        sockopt::set_tcp_keepidle(stream, Duration::from_secs(120)),
    ];
    for error in results.into_iter().filter_map(std::result::Result::err) {
        tracing::debug!("setting a socket option: {error}");
    }
}
