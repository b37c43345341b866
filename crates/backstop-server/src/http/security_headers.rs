//! Headers that tell browsers to be careful. Clients that are no browsers do not look at them.
//!
//! A header that the answer has already is left alone, so that pages can say more.

use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};

/// For all answers. What is not a page has nothing to load and is shown in no frame.
const ALWAYS: [(HeaderName, &str); 5] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];
/// For answers of the API: they hold what only their caller may see.
const NO_STORE: &str = "no-store";
/// How long a browser shall use TLS only, once it has seen a certificate that it could check by itself. Half a year.
const TLS_ONLY: &str = "max-age=15768000";

/// Adds what is missing. With a self-signed certificate nothing is said about TLS: a browser that refused plain HTTP for the
/// whole host then could not be helped by accepting the certificate.
pub(crate) fn add<B>(response: &mut Response<B>, is_self_signed: bool) {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    let is_data = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if is_data {
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static(NO_STORE));
    }
    if !is_self_signed {
        headers
            .entry(STRICT_TRANSPORT_SECURITY)
            .or_insert(HeaderValue::from_static(TLS_ONLY));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_page_can_say_more_and_tls_is_asked_for_only_with_a_certificate_that_browsers_know() {
        let mut response = Response::new(());
        response
            .headers_mut()
            .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("own"));
        add(&mut response, true);
        assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], "own");
        assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(!response.headers().contains_key(STRICT_TRANSPORT_SECURITY));
        assert!(!response.headers().contains_key(CACHE_CONTROL));
        add(&mut response, false);
        assert_eq!(response.headers()[STRICT_TRANSPORT_SECURITY], TLS_ONLY);
    }

    #[test]
    fn an_upgraded_connection_gets_nothing() {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        add(&mut response, false);
        assert!(response.headers().is_empty());
    }
}
