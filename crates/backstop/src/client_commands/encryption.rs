//! Which encryption key a command uses, and for what: the options, the default key and the rules
//! that join them. Key material is never printed.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use backstop_format::crypt::{CryptKey, CryptMode};
use backstop_format::key_file::KeyFile;
use backstop_format::master_key::MasterPublicKey;
use zeroize::Zeroizing;

use crate::command::{Arguments, Parameter};
use crate::{key_commands, output, secret, terminal, user_files};

/// The name of the default key below the user's configuration.
pub const DEFAULT_KEY: &str = "encryption-key.json";
/// The name of the default master public key below the user's configuration.
pub const DEFAULT_MASTER_KEY: &str = "master-public.pem";
/// Largest key file that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// The master key of a backup: its public half seals the encryption key into the snapshot.
pub const MASTER_KEY: &[Parameter] = &[
    Parameter::path(
        "master-pubkey-file",
        "The file with the master public key; the encryption key is sealed with it and added to the backup.",
    ),
    Parameter::integer(
        "master-pubkey-fd",
        "An open file descriptor with the master public key.",
        Some(0),
        None,
    ),
];

/// Where a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The user's configuration.
    Default(PathBuf),
    /// A file named on the command line.
    File(PathBuf),
    /// An open file descriptor.
    Descriptor(u32),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default(path) | Self::File(path) => write!(f, "{path:?}"),
            Self::Descriptor(number) => write!(f, "file descriptor {number}"),
        }
    }
}

impl Source {
    /// The line that tells where the key comes from.
    fn announcement(&self, what: &str) -> String {
        match self {
            Self::Default(_) => format!("Using default {what} key.."),
            Self::Descriptor(_) => format!("Using {what} key from file descriptor.."),
            Self::File(path) => format!("Using {what} key from '{}'..", path.display()),
        }
    }

    fn read(&self) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let path = match self {
            Self::Default(path) | Self::File(path) => path.clone(),
            Self::Descriptor(number) => PathBuf::from(format!("/proc/self/fd/{number}")),
        };
        let mut content = Zeroizing::new(Vec::new());
        std::fs::File::open(&path)
            .with_context(|| format!("unable to open key {path:?}"))?
            .take(LIMIT)
            .read_to_end(&mut content)
            .with_context(|| format!("unable to read key {path:?}"))?;
        Ok(content)
    }
}

/// What the options and the default files amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// What is done to the data.
    pub mode: CryptMode,
    /// The key, if one is to be used.
    pub key: Option<Source>,
    /// The master public key, if one is to be used.
    pub master: Option<Source>,
    /// Whether to say that a mode without a key led to the default key.
    fell_back: bool,
}

/// What stands on the command line, and which default files exist.
#[derive(Default)]
struct Given {
    mode: Option<CryptMode>,
    key: Option<Source>,
    master: Option<Source>,
    default_key: Option<PathBuf>,
    default_master: Option<PathBuf>,
}

impl Encryption {
    /// Applies the rules to the command line and the user's configuration.
    ///
    /// # Errors
    /// If options contradict each other or a key is needed and none is there.
    pub fn choose(arguments: &Arguments) -> anyhow::Result<Self> {
        let mode = match arguments.given("crypt-mode") {
            None => None,
            Some("none") => Some(CryptMode::None),
            Some("sign-only") => Some(CryptMode::SignOnly),
            Some(_) => Some(CryptMode::Encrypt),
        };
        Self::decide(Given {
            mode,
            key: source(arguments, "keyfile", "keyfd")?,
            master: source(arguments, "master-pubkey-file", "master-pubkey-fd")?,
            default_key: user_files::existing_config(DEFAULT_KEY),
            default_master: user_files::existing_config(DEFAULT_MASTER_KEY),
        })
    }

    fn decide(given: Given) -> anyhow::Result<Self> {
        let default_key = given.default_key.map(Source::Default);
        let default_master = given.default_master.map(Source::Default);
        let none = Self {
            mode: CryptMode::None,
            key: None,
            master: None,
            fell_back: false,
        };
        match (given.mode, given.key) {
            (Some(CryptMode::None), None) if given.master.is_none() => Ok(none),
            (Some(CryptMode::None), Some(_)) => {
                bail!("--keyfile/--keyfd and --crypt-mode=none are mutually exclusive")
            }
            (Some(CryptMode::None), None) => {
                bail!(
                    "--master-pubkey-file/--master-pubkey-fd and --crypt-mode=none are mutually exclusive"
                )
            }
            (mode, Some(key)) => Ok(Self {
                mode: mode.unwrap_or(CryptMode::Encrypt),
                key: Some(key),
                master: given.master.or(default_master),
                fell_back: false,
            }),
            (None, None) => match default_key {
                Some(key) => Ok(Self {
                    mode: CryptMode::Encrypt,
                    key: Some(key),
                    master: given.master.or(default_master),
                    fell_back: false,
                }),
                None if given.master.is_some() => {
                    bail!("--master-pubkey-file/--master-pubkey-fd specified, but no key available")
                }
                None => Ok(none),
            },
            (Some(mode), None) => match default_key {
                Some(key) => Ok(Self {
                    mode,
                    key: Some(key),
                    master: given.master.or(default_master),
                    fell_back: true,
                }),
                None => bail!("--crypt-mode without --keyfile and no default key file available"),
            },
        }
    }

    /// The key, unlocked with a passphrase if it needs one. Says on standard error which key it is.
    ///
    /// # Errors
    /// If the key cannot be read or unlocked.
    pub fn unlock(&self) -> anyhow::Result<Option<UnlockedKey>> {
        let Some(source) = &self.key else {
            return Ok(None);
        };
        if self.fell_back {
            output::err("Encrypting with default encryption key!\n");
        }
        output::err(&format!("{}\n", source.announcement("encryption")));
        self.unlock_quietly()
    }

    /// As [`Self::unlock`], without saying which key it is.
    ///
    /// # Errors
    /// As [`Self::unlock`].
    pub fn unlock_quietly(&self) -> anyhow::Result<Option<UnlockedKey>> {
        let Some(source) = &self.key else {
            return Ok(None);
        };
        let file = KeyFile::from_json(&source.read()?)
            .with_context(|| format!("{source} holds no usable encryption key"))?;
        let key = key_commands::unlock(&file, passphrase)?;
        Ok(Some(UnlockedKey {
            key: Arc::new(key),
            file,
        }))
    }

    /// The key for data that is to be encrypted; none if it is only signed or left as it is.
    ///
    /// # Errors
    /// If the key cannot be read or unlocked.
    pub fn unlock_for_encryption(&self) -> anyhow::Result<Option<Arc<CryptKey>>> {
        if self.mode != CryptMode::Encrypt {
            return Ok(None);
        }
        Ok(self.unlock()?.map(|unlocked| unlocked.key))
    }

    /// The PEM text of the master public key. Says on standard error which it is.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn master_pem(&self) -> anyhow::Result<Option<Zeroizing<Vec<u8>>>> {
        let Some(source) = &self.master else {
            return Ok(None);
        };
        output::err(&format!("{}\n", source.announcement("master")));
        source.read().map(Some)
    }
}

/// A key that is ready for use, with the file it came from.
pub struct UnlockedKey {
    /// The key.
    pub key: Arc<CryptKey>,
    /// The file, still locked.
    pub file: KeyFile,
}

impl UnlockedKey {
    /// The key sealed for the holder of the master private key.
    ///
    /// # Errors
    /// If the text is no master public key, or one too small.
    pub fn seal_for(&self, pem: &[u8]) -> anyhow::Result<Vec<u8>> {
        let master = MasterPublicKey::from_pem(pem).context("unable to parse master public key")?;
        Ok(master.escrow(&self.key, self.file.created)?)
    }
}

fn source(arguments: &Arguments, file: &str, descriptor: &str) -> anyhow::Result<Option<Source>> {
    match (arguments.given_path(file), arguments.integer(descriptor)) {
        (Some(_), Some(_)) => bail!("--{file} and --{descriptor} are mutually exclusive"),
        (Some(path), None) => Ok(Some(Source::File(path.to_path_buf()))),
        (None, Some(number)) => Ok(Some(Source::Descriptor(
            u32::try_from(number).with_context(|| format!("bad file descriptor {number}"))?,
        ))),
        (None, None) => Ok(None),
    }
}

/// The passphrase of an encryption key: from the environment, else from the person at the terminal.
///
/// # Errors
/// If there is neither.
pub fn passphrase() -> anyhow::Result<Zeroizing<String>> {
    if let Some(passphrase) = secret::ENCRYPTION_PASSWORD.find()? {
        return Ok(passphrase);
    }
    if !terminal::can_ask() {
        bail!("no password input mechanism available");
    }
    terminal::password("Encryption Key Password: ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn file(path: &str) -> Option<Source> {
        Some(Source::File(path.into()))
    }

    fn default(path: &str) -> Option<Source> {
        Some(Source::Default(path.into()))
    }

    fn decided(given: Given) -> (CryptMode, Option<Source>, Option<Source>) {
        let encryption = Encryption::decide(given).unwrap();
        (encryption.mode, encryption.key, encryption.master)
    }

    #[test]
    fn without_options_a_default_key_encrypts() {
        assert_eq!(decided(Given::default()), (CryptMode::None, None, None));
        let given = Given {
            default_key: Some("k".into()),
            default_master: Some("m".into()),
            ..Given::default()
        };
        assert_eq!(
            decided(given),
            (CryptMode::Encrypt, default("k"), default("m"))
        );
    }

    #[test]
    fn mode_none_ignores_the_default_key_and_refuses_an_explicit_one() {
        let given = |key, master| Given {
            mode: Some(CryptMode::None),
            key,
            master,
            default_key: Some("k".into()),
            ..Given::default()
        };
        assert_eq!(decided(given(None, None)), (CryptMode::None, None, None));
        assert!(Encryption::decide(given(file("x"), None)).is_err());
        assert!(Encryption::decide(given(None, file("x"))).is_err());
    }

    #[test]
    fn a_mode_needs_some_key() {
        let given = |key, default_key| Given {
            mode: Some(CryptMode::SignOnly),
            key,
            default_key,
            ..Given::default()
        };
        let error = Encryption::decide(given(None, None)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--crypt-mode without --keyfile and no default key file available"
        );
        assert_eq!(
            decided(given(file("x"), None)),
            (CryptMode::SignOnly, file("x"), None)
        );
        assert_eq!(
            decided(given(None, Some("k".into()))),
            (CryptMode::SignOnly, default("k"), None)
        );
    }

    #[test]
    fn a_master_key_without_a_key_is_refused() {
        let given = Given {
            master: file("m"),
            ..Given::default()
        };
        assert!(Encryption::decide(given).is_err());
    }
}
