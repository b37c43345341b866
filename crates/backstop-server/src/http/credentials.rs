//! The credentials that a request carries: a ticket in a cookie, or an API token in the `Authorization` header.
//!
//! This module only finds them. Whether they are good is for access control to say.

use std::fmt;

use hyper::header::{AUTHORIZATION, COOKIE, HeaderMap};
use percent_encoding::percent_decode_str;

/// Cookie that only the server sets.
pub const HOST_COOKIE: &str = "__Host-PBSAuthCookie";
/// Cookie that clients set themselves.
pub const CLIENT_COOKIE: &str = "PBSAuthCookie";
const TOKEN_SCHEME: &str = "PBSAPIToken";
const CSRF_HEADER: &str = "CSRFPreventionToken";

/// Takes the cookie of a previous log-in out of the browser.
pub const EXPIRED_COOKIE: &str = "__Host-PBSAuthCookie=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Secure; SameSite=Lax; HttpOnly; Path=/;";

/// What a request proves itself with. `Debug` does not show secrets.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A log-in ticket.
    Ticket {
        /// The ticket.
        ticket: String,
        /// The token against cross-site requests, if it was sent.
        csrf: Option<String>,
    },
    /// An API token.
    Token {
        /// `user@realm!token`, not checked yet.
        auth_id: String,
        /// The secret.
        secret: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ticket { .. } => f.write_str("Ticket(…)"),
            Self::Token { auth_id, .. } => write!(f, "Token({auth_id:?}, …)"),
        }
    }
}

impl Credentials {
    /// Finds the credentials of a request; a cookie goes before a token.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        if let Some(ticket) = ticket_cookie(headers) {
            let csrf = headers
                .get(CSRF_HEADER)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            return Some(Self::Ticket { ticket, csrf });
        }
        let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let rest = value.strip_prefix(TOKEN_SCHEME)?;
        let rest = rest.strip_prefix([' ', '='])?;
        let (auth_id, secret) = rest.split_once(':')?;
        Some(Self::Token {
            auth_id: auth_id.to_owned(),
            secret: decode(secret)?,
        })
    }
}

/// The ticket in the cookies, if there is one.
pub fn ticket_cookie(headers: &HeaderMap) -> Option<String> {
    let mut fallback = None;
    for header in headers.get_all(COOKIE) {
        let Ok(header) = header.to_str() else {
            continue;
        };
        if let Some(ticket) = cookie(header, HOST_COOKIE) {
            return Some(ticket);
        }
        fallback = cookie(header, CLIENT_COOKIE).or(fallback);
    }
    fallback
}

/// The ticket in the cookie that only the server sets.
pub fn host_cookie(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(COOKIE)
        .iter()
        .find_map(|header| cookie(header.to_str().ok()?, HOST_COOKIE))
}

/// One cookie of a header. A segment without `=` ends the search, as in a stock server.
fn cookie(header: &str, name: &str) -> Option<String> {
    for segment in header.split(';') {
        let (key, value) = segment.split_once('=')?;
        if key.trim() == name {
            return decode(value.trim());
        }
    }
    None
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text)
        .decode_utf8()
        .ok()
        .map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    fn found(headers: &[(&'static str, &'static str)]) -> Option<Credentials> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        Credentials::of(&headers)
    }

    fn ticket(text: &str) -> Option<Credentials> {
        Some(Credentials::Ticket {
            ticket: text.into(),
            csrf: None,
        })
    }

    #[test]
    fn the_cookie_of_the_server_goes_before_that_of_the_client() {
        assert_eq!(
            found(&[(
                "Cookie",
                "a=1; PBSAuthCookie=x%3Ay; __Host-PBSAuthCookie=PBS:z"
            )]),
            ticket("PBS:z")
        );
        assert_eq!(
            found(&[("Cookie", "PBSAuthCookie=PBS%3Ay; path=/; secure;")]),
            ticket("PBS:y")
        );
        assert_eq!(found(&[("Cookie", "secure; PBSAuthCookie=PBS%3Ay")]), None);
        assert_eq!(found(&[("Cookie", "PBSAuthCookie=a+b")]), ticket("a+b"));
    }

    #[test]
    fn a_token_follows_a_space_or_an_equals_sign() {
        let token = Some(Credentials::Token {
            auth_id: "root@pam!api".into(),
            secret: "a:b c".into(),
        });
        assert_eq!(
            found(&[("Authorization", "PBSAPIToken=root@pam!api:a:b%20c")]),
            token
        );
        assert_eq!(
            found(&[("Authorization", "PBSAPIToken root@pam!api:a:b%20c")]),
            token
        );
        for other in [
            "PBSAPIToken  root@pam!api",
            "Basic cm9vdDpyb290",
            "PBSAPITokenroot@pam!api:x",
        ] {
            assert_eq!(found(&[("Authorization", other)]), None, "{other}");
        }
    }

    #[test]
    fn a_cookie_goes_before_a_token_and_secrets_are_not_shown() {
        let both = [
            ("Cookie", "PBSAuthCookie=PBS:Very-Secret"),
            ("Authorization", "PBSAPIToken=a@b!c:Very-Secret"),
        ];
        assert_eq!(found(&both), ticket("PBS:Very-Secret"));
        assert!(!format!("{:?}", found(&both)).contains("Very-Secret"));
        assert!(!format!("{:?}", found(&both[1..])).contains("Very-Secret"));
    }
}
