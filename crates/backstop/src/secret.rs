//! Values that must not stand on a command line: they come from the environment, from files and
//! descriptors that it names, from commands, or from systemd credentials. They are never printed.

use std::io::Read as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

use crate::command::words;

/// Longest value, in bytes.
const LIMIT: u64 = 1 << 20;

/// A value that has a name in the environment and among the systemd credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secret {
    variable: &'static str,
    credential: &'static str,
}

/// The password of a user or the secret of an API token.
pub const PASSWORD: Secret = Secret {
    variable: "PBS_PASSWORD",
    credential: "proxmox-backup-client.password",
};

/// The passphrase of the encryption key.
pub const ENCRYPTION_PASSWORD: Secret = Secret {
    variable: "PBS_ENCRYPTION_PASSWORD",
    credential: "proxmox-backup-client.encryption-password",
};

/// The repository.
pub const REPOSITORY: Secret = Secret {
    variable: "PBS_REPOSITORY",
    credential: "proxmox-backup-client.repository",
};

/// The fingerprint of the server's certificate.
pub const FINGERPRINT: Secret = Secret {
    variable: "PBS_FINGERPRINT",
    credential: "proxmox-backup-client.fingerprint",
};

impl Secret {
    /// The value, from the first of: the variable itself, its `_FD`, `_FILE` and `_CMD` forms, the credential.
    /// Only the first line counts.
    ///
    /// # Errors
    /// If a source is named but cannot be read, or its content is not UTF-8.
    pub fn find(self) -> anyhow::Result<Option<Zeroizing<String>>> {
        self.find_in(|name| std::env::var_os(name))
    }

    fn find_in(
        self,
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> anyhow::Result<Option<Zeroizing<String>>> {
        let name = self.variable;
        let get = |name: &str| -> anyhow::Result<Option<String>> {
            match variable(name).map(std::ffi::OsString::into_string) {
                None => Ok(None),
                Some(Ok(text)) => Ok(Some(text)),
                Some(Err(_)) => bail!("{name} contains bad characters"),
            }
        };
        if let Some(value) = get(name)? {
            return Ok(Some(Zeroizing::new(first_line(&value).to_string())));
        }
        if let Some(number) = get(&format!("{name}_FD"))? {
            let number: u32 = number
                .parse()
                .with_context(|| format!("unable to parse file descriptor in {name}_FD"))?;
            let path = format!("/proc/self/fd/{number}");
            return read_file(&path, &format!("{name}_FD")).map(Some);
        }
        if let Some(path) = get(&format!("{name}_FILE"))? {
            return read_file(&path, &format!("{name}_FILE")).map(Some);
        }
        if let Some(line) = get(&format!("{name}_CMD"))? {
            return run(&line, &format!("{name}_CMD")).map(Some);
        }
        if let Some(directory) = variable("CREDENTIALS_DIRECTORY") {
            let path = std::path::Path::new(&directory).join(self.credential);
            if path.exists() {
                return read_file(&path.to_string_lossy(), "CREDENTIALS_DIRECTORY").map(Some);
            }
        }
        Ok(None)
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}

fn read_file(path: &str, named_by: &str) -> anyhow::Result<Zeroizing<String>> {
    let file = std::fs::File::open(path)
        .with_context(|| format!("unable to open {path:?}, which {named_by} names"))?;
    read(file, named_by)
}

fn read(source: impl std::io::Read, named_by: &str) -> anyhow::Result<Zeroizing<String>> {
    let mut content = Zeroizing::new(Vec::new());
    source
        .take(LIMIT)
        .read_to_end(&mut content)
        .with_context(|| format!("unable to read what {named_by} names"))?;
    let text = std::str::from_utf8(&content)
        .with_context(|| format!("what {named_by} names contains bad characters"))?;
    Ok(Zeroizing::new(first_line(text).to_string()))
}

fn run(line: &str, named_by: &str) -> anyhow::Result<Zeroizing<String>> {
    let (words, closed) = words::split(line);
    let Some((program, arguments)) = words.split_first().filter(|_| closed) else {
        bail!("{named_by} is no command line");
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("unable to run the command in {named_by}"))?;
    let value = match child.stdout.take() {
        Some(stdout) => read(stdout, named_by),
        None => Ok(Zeroizing::new(String::new())),
    };
    let status = child
        .wait()
        .with_context(|| format!("unable to wait for the command in {named_by}"))?;
    if !status.success() {
        bail!("the command in {named_by} failed ({status})");
    }
    value
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn find(pairs: &[(&str, &str)]) -> anyhow::Result<Option<String>> {
        PASSWORD
            .find_in(|name| {
                pairs
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).into())
            })
            .map(|found| found.map(|value| value.to_string()))
    }

    #[test]
    fn the_plain_variable_wins_and_only_its_first_line_counts() {
        let found = find(&[
            ("PBS_PASSWORD", "a b\nc"),
            ("PBS_PASSWORD_FILE", "/nonexistent"),
        ]);
        assert_eq!(found.unwrap().as_deref(), Some("a b"));
        assert_eq!(find(&[("PBS_PASSWORD", "")]).unwrap().as_deref(), Some(""));
        assert_eq!(find(&[]).unwrap(), None);
    }

    #[test]
    fn files_commands_and_credentials_give_their_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("proxmox-backup-client.password");
        std::fs::write(&file, "from file\r\nsecond\n").unwrap();
        let path = file.to_str().unwrap();
        let found = find(&[("PBS_PASSWORD_FILE", path), ("PBS_PASSWORD_CMD", "false")]);
        assert_eq!(found.unwrap().as_deref(), Some("from file"));
        let found = find(&[("PBS_PASSWORD_CMD", "printf 'from %s\\n' command")]);
        assert_eq!(found.unwrap().as_deref(), Some("from command"));
        let found = find(&[("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap())]);
        assert_eq!(found.unwrap().as_deref(), Some("from file"));
        let found = find(&[("CREDENTIALS_DIRECTORY", "/nonexistent")]);
        assert_eq!(found.unwrap(), None);
    }

    #[test]
    fn a_source_that_cannot_be_read_is_an_error_that_names_it() {
        for pair in [
            ("PBS_PASSWORD_FD", "x"),
            ("PBS_PASSWORD_FD", "987654"),
            ("PBS_PASSWORD_FILE", "/nonexistent"),
            ("PBS_PASSWORD_CMD", ""),
            ("PBS_PASSWORD_CMD", "'open"),
            ("PBS_PASSWORD_CMD", "false"),
        ] {
            let error = find(&[pair]).unwrap_err().to_string();
            assert!(error.contains(pair.0), "{pair:?}: {error}");
        }
    }

    #[test]
    fn content_that_is_not_utf8_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(find(&[("PBS_PASSWORD_FILE", file.to_str().unwrap())]).is_err());
    }
}
