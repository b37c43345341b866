//! Whom a request comes from when a reverse proxy passes it on: the address in a header that the proxy sets.
//!
//! Anybody can send any header, so it counts only when the connection comes from an address that is trusted, and of several
//! addresses only the last counts: the one that the trusted proxy itself has added.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{FORWARDED, HeaderMap, HeaderName};

/// The variable with the name of the header.
const HEADER: &str = "PROXY_REAL_IP_HEADER";
/// The variable with the addresses that are trusted.
const ALLOW_FROM: &str = "PROXY_REAL_IP_ALLOW_FROM";

/// Addresses from the first to the last, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: IpAddr,
    last: IpAddr,
}

impl Range {
    /// An address, a network as `ADDRESS/BITS`, or a range as `FIRST-LAST`.
    fn parse(text: &str) -> Option<Self> {
        let address = |text: &str| text.trim().parse::<IpAddr>().ok();
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (address(first)?, address(last)?);
            let fits = first.is_ipv4() == last.is_ipv4() && first <= last;
            return fits.then_some(Self { first, last });
        }
        let Some((start, bits)) = text.split_once('/') else {
            let only = address(text)?;
            return Some(Self {
                first: only,
                last: only,
            });
        };
        let bits: u32 = bits.parse().ok()?;
        match address(start)? {
            IpAddr::V4(start) => {
                let host = u32::MAX.checked_shr(bits).unwrap_or(0);
                let start = u32::from(start);
                (bits <= 32).then(|| Self {
                    first: IpAddr::V4((start & !host).into()),
                    last: IpAddr::V4((start | host).into()),
                })
            }
            IpAddr::V6(start) => {
                let host = u128::MAX.checked_shr(bits).unwrap_or(0);
                let start = u128::from(start);
                (bits <= 128).then(|| Self {
                    first: IpAddr::V6((start & !host).into()),
                    last: IpAddr::V6((start | host).into()),
                })
            }
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && (self.first..=self.last).contains(&address)
    }
}

/// Which header of whose requests tells where they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealIp {
    header: HeaderName,
    /// `None` trusts this host alone.
    trusted: Option<Vec<Range>>,
}

/// A variable that makes no sense; it is said and ignored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{variable}='{value}' makes no sense, so that headers of proxies are ignored - {reason}")]
pub struct RealIpError {
    variable: &'static str,
    value: String,
    reason: &'static str,
}

impl RealIp {
    /// What the environment of this process asks for.
    ///
    /// # Errors
    /// When a variable makes no sense.
    pub fn from_environment() -> Result<Option<Self>, RealIpError> {
        let read = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        match read(HEADER) {
            None => Ok(None),
            Some(header) => Self::new(&header, read(ALLOW_FROM).as_deref()).map(Some),
        }
    }

    /// Trusts the header of connections from these addresses: single ones, networks and ranges, divided by commas. Without any,
    /// from this host alone.
    ///
    /// # Errors
    /// When the name can be no header's, or an address is none.
    pub fn new(header: &str, allow_from: Option<&str>) -> Result<Self, RealIpError> {
        let wrong = |variable, value: &str, reason| RealIpError {
            variable,
            value: value.to_owned(),
            reason,
        };
        let parsed = header.trim().parse();
        let parsed = parsed.map_err(|_| wrong(HEADER, header, "it is not the name of a header"))?;
        let ranges = |list: &str| {
            let words = list.split(',').map(str::trim);
            let ranges = words.filter(|word| !word.is_empty()).map(Range::parse);
            ranges.collect::<Option<Vec<_>>>().ok_or_else(|| {
                wrong(
                    ALLOW_FROM,
                    list,
                    "expected addresses, networks (ADDRESS/BITS) or ranges (FIRST-LAST), divided by commas",
                )
            })
        };
        Ok(Self {
            header: parsed,
            trusted: allow_from.map(ranges).transpose()?,
        })
    }

    /// Whether only this host is trusted, because nobody said whom else to trust.
    #[must_use]
    pub fn trusts_this_host_alone(&self) -> bool {
        self.trusted.is_none()
    }

    /// Whom a request with these headers comes from, on a connection from `peer`. A header that makes no sense is ignored.
    pub(crate) fn of(&self, headers: &HeaderMap, peer: SocketAddr) -> SocketAddr {
        let near = peer.ip().to_canonical();
        let is_trusted = match &self.trusted {
            None => near.is_loopback(),
            Some(ranges) => ranges.iter().any(|range| range.contains(near)),
        };
        if !is_trusted {
            return peer;
        }
        let value = headers.get_all(&self.header).iter().next_back();
        let value = value.and_then(|value| value.to_str().ok());
        let last = value.and_then(|value| value.rsplit(',').next());
        let told = last.and_then(|last| {
            if self.header == FORWARDED {
                forwarded_for(last)
            } else {
                address(last.trim())
            }
        });
        told.unwrap_or(peer)
    }
}

/// The address in an element of a `Forwarded` header (RFC 7239).
fn forwarded_for(element: &str) -> Option<SocketAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    address(value.trim().trim_matches('"'))
}

/// An address with or without port, an IPv6 address with or without brackets.
fn address(text: &str) -> Option<SocketAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let whole = text.parse().ok();
    whole.or_else(|| Some(SocketAddr::new(bare.parse().ok()?, 0)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn headers(name: &str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn seen(real_ip: &RealIp, peer: &str, name: &str, values: &[&str]) -> String {
        let peer = SocketAddr::new(peer.parse().unwrap(), 50_000);
        real_ip.of(&headers(name, values), peer).to_string()
    }

    #[test]
    fn the_header_of_a_trusted_proxy_tells_who_asks() {
        let real_ip = RealIp::new("X-Real-IP", Some("127.0.0.1,::1, 10.1.0.0/16")).unwrap();
        for (peer, value, expected) in [
            ("127.0.0.1", "192.0.2.7", "192.0.2.7:0"),
            ("::ffff:127.0.0.1", "192.0.2.7", "192.0.2.7:0"),
            ("::1", "2001:db8::7", "[2001:db8::7]:0"),
            ("10.1.255.255", " 192.0.2.7:4711 ", "192.0.2.7:4711"),
            ("127.0.0.1", "[2001:db8::7]:4711", "[2001:db8::7]:4711"),
            ("127.0.0.1", "[2001:db8::7]", "[2001:db8::7]:0"),
            // Not trusted, or nothing that makes sense.
            ("10.2.0.0", "192.0.2.7", "10.2.0.0:50000"),
            ("127.0.0.2", "192.0.2.7", "127.0.0.2:50000"),
            ("127.0.0.1", "unknown", "127.0.0.1:50000"),
            ("127.0.0.1", "", "127.0.0.1:50000"),
        ] {
            assert_eq!(
                seen(&real_ip, peer, "x-real-ip", &[value]),
                expected,
                "{peer} {value}"
            );
        }
        assert_eq!(
            seen(&real_ip, "127.0.0.1", "x-other", &["192.0.2.7"]),
            "127.0.0.1:50000"
        );
    }

    #[test]
    fn what_a_client_says_of_itself_does_not_count() {
        let real_ip = RealIp::new("X-Forwarded-For", Some("127.0.0.1")).unwrap();
        for values in [
            ["6.6.6.6, 192.0.2.7"].as_slice(),
            &["6.6.6.6", "192.0.2.7"],
            &["6.6.6.6", "7.7.7.7,192.0.2.7"],
        ] {
            assert_eq!(
                seen(&real_ip, "127.0.0.1", "x-forwarded-for", values),
                "192.0.2.7:0"
            );
        }
    }

    #[test]
    fn the_standard_header_is_understood() {
        let real_ip = RealIp::new("FORWARDED", None).unwrap();
        assert!(real_ip.trusts_this_host_alone());
        for (value, expected) in [
            ("for=\"192.0.2.7:4711\";", "192.0.2.7:4711"),
            ("For=192.0.2.7;proto=https;by=10.0.0.1", "192.0.2.7:0"),
            ("proto=https;for=\"[2001:db8::7]:1\"", "[2001:db8::7]:1"),
            ("for=6.6.6.6, for=192.0.2.7", "192.0.2.7:0"),
            ("for=_hidden", "127.0.0.1:50000"),
            ("by=192.0.2.7", "127.0.0.1:50000"),
        ] {
            assert_eq!(
                seen(&real_ip, "127.0.0.1", "forwarded", &[value]),
                expected,
                "{value}"
            );
        }
        assert_eq!(
            seen(&real_ip, "10.0.0.1", "forwarded", &["for=192.0.2.7"]),
            "10.0.0.1:50000"
        );
    }

    #[test]
    fn ranges_are_those_of_stock() {
        let contains = |text: &str, address: &str| {
            Range::parse(text)
                .unwrap()
                .contains(address.parse().unwrap())
        };
        assert!(
            contains("10.0.0.5-10.0.0.7", "10.0.0.7") && !contains("10.0.0.5-10.0.0.7", "10.0.0.8")
        );
        assert!(
            contains("2001:db8::/32", "2001:db8:ffff::1")
                && !contains("2001:db8::/32", "2001:db9::")
        );
        assert!(contains("0.0.0.0/0", "255.1.1.1") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "::1") && contains("10.0.0.1/32", "10.0.0.1"));
        for text in [
            "",
            "x",
            "10.0.0.1/33",
            "::/129",
            "10.0.0.2-10.0.0.1",
            "10.0.0.1-::1",
            "10.0.0.1/-1",
        ] {
            assert_eq!(Range::parse(text), None, "{text}");
        }
        for (header, list) in [("", "::1"), ("a b", "::1"), ("x-a", "::1,nonsense")] {
            assert!(RealIp::new(header, Some(list)).is_err(), "{header} {list}");
        }
        // An empty list trusts nobody.
        let nobody = RealIp::new("x-a", Some("")).unwrap();
        assert_eq!(
            seen(&nobody, "127.0.0.1", "x-a", &["192.0.2.7"]),
            "127.0.0.1:50000"
        );
    }

    proptest! {
        #[test]
        fn no_header_panics(value in "[ -~]{0,80}", list in "[0-9a-f.:/, -]{0,60}") {
            for name in ["forwarded", "x-a"] {
                if let Ok(real_ip) = RealIp::new(name, Some(&list)) {
                    real_ip.of(&headers(name, &[&value]), ([127, 0, 0, 1], 1).into());
                }
                let real_ip = RealIp::new(name, None).unwrap();
                real_ip.of(&headers(name, &[&value]), ([127, 0, 0, 1], 1).into());
            }
        }
    }
}
