//! Who is told, and how it is reached: one push receiver in a file of settings.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use backstop_heartbeat::{Receiver, check_url, shown_server};
use backstop_outgoing::proxy::ProxyAddress;
use backstop_outgoing::tls::{Judge, Trust, TrustError};
use backstop_outgoing::{HttpClient, Route};

use crate::settings_file::{Setting, SettingsError, SettingsFile};

/// How long telling takes at most, unless the settings say otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest time that can be configured: somebody waits for it.
const LONGEST_TIMEOUT: u64 = 300;

/// The settings of a receiver.
pub const NAMES: [&str; 7] = [
    "url",
    "receiver",
    "tls-server-name",
    "ca-file",
    "verify-tls",
    "proxy",
    "timeout",
];

/// Whom to tell, and how.
#[derive(Clone)]
pub struct Settings {
    /// The push URL: a secret.
    pub url: String,
    /// Whose URL it is.
    pub receiver: Receiver,
    /// How long everything may take.
    pub timeout: Duration,
    /// How the receiver is reached and trusted.
    pub client: HttpClient,
}

impl Settings {
    /// What may be shown of the URL.
    pub fn server(&self) -> String {
        shown_server(&self.url)
    }

    /// Whether it is known whom to trust. Reads files.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_trust(&self) -> Result<(), TrustError> {
        let client = &self.client;
        if client.authorities.is_none() && client.server_name.is_none() {
            return Ok(());
        }
        let trust = match &client.authorities {
            _ if !client.verify => Trust::Anybody,
            Some(authorities) => Trust::Path(authorities),
            None => Trust::System,
        };
        // The host of the URL is checked where the URL is.
        let name = client.server_name.as_deref().unwrap_or("localhost");
        Judge::new(name, trust).map(|_| ())
    }

    /// What settings of `file` say, of which later ones count; `None` without a URL.
    ///
    /// # Errors
    /// When one of them is none of a receiver, or makes no sense.
    pub fn of<'a>(
        file: &SettingsFile,
        settings: impl IntoIterator<Item = &'a Setting>,
    ) -> Result<Option<Self>, SettingsError> {
        let mut values = BTreeMap::new();
        for setting in settings {
            let (name, value) = (setting.name.as_str(), setting.value.as_str());
            if !NAMES.contains(&name) {
                return Err(file.unknown(setting, &NAMES));
            }
            check(name, value).map_err(|reason| file.wrong(setting.line, reason))?;
            values.insert(name, value);
        }
        Ok(Self::checked(&values))
    }

    /// What was checked is taken as it is.
    fn checked(values: &BTreeMap<&str, &str>) -> Option<Self> {
        let get = |name| values.get(name).copied();
        let timeout = get("timeout").and_then(|value| value.parse().ok());
        let timeout = timeout.map_or(TIMEOUT, Duration::from_secs);
        let proxy = get("proxy").and_then(|value| value.parse().ok());
        Some(Self {
            url: get("url")?.to_owned(),
            receiver: get("receiver")
                .and_then(|value| value.parse().ok())
                .unwrap_or_default(),
            timeout,
            client: HttpClient {
                route: proxy.map_or(Route::Direct, Route::Proxy),
                timeout: timeout.min(Duration::from_secs(10)),
                verify: get("verify-tls").and_then(switch).unwrap_or(true),
                authorities: get("ca-file").map(PathBuf::from),
                server_name: get("tls-server-name").map(str::to_owned),
                ..HttpClient::default()
            },
        })
    }
}

fn check(name: &str, value: &str) -> Result<(), String> {
    match name {
        "url" => check_url(value).map(|_| ()).map_err(|err| err.to_string()),
        "receiver" => value
            .parse::<Receiver>()
            .map(|_| ())
            .map_err(|_| format!("receiver is one of {}", Receiver::NAMES.join(", "))),
        "verify-tls" => switch(value)
            .map(|_| ())
            .ok_or_else(|| "verify-tls is yes or no".to_owned()),
        "timeout" => match value.parse::<u64>() {
            Ok(1..=LONGEST_TIMEOUT) => Ok(()),
            _ => Err(format!("timeout is 1 to {LONGEST_TIMEOUT} seconds")),
        },
        "proxy" => value
            .parse::<ProxyAddress>()
            .map(|_| ())
            .map_err(|err| err.to_string()),
        _ if value.is_empty() => Err(format!("{name} is empty")),
        _ => Ok(()),
    }
}

fn switch(value: &str) -> Option<bool> {
    match value {
        "yes" | "1" | "true" | "on" => Some(true),
        "no" | "0" | "false" | "off" => Some(false),
        _ => None,
    }
}
