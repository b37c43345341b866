#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code
)]
//! Promises of connection and login: who is trusted, what is sent, what is stored.

mod peer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backstop_client::fingerprint_store::FingerprintStore;
use backstop_client::ticket_cache::TicketCache;
use backstop_client::{ClientError, ClientOptions, HttpClient};
use backstop_format::Fingerprint;
use peer::Peer;

fn user_options(peer: &Peer) -> ClientOptions {
    let mut options = peer.options();
    options.auth_id = "u@pbs".parse().unwrap();
    options
}

async fn refused(options: ClientOptions) -> ClientError {
    HttpClient::connect(options)
        .await
        .err()
        .expect("must be refused")
}

#[tokio::test]
async fn a_pinned_server_is_trusted_whatever_its_name() {
    let peer = Peer::start().await;
    let client = peer.client().await;
    assert_eq!(client.version().await.unwrap()["version"], "4.2");
}

#[tokio::test]
async fn an_unknown_certificate_is_refused_with_all_that_is_needed_to_accept_it() {
    let peer = Peer::start().await;
    let mut options = peer.options();
    options.fingerprint = None;
    let text = refused(options).await.to_string();
    for part in [
        "Certificate fingerprint was not confirmed",
        &peer.fingerprint.to_string(),
        "subject:",
        "issuer:",
        "valid:",
        "PBS_FINGERPRINT",
    ] {
        assert!(text.contains(part), "{part} missing in: {text}");
    }
    assert!(
        peer.state.lock().credentials.is_empty(),
        "nothing was sent before trust"
    );
}

#[tokio::test]
async fn a_changed_certificate_names_both_fingerprints() {
    let peer = Peer::start().await;
    let mut options = peer.options();
    let expected = Fingerprint([0xab; 32]);
    options.fingerprint = Some(expected);
    let text = refused(options).await.to_string();
    assert!(
        text.contains("does not match expected fingerprint"),
        "{text}"
    );
    assert!(
        text.contains(&expected.to_string()) && text.contains(&peer.fingerprint.to_string()),
        "{text}"
    );
}

#[tokio::test]
async fn a_confirmed_certificate_is_remembered_and_not_asked_for_again() {
    let peer = Peer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = FingerprintStore::new(dir.path().join("fingerprints"));
    let asked = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let mut options = peer.options();
        options.fingerprint = None;
        options.fingerprint_store = Some(store.clone());
        let count = Arc::clone(&asked);
        options.confirm_certificate = Some(Arc::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            true
        }));
        HttpClient::connect(options)
            .await
            .unwrap()
            .version()
            .await
            .unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(store.load("127.0.0.1").unwrap(), Some(peer.fingerprint));
}

#[tokio::test]
async fn a_declined_certificate_is_neither_used_nor_stored() {
    let peer = Peer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = FingerprintStore::new(dir.path().join("fingerprints"));
    let mut options = peer.options();
    options.fingerprint = None;
    options.fingerprint_store = Some(store.clone());
    options.confirm_certificate = Some(Arc::new(|_| false));
    assert!(matches!(refused(options).await, ClientError::Untrusted(_)));
    assert_eq!(store.load("127.0.0.1").unwrap(), None);
}

#[tokio::test]
async fn a_token_goes_into_the_authorization_header() {
    let peer = Peer::start().await;
    let mut options = peer.options();
    options.secret = Some("a b".to_owned());
    HttpClient::connect(options)
        .await
        .unwrap()
        .version()
        .await
        .unwrap();
    assert_eq!(peer.state.lock().credentials, ["PBSAPIToken u@pbs!t:a%20b"]);
}

#[tokio::test]
async fn a_token_without_secret_is_refused_before_connecting() {
    let mut options = ClientOptions::new("127.0.0.1", 1, "u@pbs!t".parse().unwrap());
    options.secret = None;
    assert_eq!(
        refused(options).await.to_string(),
        "API token secret must be provided!"
    );
}

#[tokio::test]
async fn a_ticket_is_cached_and_used_by_the_next_run_without_password() {
    let peer = Peer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut options = user_options(&peer);
    options.ticket_cache = Some(TicketCache::new(dir.path().join("tickets")));
    HttpClient::connect(options.clone()).await.unwrap();
    options.secret = None;
    HttpClient::connect(options)
        .await
        .unwrap()
        .version()
        .await
        .unwrap();
    assert_eq!(peer.state.lock().credentials, ["PBSAuthCookie=PBS:ticket"]);
}

#[tokio::test]
async fn a_wrong_password_gives_the_servers_text() {
    let peer = Peer::start().await;
    let mut options = user_options(&peer);
    options.secret = Some("wrong".to_owned());
    let error = refused(options).await;
    assert_eq!(
        (error.status(), error.to_string().as_str()),
        (Some(401), "permission check failed.")
    );
}

#[tokio::test]
async fn without_password_ticket_and_prompt_the_user_is_told_what_to_set() {
    let peer = Peer::start().await;
    let mut options = user_options(&peer);
    options.secret = None;
    assert!(refused(options).await.to_string().contains("PBS_PASSWORD"));
}

#[tokio::test]
async fn an_unreachable_server_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut options = ClientOptions::new("127.0.0.1", port, "u@pbs!t".parse().unwrap());
    options.secret = Some("x".to_owned());
    let error = refused(options).await;
    assert!(error.is_transient());
    assert!(
        error.to_string().contains(&format!("127.0.0.1:{port}")),
        "{error}"
    );
}

#[tokio::test]
async fn a_proxy_tunnels_the_connection_and_never_sees_the_credentials() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let peer = Peer::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let target = peer.address;
    let head = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(near.read_u8().await.unwrap());
        }
        near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .await
            .unwrap();
        let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        String::from_utf8(head).unwrap()
    });
    let mut options = peer.options();
    options.proxy = Some(format!("http://{proxy}").parse().unwrap());
    let client = HttpClient::connect(options).await.unwrap();
    client.version().await.unwrap();
    let head = head.await.unwrap();
    assert!(
        head.starts_with(&format!("CONNECT 127.0.0.1:{} ", peer.address.port())),
        "{head}"
    );
    assert!(!head.contains("secret"), "{head}");
}
