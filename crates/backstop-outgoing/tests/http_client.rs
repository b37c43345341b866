//! Requests against a real server on loopback, with real TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[allow(dead_code)]
#[path = "../../../testbed/src/authority.rs"]
mod authority;
#[allow(dead_code)]
#[path = "../../../testbed/src/push_receiver.rs"]
mod push_receiver;

use std::time::Duration;

use authority::Authority;
use backstop_outgoing::answer::refusal;
use backstop_outgoing::http_client::Excess;
use backstop_outgoing::{HttpClient, RequestError, Route};
use http::Request;
use push_receiver::PushReceiver;

fn ok(_: &push_receiver::Received) -> (u16, String) {
    (200, "fine".to_owned())
}

fn get(url: &str) -> Request<Vec<u8>> {
    Request::get(url).body(Vec::new()).unwrap()
}

#[test]
fn a_request_arrives_as_it_was_made() {
    let receiver = PushReceiver::start(ok).unwrap();
    let url = receiver.url("/hook/a%20b?x=1&y=%C3%BC");
    let url = url.replace("http://", "http://me:ge%21heim@");
    let request = Request::post(url)
        .header("X-Kind", "test")
        .body(b"{\"a\":1}".to_vec())
        .unwrap();
    let answer = HttpClient::default().send_blocking(request).unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.body()[..]),
        (200, &b"fine"[..])
    );
    let received = receiver.wait_for(1).remove(0);
    assert_eq!(received.method, "POST");
    assert_eq!(received.target, "/hook/a%20b?x=1&y=%C3%BC");
    assert_eq!(received.parameter("y").unwrap(), "ü");
    assert_eq!(received.text(), "{\"a\":1}");
    assert_eq!(received.headers["x-kind"], "test");
    assert_eq!(received.headers["host"], receiver.address.to_string());
    assert_eq!(received.headers["authorization"], "Basic bWU6Z2UhaGVpbQ==");
}

#[test]
fn a_server_addressed_by_ip_is_checked_for_the_name_it_is_known_by() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path()).unwrap();
    let (certificate, key) = authority
        .issue(folder.path(), "status", &["status.example.org"])
        .unwrap();
    let receiver = PushReceiver::start_tls(&certificate, &key, ok).unwrap();
    let send = |client: &HttpClient| client.send_blocking(get(&receiver.url("/api/push/s3cr3t")));
    let trusting = HttpClient {
        authorities: Some(authority.certificate.clone()),
        ..HttpClient::default()
    };

    // The authority is known, but the certificate says nothing of 127.0.0.1.
    let error = send(&trusting).unwrap_err();
    assert!(matches!(error, RequestError::Tls { .. }), "{error}");
    assert!(!error.to_string().contains("s3cr3t"), "{error}");
    let named = HttpClient {
        server_name: Some("status.example.org".to_owned()),
        ..trusting
    };
    assert_eq!(send(&named).unwrap().status(), 200);
    let misnamed = HttpClient {
        server_name: Some("other.example.org".to_owned()),
        ..named.clone()
    };
    assert!(matches!(
        send(&misnamed).unwrap_err(),
        RequestError::Tls { .. }
    ));
    // The name alone proves nothing.
    let unknown = HttpClient {
        authorities: None,
        ..named
    };
    assert!(matches!(
        send(&unknown).unwrap_err(),
        RequestError::Tls { .. }
    ));
    assert_eq!(
        receiver.received().len(),
        1,
        "nothing is sent to whom is not trusted"
    );
    let careless = HttpClient {
        verify: false,
        ..HttpClient::default()
    };
    assert_eq!(send(&careless).unwrap().status(), 200);
}

#[test]
fn redirects_are_answers_like_others() {
    let receiver = PushReceiver::start(|_| (302, String::new())).unwrap();
    let answer = HttpClient::default()
        .send_blocking(get(&receiver.url("/")))
        .unwrap();
    assert_eq!(answer.status(), 302);
    assert_eq!(receiver.received().len(), 1);
}

#[test]
fn answers_have_a_size() {
    let receiver = PushReceiver::start(|_| (200, "x".repeat(5000))).unwrap();
    let mut client = HttpClient {
        max_answer: 1000,
        ..HttpClient::default()
    };
    let answer = client.send_blocking(get(&receiver.url("/"))).unwrap();
    assert_eq!((answer.status().as_u16(), answer.body().len()), (200, 1000));
    client.excess = Excess::Refuse;
    let error = client.send_blocking(get(&receiver.url("/"))).unwrap_err();
    assert!(
        matches!(error, RequestError::TooLarge { limit: 1000, .. }),
        "{error}"
    );
}

#[test]
fn whoever_never_answers_is_given_up() {
    // Accepted by the kernel, and never read.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = HttpClient {
        timeout: Duration::from_millis(50),
        ..HttpClient::default()
    };
    let url = format!("http://{}/hidden-path", listener.local_addr().unwrap());
    let error = client.send_blocking(get(&url)).unwrap_err();
    assert!(matches!(error, RequestError::Timeout { .. }), "{error}");
    assert!(!error.to_string().contains("hidden"), "{error}");
}

#[test]
fn a_closed_port_is_named_without_the_secret_of_the_url() {
    let url = "http://user:pass@127.0.0.1:1/api/push/s3cr3t?x=geheim";
    let error = HttpClient::default().send_blocking(get(url)).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("127.0.0.1:1"), "{text}");
    for secret in ["s3cr3t", "geheim", "pass"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn a_refusal_repeats_what_the_server_says_but_no_secret() {
    let answer = http::Response::builder()
        .status(403)
        .body(b"token Sup%C3%A4rSecret of S\xC3\xBCper and geheim\nis bad".to_vec())
        .unwrap();
    let url = "https://host/api/push/Sup%C3%A4rSecret?token=x"
        .parse()
        .unwrap();
    let text = refusal(&answer, &url, &["geheim"]).unwrap();
    assert!(!text.is_final, "some day it may be let in");
    assert_eq!(
        text.reason,
        "the server answered 403 Forbidden: token *** of Süper and *** is bad"
    );
    let fine = http::Response::builder()
        .status(204)
        .body(Vec::new())
        .unwrap();
    assert_eq!(refusal(&fine, &url, &[]), None);
}

#[test]
fn a_refusal_says_whether_it_is_for_good_and_when_to_come_back() {
    let url = "https://host/".parse().unwrap();
    let of = |status: u16, after: Option<&str>| {
        let mut answer = http::Response::builder().status(status);
        if let Some(after) = after {
            answer = answer.header("Retry-After", after);
        }
        refusal(&answer.body(Vec::new()).unwrap(), &url, &[]).unwrap()
    };
    for status in [400, 413, 414, 415, 422, 431] {
        assert!(of(status, None).is_final, "{status}");
    }
    for status in [301, 401, 403, 404, 407, 408, 409, 425, 429, 500, 502, 503] {
        assert!(!of(status, None).is_final, "{status}");
    }
    let wait = |after| of(429, Some(after)).retry_after;
    assert_eq!(wait("120"), Some(Duration::from_secs(120)));
    for other in [
        "-1",
        "x",
        "",
        "99999999999999999999999",
        "Fri, 31 Dec 1999 23:59:59 GMT",
    ] {
        assert_eq!(wait(other), None, "{other}");
    }
}

#[test]
fn a_proxy_is_asked_for_a_tunnel_and_may_be_passed_by() {
    let receiver = PushReceiver::start(ok).unwrap();
    // Whoever is asked for a tunnel and answers 403 is no way.
    let refusing = PushReceiver::start(|_| (403, String::new())).unwrap();
    let proxy = refusing.address.to_string().parse().unwrap();
    let mut client = HttpClient {
        route: Route::ProxyFirst(proxy),
        ..HttpClient::default()
    };
    assert_eq!(
        client
            .send_blocking(get(&receiver.url("/")))
            .unwrap()
            .status(),
        200
    );
    let asked = refusing.wait_for(1).remove(0);
    assert_eq!(
        (asked.method.as_str(), asked.target),
        ("CONNECT", receiver.address.to_string())
    );
    client.route = Route::Proxy(refusing.address.to_string().parse().unwrap());
    let error = client.send_blocking(get(&receiver.url("/"))).unwrap_err();
    assert!(error.to_string().contains("403"), "{error}");
    assert_eq!(receiver.received().len(), 1);
}

#[test]
fn a_self_signed_certificate_that_is_named_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    std::fs::write(&certificate, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let receiver = PushReceiver::start_tls(&certificate, &key, ok).unwrap();
    let client = HttpClient {
        authorities: Some(certificate),
        server_name: Some("localhost".to_owned()),
        ..HttpClient::default()
    };
    assert_eq!(
        client
            .send_blocking(get(&receiver.url("/")))
            .unwrap()
            .status(),
        200
    );
}
