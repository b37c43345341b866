//! Who may scrape: whoever has `Sys.Audit` on [`PATH`], and programs on this host.
//!
//! A path of its own lets a token see the metrics and nothing else. A request counts as one of this host only when its
//! connection comes from a loopback address and nothing says that a proxy passed it on; where a proxy on this host passes on
//! connections without a word, an administrator switches that off (`backstop metrics loopback off`).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use backstop_types::{AuthId, Privileges};
use hyper::header::{FORWARDED, HeaderMap, VIA};
use serde_json::Value;

use crate::config::{ConfigError, ConfigStore, EditError, JsonFile};
use crate::http::ApiError;
use crate::http::credentials::Credentials;
use crate::server::Server;

/// The path of access rules.
pub const PATH: &str = "/system/metrics";
const KEY: &str = "loopback";
/// Headers by which proxies say that they are there.
const PROXIES: &[&str] = &["x-forwarded-for", "x-forwarded-host", "x-real-ip"];

/// Whether programs on this host may scrape without a token. While the setting cannot be read they may not.
#[must_use]
pub fn loopback(config: &ConfigStore) -> bool {
    let read = || match config.json_stamp(JsonFile::Metrics)? {
        None => Ok(None),
        Some(_) => config.json(JsonFile::Metrics).map(Some),
    };
    match read() {
        Ok(settings) => settings
            .and_then(|settings| settings.get(KEY).and_then(Value::as_bool))
            .unwrap_or(true),
        Err(err) => {
            let err: ConfigError = err;
            tracing::error!(%err, "metrics are shown to tokens only");
            false
        }
    }
}

/// Sets that.
///
/// # Errors
/// When it cannot be written.
pub fn set_loopback(config: &ConfigStore, allowed: bool) -> Result<(), EditError> {
    config.edit_json(JsonFile::Metrics, |settings| {
        settings.insert(KEY.to_owned(), allowed.into());
    })?;
    Ok(())
}

/// Whether a connection from `peer` with these headers is one of this host.
fn is_local(headers: &HeaderMap, peer: SocketAddr) -> bool {
    let address = match peer.ip() {
        IpAddr::V6(address) => address.to_canonical(),
        address => address,
    };
    let proxied = PROXIES.iter().any(|name| headers.contains_key(*name))
        || headers.contains_key(FORWARDED)
        || headers.contains_key(VIA);
    address.is_loopback() && !proxied
}

/// Lets a scrape pass. `peer` is the other end of the connection, `client` whom the request comes from. Blocking.
///
/// Returns who it is; nobody in particular for a program on this host.
///
/// # Errors
/// 401 without credentials that are good, 403 without the privilege.
pub(crate) fn check(
    server: &Arc<Server>,
    headers: &HeaderMap,
    peer: SocketAddr,
    client: SocketAddr,
) -> Result<Option<AuthId>, ApiError> {
    let refused = || ApiError::unauthorized("authentication failed");
    let Some(credentials) = Credentials::of(headers) else {
        return if peer == client && is_local(headers, peer) && loopback(server.config()) {
            Ok(None)
        } else {
            Err(refused())
        };
    };
    let id = server
        .authenticate(&credentials, client, false)
        .map_err(|refusal| {
            let user = refusal.user.as_deref().unwrap_or("unknown");
            server.auth_log().failure(client, user, &refusal.reason);
            refused()
        })?;
    let granted = server.privileges(&id, PATH);
    if !granted.contains(Privileges::SYS_AUDIT) {
        return Err(ApiError::forbidden(format!(
            "permission check failed - Sys.Audit on {PATH} is needed"
        )));
    }
    Ok(Some(id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_request_is_of_this_host_only_without_any_sign_of_a_proxy() {
        let local = |peer: &str, header: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(header, "10.0.0.1".parse().unwrap());
            }
            is_local(&headers, peer.parse().unwrap())
        };
        for peer in [
            "127.0.0.1:5",
            "127.8.8.8:5",
            "[::1]:5",
            "[::ffff:127.0.0.1]:5",
        ] {
            assert!(local(peer, None), "{peer}");
            for header in ["x-forwarded-for", "forwarded", "via", "x-real-ip"] {
                assert!(!local(peer, Some(header)), "{peer} {header}");
            }
        }
        assert!(!local("10.0.0.1:5", None));
        assert!(!local("[::ffff:10.0.0.1]:5", None));
    }

    #[test]
    fn programs_of_this_host_may_scrape_until_that_is_switched_off_or_unclear() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigStore::new(dir.path());
        assert!(loopback(&config));
        set_loopback(&config, false).unwrap();
        assert!(!loopback(&config));
        set_loopback(&config, true).unwrap();
        assert!(loopback(&config));
        std::fs::write(dir.path().join("backstop-metrics.json"), "{").unwrap();
        assert!(!loopback(&config));
    }
}
