//! Any cookies and authorization header: whatever they hold, nobody gets in with what the server did not sign or hand out.
#![no_main]

use std::sync::{Arc, LazyLock};

use backstop_server::access::{AccessControl, LoginRequest};
use backstop_server::config::ConfigStore;
use backstop_server::http::credentials::{Credentials, host_cookie};
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

/// Access control of a server with the user `a@pbs` and the token `a@pbs!t`, both without a secret.
static ACCESS: LazyLock<AccessControl> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("backstop-fuzz-credentials-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("user.cfg"), "user: a@pbs\n\ntoken: a@pbs!t\n").expect("a file");
    AccessControl::open(Arc::new(ConfigStore::new(folder))).expect("keys")
});

fuzz_target!(|input: (Vec<&[u8]>, Option<&[u8]>, Option<&str>)| {
    let (cookies, authorization, csrf) = input;
    let mut headers = HeaderMap::new();
    for cookie in cookies {
        if let Ok(value) = HeaderValue::from_bytes(cookie) {
            headers.append(COOKIE, value);
        }
    }
    if let Some(Ok(value)) = authorization.map(HeaderValue::from_bytes) {
        headers.insert(AUTHORIZATION, value);
    }
    if let Some(Ok(value)) = csrf.map(HeaderValue::from_str) {
        headers.insert("CSRFPreventionToken", value);
    }
    let _ = host_cookie(&headers);
    match Credentials::of(&headers) {
        Some(Credentials::Ticket { ticket, csrf }) => {
            assert!(ACCESS.check_ticket(&ticket, csrf.as_deref(), true).is_err());
            assert!(ACCESS.check_ticket(&ticket, None, false).is_err());
            let renewal = LoginRequest {
                username: "a@pbs",
                cookie: Some(&ticket),
                http_only: true,
                ..LoginRequest::default()
            };
            assert!(ACCESS.login(&renewal).is_err());
        }
        Some(Credentials::Token { auth_id, secret }) => {
            assert!(ACCESS.check_token(&auth_id, &secret).is_err());
        }
        None => {}
    }
});
