//! What a browser says about a WebAuthn ceremony: `clientDataJSON`, and the origin in it.

use std::str::FromStr;

use serde::Deserialize;

use super::{SecondFactorError, decode_text};

const WHAT: &str = "client data";

/// The client data of a ceremony.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientData {
    /// `webauthn.create` or `webauthn.get`.
    pub ceremony: String,
    /// The challenge that was answered.
    pub challenge: Vec<u8>,
    /// The site on which it was answered.
    pub origin: Origin,
    /// Whether the site was inside a frame of another one.
    pub cross_origin: bool,
}

impl ClientData {
    /// Parses the bytes that the authenticator signed the hash of.
    ///
    /// # Errors
    /// When they are not such JSON.
    pub fn parse(bytes: &[u8]) -> Result<Self, SecondFactorError> {
        #[derive(Deserialize)]
        struct Json {
            #[serde(rename = "type")]
            ceremony: String,
            challenge: String,
            origin: String,
            #[serde(rename = "crossOrigin", default)]
            cross_origin: Option<bool>,
        }
        let wrong = |reason| SecondFactorError::new(WHAT, reason);
        let json: Json = serde_json::from_slice(bytes)
            .map_err(|_| wrong("it is not JSON with type, challenge and origin"))?;
        Ok(Self {
            ceremony: json.ceremony,
            challenge: decode_text(&json.challenge).ok_or(wrong("the challenge is not base64"))?,
            origin: json.origin.parse()?,
            cross_origin: json.cross_origin.unwrap_or(false),
        })
    }
}

/// A web origin: scheme, host and port. Only `https`, and `http` for the machine itself, can hold credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: &'static str,
    /// Lower case; an IPv6 address in brackets.
    host: String,
    port: u16,
}

impl FromStr for Origin {
    type Err = SecondFactorError;

    /// Parses an address; what comes after the port is passed over.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |reason| SecondFactorError::new("origin", reason);
        let (scheme, rest) = text
            .split_once("://")
            .ok_or(wrong("expected https://HOST[:PORT]"))?;
        let (scheme, default_port) = if scheme.eq_ignore_ascii_case("https") {
            ("https", 443)
        } else if scheme.eq_ignore_ascii_case("http") {
            ("http", 80)
        } else {
            return Err(wrong("the scheme is neither https nor http"));
        };
        let authority = rest
            .split(['/', '?', '#'])
            .next()
            .filter(|authority| !authority.is_empty())
            .ok_or(wrong("it has no host"))?;
        let (host, port) = match authority.strip_prefix('[') {
            Some(address) => {
                let (address, rest) = address
                    .split_once(']')
                    .ok_or(wrong("the address has no closing bracket"))?;
                let address: std::net::Ipv6Addr = address
                    .parse()
                    .map_err(|_| wrong("the host is not an address"))?;
                let port = match rest {
                    "" => None,
                    rest => Some(
                        rest.strip_prefix(':')
                            .ok_or(wrong("the port is no number"))?,
                    ),
                };
                (format!("[{address}]"), port)
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
                None => (authority.to_ascii_lowercase(), None),
            },
        };
        let is_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if host.is_empty() || (!host.starts_with('[') && !host.bytes().all(is_host)) {
            return Err(wrong(
                "the host holds characters that no host name has (write other scripts in the xn-- form)",
            ));
        }
        let port = match port {
            None | Some("") => default_port,
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port
                .parse()
                .map_err(|_| wrong("the port is no number up to 65535"))?,
            Some(_) => return Err(wrong("the port is no number up to 65535")),
        };
        Ok(Self { scheme, host, port })
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match (self.scheme, self.port) {
            ("https", 443) | ("http", 80) => Ok(()),
            (_, port) => write!(f, ":{port}"),
        }
    }
}

impl Origin {
    /// The host, in lower case.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the host is a name, not an address.
    #[must_use]
    pub fn is_domain(&self) -> bool {
        !self.host.starts_with('[') && self.host.parse::<std::net::Ipv4Addr>().is_err()
    }

    /// Whether browsers let this origin use credentials of the relying party `id`: the host itself or a domain above it.
    #[must_use]
    pub fn may_use(&self, id: &str) -> bool {
        let id = id.to_ascii_lowercase();
        self.is_domain() && !id.is_empty() && (self.host == id || is_below(&self.host, &id))
    }

    /// Whether `other` is this origin or, with `subdomains`, one of a host below it. Scheme and port must be the same.
    #[must_use]
    pub fn accepts(&self, other: &Self, subdomains: bool) -> bool {
        self.scheme == other.scheme
            && self.port == other.port
            && (self.host == other.host
                || (subdomains
                    && self.is_domain()
                    && other.is_domain()
                    && is_below(&other.host, &self.host)))
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain)
        .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
}
