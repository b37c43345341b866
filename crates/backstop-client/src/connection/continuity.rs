//! Does the key that is pinned vouch for the certificate that is shown? (`docs/formats/certificate-chain.md`)
//!
//! The chain comes from a server that is not trusted yet: it is asked over a connection on which nothing else is sent, and
//! nothing in it is believed but what the pinned key signed, link by link.

use std::time::Duration;

use backstop_format::Fingerprint;
use backstop_format::continuity::{Chain, Link, MAX_BYTES};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use webpki::EndEntityCert;

use super::http_client::{data, describe};

/// Where a server shows its chain, below `/api2/json/`.
pub const CHAIN_PATH: &str = "backstop/certificate-chain";

/// Limit for request and answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Signatures that count, all of them with keys that a TLS server can have.
const SCHEMES: [SignatureScheme; 7] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// Why it is not proven that a certificate takes the place of the pinned one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// There is no chain to look at.
    #[error("the server does not tell which certificates it had before ({0})")]
    NoChain(String),
    /// The chain cannot be read.
    #[error("what the server tells about its certificates cannot be read - {0}")]
    Unreadable(String),
    /// Nothing begins at the pin.
    #[error("nothing that the server shows was signed by the key that is pinned")]
    UnknownStart,
    /// The chain leads elsewhere.
    #[error("what the pinned key signed leads to another certificate, {0}")]
    OtherEnd(Fingerprint),
    /// A link does not follow the one before.
    #[error("link {0} of the chain does not follow the one before")]
    Broken(u64),
    /// A link was known before, or is older than one that was.
    #[error("link {0} of the chain is older than what is known of the server already")]
    Old(u64),
    /// A link is not good any more, or not yet.
    #[error("link {0} of the chain is not valid at this time; are the clocks right?")]
    NotCurrent(u64),
    /// A signature is wrong.
    #[error("the signature of link {0} of the chain is wrong")]
    Signature(u64),
}

/// How a pinned key vouches for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vouched {
    /// How many links lead to it.
    pub links: usize,
    /// The number of the last one.
    pub number: u64,
}

/// Checks that the chain leads from the certificate `pin` to `shown`: each link signed by the key of the one before, good at
/// `now` (seconds since 1970), and with a number larger than `known` and than the one before.
///
/// # Errors
/// The first thing that is not as it has to be.
pub fn vouches(
    chain: &Chain,
    pin: &Fingerprint,
    known: u64,
    shown: &Fingerprint,
    now: i64,
) -> Result<Vouched, Unproven> {
    let links = chain.since(pin);
    let (mut at, mut number) = (*pin, known);
    for link in links {
        if link.from() != at {
            return Err(Unproven::Broken(link.number));
        }
        if link.number <= number {
            return Err(Unproven::Old(link.number));
        }
        if !link.is_current(now) {
            return Err(Unproven::NotCurrent(link.number));
        }
        if !is_signed(link) {
            return Err(Unproven::Signature(link.number));
        }
        (at, number) = (link.next, link.number);
    }
    match links.len() {
        0 => Err(Unproven::UnknownStart),
        _ if at != *shown => Err(Unproven::OtherEnd(at)),
        links => Ok(Vouched { links, number }),
    }
}

/// Whether the key of the old certificate signed the link.
fn is_signed(link: &Link) -> bool {
    let scheme = SignatureScheme::from(link.scheme);
    if !SCHEMES.contains(&scheme) {
        return false;
    }
    let der = CertificateDer::from(link.certificate.as_slice());
    let Ok(certificate) = EndEntityCert::try_from(&der) else {
        return false;
    };
    let statement = link.statement();
    let known = aws_lc_rs::default_provider()
        .signature_verification_algorithms
        .mapping;
    let algorithms = known.iter().filter(|(name, _)| *name == scheme);
    algorithms
        .flat_map(|(_, algorithms)| *algorithms)
        .any(|algorithm| {
            certificate
                .verify_signature(*algorithm, &statement, &link.signature)
                .is_ok()
        })
}

/// Asks a server for its chain, and for nothing else; `server` is `host:port`. No credentials are sent.
///
/// # Errors
/// When it has none, does not answer in time, or answers something else.
pub(super) async fn fetch<S>(stream: S, server: &str) -> Result<Chain, Unproven>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let no_chain = |reason: String| Unproven::NoChain(reason);
    let ask = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| no_chain(describe(&error)))?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(Method::GET)
            .uri(format!("/api2/json/{CHAIN_PATH}"))
            .header(HOST, server)
            .body(Empty::<Bytes>::new())
            .map_err(|error| no_chain(error.to_string()))?;
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| no_chain(describe(&error)))?;
        if !answer.status().is_success() {
            return Err(no_chain(format!(
                "HTTP status {}",
                answer.status().as_u16()
            )));
        }
        // In base64, in JSON.
        let body = Limited::new(answer.into_body(), MAX_BYTES * 2)
            .collect()
            .await;
        let body = body
            .map_err(|error| no_chain(error.to_string()))?
            .to_bytes();
        connection.abort();
        parse(&body)
    };
    tokio::time::timeout(TIMEOUT, ask)
        .await
        .unwrap_or_else(|_| Err(no_chain("no answer in time".to_owned())))
}

/// Reads the answer to a request for a chain: `{"data": {"chain": BASE64}}`.
fn parse(body: &[u8]) -> Result<Chain, Unproven> {
    let answer = serde_json::from_slice(body).map(data);
    let answer = answer.map_err(|error| Unproven::Unreadable(error.to_string()))?;
    let text = answer.get("chain").and_then(Value::as_str);
    let text = text.ok_or_else(|| Unproven::Unreadable("there is no chain in it".to_owned()))?;
    let bytes = STANDARD
        .decode(text)
        .map_err(|_| Unproven::Unreadable("it is not in base64".to_owned()))?;
    Chain::from_bytes(&bytes).map_err(|error| Unproven::Unreadable(error.to_string()))
}

#[cfg(test)]
mod tests;
