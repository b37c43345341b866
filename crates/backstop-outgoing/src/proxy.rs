//! An HTTP proxy that tunnels connections (`ALL_PROXY`, `http-proxy`).
//!
//! Never prints the proxy's credentials.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dial::connect_tcp;

/// Port of a proxy that names none.
const DEFAULT_PROXY_PORT: u16 = 1080;

/// Longest answer head of a proxy that is read.
const MAX_ANSWER: usize = 8192;

/// How long a proxy may take to open the tunnel.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(10);

/// The address of a proxy cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("invalid proxy address - {0} (expected [http://][user:password@]host[:port])")]
pub struct ProxyAddressError(pub &'static str);

/// A proxy refused or broke a connection.
#[derive(Debug, thiserror::Error)]
#[error("unable to connect to '{server}' through proxy '{proxy}' - {reason}")]
pub struct ProxyError {
    /// `host:port` of the server.
    pub server: String,
    /// `host:port` of the proxy.
    pub proxy: String,
    /// What went wrong.
    pub reason: String,
}

/// Address of an HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyAddress {
    host: String,
    port: u16,
    /// `user:password` for Basic authentication.
    credentials: Option<String>,
}

impl std::fmt::Debug for ProxyAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProxyAddress({self})")
    }
}

impl std::fmt::Display for ProxyAddress {
    /// `host:port`, without credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for ProxyAddress {
    type Err = ProxyAddressError;

    /// Parses `[http://][user:password@]host[:port]`.
    fn from_str(text: &str) -> Result<Self, ProxyAddressError> {
        let rest = text.strip_prefix("http://").unwrap_or(text);
        if rest.contains("://") {
            return Err(ProxyAddressError("only http:// proxies are supported"));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials.to_owned()), address),
            None => (None, rest),
        };
        let (host, port) = if let Some(rest) = address.strip_prefix('[') {
            let (host, rest) = rest
                .split_once(']')
                .ok_or(ProxyAddressError("missing ']' of an IPv6 address"))?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(ProxyAddressError("text after ']'")),
            }
        } else {
            match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            }
        };
        if host.is_empty()
            || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
        {
            return Err(ProxyAddressError("missing or malformed host"));
        }
        let port = match port {
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or(ProxyAddressError("malformed port"))?,
            None => DEFAULT_PROXY_PORT,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            credentials,
        })
    }
}

impl ProxyAddress {
    /// A connection to `server` (`host:port`) through this proxy.
    ///
    /// # Errors
    /// When the proxy does not answer, or cannot or will not connect to the server.
    pub async fn connect(&self, server: &str) -> Result<TcpStream, ProxyError> {
        let connected = connect_tcp(&self.host, self.port).await;
        let mut stream = connected.map_err(|reason| ProxyError {
            server: server.to_owned(),
            proxy: self.to_string(),
            reason,
        })?;
        self.open_tunnel(&mut stream, server).await?;
        Ok(stream)
    }

    /// Asks the proxy at the other end of `stream` for a tunnel to `server` (`host:port`).
    async fn open_tunnel(&self, stream: &mut TcpStream, server: &str) -> Result<(), ProxyError> {
        let failed = |reason: String| ProxyError {
            server: server.to_owned(),
            proxy: self.to_string(),
            reason,
        };
        let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
        if let Some(credentials) = &self.credentials {
            request.push_str("Proxy-Authorization: Basic ");
            request.push_str(&STANDARD.encode(credentials));
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        let exchange = async {
            stream.write_all(request.as_bytes()).await?;
            read_head(stream).await
        };
        let head = tokio::time::timeout(TUNNEL_TIMEOUT, exchange)
            .await
            .map_err(|_| failed("the proxy did not answer in time".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        let status_line = head.lines().next().unwrap_or_default();
        let status = status_line.split_whitespace().nth(1).unwrap_or_default();
        if status_line.starts_with("HTTP/1.") && status.len() == 3 && status.starts_with('2') {
            Ok(())
        } else {
            Err(failed(format!("the proxy answered '{status_line}'")))
        }
    }
}

/// Reads up to the empty line, byte by byte: what follows belongs to the tunnel.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_ANSWER {
            return Err(std::io::Error::other("the proxy's answer is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn every_documented_shape_of_a_proxy_address_is_understood() {
        for (text, shown, credentials) in [
            ("proxy", "proxy:1080", None),
            ("http://proxy:3128", "proxy:3128", None),
            ("http://u:p@proxy:3128/", "proxy:3128", Some("u:p")),
            ("[::1]:8080", "[::1]:8080", None),
            ("[::1]", "[::1]:1080", None),
        ] {
            let address: ProxyAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.credentials.as_deref(), credentials);
        }
    }

    #[test]
    fn other_schemes_and_broken_addresses_are_refused() {
        for text in [
            "https://proxy",
            "socks5://proxy",
            "",
            "h:0",
            "h:99999",
            "[::1",
            "a b",
            "h:",
        ] {
            assert!(text.parse::<ProxyAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_do_not_reach_a_log() {
        let address: ProxyAddress = "u:geheim@proxy".parse().unwrap();
        assert!(!format!("{address:?} {address}").contains("geheim"));
    }

    #[tokio::test]
    async fn a_refusing_proxy_is_named_with_its_answer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read_head(&mut stream).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                .await
                .unwrap();
            request
        });
        let proxy: ProxyAddress = format!("u:p@{address}").parse().unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let error = proxy
            .open_tunnel(&mut stream, "pbs:8007")
            .await
            .unwrap_err();
        assert!(error.to_string().contains("407"), "{error}");
        let request = server.await.unwrap();
        assert!(
            request.starts_with("CONNECT pbs:8007 HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains("Proxy-Authorization: Basic dTpw\r\n"),
            "{request}"
        );
    }
}
