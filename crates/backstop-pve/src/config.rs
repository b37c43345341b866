//! The configuration of the hook, `/etc/backstop/pve-hook.conf`.
//!
//! Settings below a line `[STORAGE]` are those of jobs to that storage, in place of the common ones above. See `docs/proxmox-ve.md`.

use std::path::Path;

use backstop_push::receiver::Settings;
use backstop_push::settings_file::{Setting, SettingsError, SettingsFile};

/// Reads the settings for a job to `storage`.
///
/// # Errors
/// When they are absent, readable by others, or make no sense.
pub fn read(path: &Path, storage: Option<&str>) -> Result<Settings, SettingsError> {
    settings(&SettingsFile::read(path)?, storage)
}

/// Whether the settings can be used: those of jobs to each storage that has its own, and the common ones where there are such.
///
/// # Errors
/// As of [`read`].
pub fn check(path: &Path) -> Result<(), SettingsError> {
    let file = SettingsFile::read(path)?;
    let check_trust = |settings: Settings| {
        settings
            .check_trust()
            .map_err(|reason| SettingsError::Trust {
                path: path.to_owned(),
                reason,
            })
    };
    for section in &file.sections {
        check_trust(settings(&file, Some(&section.name))?)?;
    }
    match settings(&file, None) {
        // Jobs to other storages tell nobody, as somebody wants it.
        Err(SettingsError::NoUrl(_)) if !file.sections.is_empty() => Ok(()),
        result => check_trust(result?),
    }
}

fn settings(file: &SettingsFile, storage: Option<&str>) -> Result<Settings, SettingsError> {
    let sections = file.sections.iter();
    // A mistake in those of other jobs is said, too.
    let all = sections.clone().flat_map(|section| &section.settings);
    Settings::of(file, file.common.iter().chain(all))?;
    let own = sections.filter(|section| storage == Some(section.name.as_str()));
    let own = own.flat_map(|section| &section.settings);
    let chosen: Vec<&Setting> = file.common.iter().chain(own).collect();
    Settings::of(file, chosen)?.ok_or_else(|| SettingsError::NoUrl(file.path.clone()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Duration;

    use backstop_heartbeat::Receiver;
    use backstop_outgoing::Route;

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

    fn parsed(text: &str, storage: Option<&str>) -> Result<Settings, SettingsError> {
        settings(
            &SettingsFile::parse(text, Path::new("/x/hook.conf"))?,
            storage,
        )
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
        assert_eq!(common.timeout, Duration::from_secs(30));
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
            ("\nurll: https://x/geheim", "line 2: 'urll' is no setting"),
            ("url: geheim", "neither with http://"),
            ("url: ftp://x/geheim", "neither with http://"),
            ("timeout: 0", "1 to 300"),
            ("verify-tls: perhaps", "yes or no"),
            ("receiver: nagios", "uptime-kuma"),
            ("proxy: socks5://u:geheim@x", "only http://"),
            ("[x]\nurl: https://x/geheim", "names no url"),
        ] {
            let error = parsed(text, None).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("geheim"), "{error}");
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
                matches!(checked(text), Err(SettingsError::NoUrl(_))),
                "{text}"
            );
        }
        let bad = checked("url: https://x/1\n[a]\ntimeout: never\n");
        assert!(matches!(bad, Err(SettingsError::Line { line: 3, .. })));
        // A file of authorities that is not there, and a name that is none.
        for line in ["ca-file: /does/not/exist", "tls-server-name: a b"] {
            let untrusted = checked(&format!("url: https://x/1\n{line}\n"));
            assert!(
                matches!(untrusted, Err(SettingsError::Trust { .. })),
                "{line}"
            );
            // Nobody asks where nothing is verified.
            let anybody = checked(&format!("url: https://x/1\nverify-tls: no\n{line}\n"));
            assert_eq!(anybody.is_ok(), line.starts_with("ca"), "{line}");
        }
    }
}
