//! The configuration of the hook, `/etc/backstop/pve-hook.conf`.
//!
//! Lines `NAME: VALUE`, as in `vzdump.conf`; what begins with `#` is a comment. Settings below a line `[STORAGE]` are those of jobs
//! to that storage, in place of the common ones above. See `docs/proxmox-ve.md`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backstop_heartbeat::{Receiver, check_url, shown_server};
use backstop_outgoing::proxy::ProxyAddress;
use backstop_outgoing::tls::{Trust, TrustError, client_config};
use backstop_outgoing::{HttpClient, Route};

/// How long the hook takes at most, unless the configuration says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest time that can be configured: a backup job waits for it.
const LONGEST_TIMEOUT: u64 = 300;

/// Why the configuration cannot be used. Holds no value of it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is none.
    #[error(
        "there is no configuration {0:?}; write the line 'url: PUSH-URL' into it, readable by root alone"
    )]
    Absent(PathBuf),
    /// It cannot be read.
    #[error("unable to read {path:?} - {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others could read the secret in it.
    #[error(
        "{path:?} can be read by others (mode {mode:03o}) and holds a secret; run 'chmod 600' on it"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A line.
    #[error("{path:?}, line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Whom to trust makes no sense.
    #[error("{path:?}: {reason}")]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: TrustError,
    },
    /// Nobody is to be told.
    #[error("{0:?} names no url for this job")]
    NoUrl(PathBuf),
}

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
}

type Section = BTreeMap<&'static str, String>;

const NAMES: [&str; 7] = [
    "url",
    "receiver",
    "tls-server-name",
    "ca-file",
    "verify-tls",
    "proxy",
    "timeout",
];

/// Reads the settings for a job to `storage`.
///
/// # Errors
/// When they are absent, readable by others, or make no sense.
pub fn read(path: &Path, storage: Option<&str>) -> Result<Settings, ConfigError> {
    parse(&text(path)?, path, storage)
}

/// Whether the settings can be used: those of jobs to each storage that has its own, and the common ones where there are such.
///
/// # Errors
/// As of [`read`].
pub fn check(path: &Path) -> Result<(), ConfigError> {
    let text = text(path)?;
    let sections = text.lines().filter_map(|line| {
        let name = line.trim().strip_prefix('[')?.strip_suffix(']')?;
        Some(name.trim())
    });
    let mut is_told = false;
    for section in sections {
        check_trust(&parse(&text, path, Some(section))?, path)?;
        is_told = true;
    }
    match parse(&text, path, None) {
        // Jobs to other storages tell nobody, as somebody wants it.
        Err(ConfigError::NoUrl(_)) if is_told => Ok(()),
        result => check_trust(&result?, path),
    }
}

/// Whether it is known whom to trust.
fn check_trust(settings: &Settings, path: &Path) -> Result<(), ConfigError> {
    let client = &settings.client;
    let trust = match &client.authorities {
        _ if !client.verify => Trust::Anybody,
        Some(authorities) => Trust::Path(authorities),
        None => Trust::System,
    };
    // The host of the URL is checked where the URL is.
    let name = client.server_name.as_deref().unwrap_or("localhost");
    if client.authorities.is_none() && client.server_name.is_none() {
        return Ok(());
    }
    let prepared = client_config(name, trust).map(|_| ());
    prepared.map_err(|reason| ConfigError::Trust {
        path: path.to_owned(),
        reason,
    })
}

fn text(path: &Path) -> Result<String, ConfigError> {
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound => ConfigError::Absent(path.to_owned()),
        _ => ConfigError::Read {
            path: path.to_owned(),
            source,
        },
    };
    let mode = std::fs::metadata(path).map_err(failed)?.mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(ConfigError::Mode {
            path: path.to_owned(),
            mode,
        });
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn parse(text: &str, path: &Path, storage: Option<&str>) -> Result<Settings, ConfigError> {
    let mut common = Section::new();
    let mut own = Section::new();
    let mut section: Option<&str> = None;
    for (number, line) in text.lines().enumerate() {
        let failed = |reason: String| ConfigError::Line {
            path: path.to_owned(),
            line: number + 1,
            reason,
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.strip_suffix(']').map(str::trim);
            section = Some(name.ok_or_else(|| failed("expected [STORAGE]".to_owned()))?);
            continue;
        }
        let pair = line.split_once(':');
        let (name, value) = pair.ok_or_else(|| failed("expected NAME: VALUE".to_owned()))?;
        let (name, value) = (name.trim(), value.trim());
        // What is no name may be part of a secret.
        if !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
            return Err(failed("expected NAME: VALUE".to_owned()));
        }
        let known = NAMES.iter().find(|known| **known == name);
        let known = known.ok_or_else(|| {
            let name = name.escape_debug();
            failed(format!(
                "'{name}' is no setting; there are {}",
                NAMES.join(", ")
            ))
        })?;
        check_value(known, value).map_err(failed)?;
        match section {
            None => common.insert(known, value.to_owned()),
            Some(name) if storage == Some(name) => own.insert(known, value.to_owned()),
            Some(_) => None,
        };
    }
    common.extend(own);
    settings(&common).ok_or_else(|| ConfigError::NoUrl(path.to_owned()))
}

fn check_value(name: &str, value: &str) -> Result<(), String> {
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

/// What was checked is taken as it is.
fn settings(section: &Section) -> Option<Settings> {
    let get = |name| section.get(name).map(String::as_str);
    let timeout = get("timeout").and_then(|value| value.parse().ok());
    let timeout = timeout.map_or(TIMEOUT, Duration::from_secs);
    let proxy = get("proxy").and_then(|value| value.parse().ok());
    Some(Settings {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const TEXT: &str = "\
# who is told
url: https://10.0.0.5:3001/api/push/common
tls-server-name: status.example.org
ca-file: /etc/ssl/own.pem

[offsite]
url: https://hc-ping.com/uuid
receiver: healthchecks
verify-tls: no
timeout: 5
proxy: http://u:geheim@proxy:3128
";

    fn parsed(text: &str, storage: Option<&str>) -> Result<Settings, ConfigError> {
        parse(text, Path::new("/x/hook.conf"), storage)
    }

    #[test]
    fn each_storage_can_have_a_receiver_of_its_own() {
        let common = parsed(TEXT, Some("local")).unwrap();
        assert_eq!(common.url, "https://10.0.0.5:3001/api/push/common");
        assert_eq!(common.server(), "https://10.0.0.5:3001");
        assert_eq!(
            common.client.server_name.as_deref(),
            Some("status.example.org")
        );
        assert!(common.client.verify);
        assert_eq!(common.timeout, TIMEOUT);
        let own = parsed(TEXT, Some("offsite")).unwrap();
        assert_eq!(
            (own.url.as_str(), own.receiver),
            ("https://hc-ping.com/uuid", Receiver::Healthchecks)
        );
        assert!(!own.client.verify);
        assert_eq!(own.client.timeout, Duration::from_secs(5));
        assert!(matches!(own.client.route, Route::Proxy(_)));
    }

    #[test]
    fn errors_name_the_line_and_no_secret() {
        for (text, expected) in [
            ("url https://x/geheim", "line 1: expected NAME: VALUE"),
            ("\nurll: https://x/geheim", "line 2: 'urll' is no setting"),
            ("url: geheim", "neither with http://"),
            ("url: ftp://x/geheim", "neither with http://"),
            ("timeout: 0", "1 to 300"),
            ("verify-tls: perhaps", "yes or no"),
            ("receiver: nagios", "uptime-kuma"),
            ("proxy: socks5://u:geheim@x", "only http://"),
            ("[x", "expected [STORAGE]"),
            ("[x]\nurl: https://x/geheim", "names no url"),
        ] {
            let error = parsed(text, None).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn a_file_that_everybody_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hook.conf");
        assert!(matches!(read(&path, None), Err(ConfigError::Absent(_))));
        std::fs::write(&path, TEXT).unwrap();
        for (mode, is_good) in [(0o600, true), (0o640, true), (0o644, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path, None).is_ok(), is_good, "{mode:o}");
        }
    }

    #[test]
    fn a_check_looks_at_the_settings_of_every_storage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hook.conf");
        let checked = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .unwrap();
            check(&path)
        };
        let text = TEXT.replace("ca-file: /etc/ssl/own.pem\n", "");
        checked(&text).unwrap();
        checked("[a]\nurl: https://x/1\n").unwrap();
        for text in [
            "",
            "timeout: 5\n",
            "[a]\nurl: https://x/1\n[b]\ntimeout: 5\n",
        ] {
            assert!(
                matches!(checked(text), Err(ConfigError::NoUrl(_))),
                "{text}"
            );
        }
        let bad = checked("url: https://x/1\n[a]\ntimeout: never\n");
        assert!(matches!(bad, Err(ConfigError::Line { line: 3, .. })));
        // A file of authorities that is not there, and a name that is none.
        for line in ["ca-file: /does/not/exist", "tls-server-name: a b"] {
            let untrusted = checked(&format!("url: https://x/1\n{line}\n"));
            assert!(
                matches!(untrusted, Err(ConfigError::Trust { .. })),
                "{line}"
            );
            // Nobody asks where nothing is verified.
            let anybody = checked(&format!("url: https://x/1\nverify-tls: no\n{line}\n"));
            assert_eq!(anybody.is_ok(), line.starts_with("ca"), "{line}");
        }
    }
}
