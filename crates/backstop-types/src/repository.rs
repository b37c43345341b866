//! The text by which clients name a datastore on a server:
//! `[[auth-id@]host[:port]:]datastore`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::auth_id::AuthId;
use crate::name::{DatastoreName, NameError, serde_text};

/// The port of a backup server unless another is named.
pub const DEFAULT_PORT: u16 = 8007;

/// A datastore on a server, and as whom to log in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    auth_id: Option<AuthId>,
    host: Option<String>,
    port: Option<u16>,
    store: DatastoreName,
}

impl Repository {
    /// Longest accepted text, in characters.
    pub const MAX_LENGTH: usize = 256;

    /// Joins the parts; a bare IPv6 address gets its brackets.
    ///
    /// # Errors
    /// When `host` is neither a host name nor an address.
    pub fn new(
        auth_id: Option<AuthId>,
        host: Option<&str>,
        port: Option<u16>,
        store: DatastoreName,
    ) -> Result<Self, NameError> {
        let host = match host {
            Some(host) if host.parse::<Ipv6Addr>().is_ok() => Some(format!("[{host}]")),
            Some(host) if is_host(host) => Some(host.to_string()),
            Some(host) => {
                return Err(NameError::new(
                    "server",
                    host,
                    "expected a host name or an address",
                ));
            }
            None => None,
        };
        Ok(Self {
            auth_id,
            host,
            port,
            store,
        })
    }

    /// As whom to log in; `root@pam` unless named.
    #[must_use]
    pub fn auth_id(&self) -> AuthId {
        self.auth_id.clone().unwrap_or_else(AuthId::root)
    }

    /// Host name or address, an IPv6 address in brackets; `localhost` unless named.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host.as_deref().unwrap_or("localhost")
    }

    /// TCP port; 8007 unless named.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(DEFAULT_PORT)
    }

    /// The datastore.
    #[must_use]
    pub const fn store(&self) -> &DatastoreName {
        &self.store
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (&self.auth_id, &self.host, self.port) {
            (Some(auth_id), _, _) => {
                format!("{auth_id}@{}:{}:{}", self.host(), self.port(), self.store)
            }
            (None, Some(host), None) => format!("{host}:{}", self.store),
            (None, _, Some(port)) => format!("{}:{port}:{}", self.host(), self.store),
            (None, None, None) => self.store.to_string(),
        };
        f.pad(&text)
    }
}

impl FromStr for Repository {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason: &str| NameError::new("repository", text, reason);
        if text.chars().count() > Self::MAX_LENGTH {
            return Err(error("value may only be 256 characters long"));
        }
        let form = "expected [[auth-id@]host[:port]:]datastore";
        let Some((server, store)) = text.rsplit_once(':') else {
            let store = text.parse().map_err(|_| error(form))?;
            return Ok(Self {
                auth_id: None,
                host: None,
                port: None,
                store,
            });
        };
        let store = store.parse().map_err(|_| error(form))?;
        let (auth_id, address) = match server.rsplit_once('@') {
            Some((auth_id, address)) => {
                let auth_id = auth_id
                    .parse()
                    .map_err(|_| error("the user needs its realm: user@realm@host:datastore"))?;
                (Some(auth_id), address)
            }
            None => (None, server),
        };
        let (host, port) = match address.rsplit_once(':') {
            // The colons of an IPv6 address are inside its brackets.
            Some((host, port)) if !port.ends_with(']') => {
                let digits =
                    (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
                let port = port.parse().ok().filter(|_| digits);
                (
                    host,
                    Some(port.ok_or_else(|| error("the port is not a number up to 65535"))?),
                )
            }
            _ => (address, None),
        };
        if !is_host(host) {
            return Err(error(
                "expected a host name or an address (IPv6 in brackets)",
            ));
        }
        Ok(Self {
            auth_id,
            host: Some(host.to_string()),
            port,
            store,
        })
    }
}

serde_text!(Repository);

/// Whether `host` is a host name, an IPv4 address or an IPv6 address in brackets.
#[must_use]
pub fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()),
        None => is_dns_name(host),
    }
}

/// Whether `name` consists of labels of letters, digits and inner `-`, joined by dots. IPv4
/// addresses have this form, too.
#[must_use]
pub fn is_dns_name(name: &str) -> bool {
    !name.is_empty()
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_documented_form_means_what_is_documented() {
        for (text, auth_id, host, port) in [
            ("store1", "root@pam", "localhost", 8007),
            ("h:store1", "root@pam", "h", 8007),
            ("u@pbs@h:store1", "u@pbs", "h", 8007),
            ("u@pbs!tok@h:store1", "u@pbs!tok", "h", 8007),
            ("192.0.2.5:1234:store1", "root@pam", "192.0.2.5", 1234),
            ("[2001:db8::1]:store1", "root@pam", "[2001:db8::1]", 8007),
            (
                "[2001:db8::1]:9007:store1",
                "root@pam",
                "[2001:db8::1]",
                9007,
            ),
            ("9007:store1", "root@pam", "9007", 8007),
        ] {
            let repository: Repository = text.parse().unwrap();
            assert_eq!(repository.auth_id().to_string(), auth_id, "{text}");
            assert_eq!(repository.host(), host, "{text}");
            assert_eq!(repository.port(), port, "{text}");
            assert_eq!(repository.store().as_str(), "store1", "{text}");
        }
    }

    #[test]
    fn the_canonical_form_is_the_shortest_without_a_user() {
        for (text, canonical) in [
            ("store1", "store1"),
            ("h:store1", "h:store1"),
            ("h:8007:store1", "h:8007:store1"),
            ("u@pbs@h:store1", "u@pbs@h:8007:store1"),
            ("u@pbs!t@[::1]:9:store1", "u@pbs!t@[::1]:9:store1"),
        ] {
            assert_eq!(text.parse::<Repository>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn broken_forms_are_refused() {
        for text in [
            "",
            "u@h:store1",
            "h:70000:store1",
            "h:123456:store1",
            "h:+1:store1",
            "h:x:store1",
            "2001:db8::1:store1",
            "[h]:store1",
            "h:",
            "h:st",
            "-h:store1",
            "h..x:store1",
            "@h:store1",
        ] {
            assert!(text.parse::<Repository>().is_err(), "{text}");
        }
        assert!(
            format!("{}:store1", "h".repeat(256))
                .parse::<Repository>()
                .is_err()
        );
    }

    #[test]
    fn a_bare_ipv6_address_gets_brackets() {
        let repository =
            Repository::new(None, Some("::1"), None, "store1".parse().unwrap()).unwrap();
        assert_eq!(repository.host(), "[::1]");
        assert!(Repository::new(None, Some("a b"), None, "store1".parse().unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn a_repository_survives_its_text(user in proptest::option::of("[a-z!@]{1,8}@[a-z]{2,5}(![a-z]{1,4})?"), host in "[a-z0-9]{1,9}|\\[::[0-9]{1,3}\\]", port in proptest::option::of(any::<u16>()), store in "[a-z]{3,9}") {
            let Ok(auth_id) = user.map(|u| u.parse::<AuthId>()).transpose() else { return Ok(()) };
            let repository = Repository::new(auth_id, Some(&host), port, store.parse().unwrap()).unwrap();
            let read: Repository = repository.to_string().parse().unwrap();
            prop_assert_eq!(read.auth_id(), repository.auth_id());
            prop_assert_eq!(read.to_string(), repository.to_string());
            prop_assert_eq!((read.host(), read.port(), read.store()), (repository.host(), repository.port(), repository.store()));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") { let _ = text.parse::<Repository>(); }
    }
}
