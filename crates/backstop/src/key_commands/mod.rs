//! `key …`: making, changing and showing encryption keys and master keys. Everything happens on this
//! machine; no server is asked. A key is never printed except as the paper copy that is asked for.

mod files;
mod master;
mod paper;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use backstop_format::FormatError;
use backstop_format::crypt::CryptKey;
use backstop_format::key_file::{KdfKind, KeyFile, KeyTime};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::client_commands::encryption::{self, DEFAULT_KEY};
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Column, OUTPUT_FORMAT, Record, time};
use crate::{terminal, user_files};

/// A key's description.
pub const KEY: Record = Record::new(&[
    Column::text("path"),
    Column::text("kdf"),
    Column::text("created").rendered(moment),
    Column::text("modified").rendered(moment),
    Column::text("fingerprint"),
    Column::text("hint"),
]);

fn moment(value: &Value, _: &Value) -> anyhow::Result<String> {
    Ok(value.as_i64().map(time::local).unwrap_or_default())
}

const PATH: Parameter = Parameter::path("path", "The key file; without it the default key.");

const KDF: Parameter = Parameter::choice(
    "kdf",
    "How the passphrase protects the key.",
    &["none", "scrypt", "pbkdf2"],
)
.default("scrypt");

const HINT: Parameter =
    Parameter::text("hint", "A hint to remember the passphrase by.").length(1, 64);

/// The commands below `key`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "create",
            Command::new("Make a new encryption key.", create)
                .optional_argument(PATH)
                .option(KDF)
                .option(HINT),
        )
        .command(
            "change-passphrase",
            Command::new("Protect a key with another passphrase.", change_passphrase)
                .optional_argument(PATH)
                .option(KDF)
                .option(HINT),
        )
        .command(
            "show",
            Command::new("Show what is known about a key.", show)
                .optional_argument(PATH)
                .option(OUTPUT_FORMAT),
        )
        .command("paperkey", paper::command())
        .command("create-master-key", master::create_command())
        .command("import-master-pubkey", master::import_public_command())
        .command("show-master-pubkey", master::show_public_command())
        .command("import-with-master-key", master::import_with_command())
}

/// Where a new key goes: the path of the command line, else the default place.
fn target(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    if let Some(path) = arguments.path("path") {
        return Ok(path.into());
    }
    user_files::config(DEFAULT_KEY)
        .context("no home directory is known, so the path of the key is needed")
}

/// Which existing key is meant: the path of the command line, else the default key.
fn existing(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    if let Some(path) = arguments.path("path") {
        return Ok(path.into());
    }
    user_files::existing_config(DEFAULT_KEY)
        .context("no encryption key file provided and no default file found")
}

fn read(path: &std::path::Path) -> anyhow::Result<KeyFile> {
    KeyFile::from_json(&files::read(path)?).with_context(|| format!("{path:?} is no key file"))
}

fn kdf(arguments: &Arguments) -> anyhow::Result<KdfKind> {
    let kind = match arguments.text("kdf") {
        Some("none") => KdfKind::None,
        Some("pbkdf2") => KdfKind::Pbkdf2,
        _ => KdfKind::Scrypt,
    };
    if kind == KdfKind::None && arguments.given("hint").is_some() {
        bail!("password hint not allowed for Kdf::None");
    }
    Ok(kind)
}

/// Locks a key with a new passphrase; without a key derivation there is nothing to ask.
fn lock(
    key: &CryptKey,
    kind: KdfKind,
    prompt: &str,
    created: KeyTime,
    modified: KeyTime,
    hint: Option<&str>,
) -> anyhow::Result<KeyFile> {
    if kind == KdfKind::None {
        return Ok(KeyFile::unprotected(key, created, modified));
    }
    if !terminal::can_ask() {
        bail!("unable to read passphrase - no tty");
    }
    let passphrase = terminal::new_password(prompt)?;
    let hint = hint.map(str::to_string);
    Ok(KeyFile::protected(
        key,
        kind,
        passphrase.as_bytes(),
        created,
        modified,
        hint,
    )?)
}

/// Unlocks a key file with the passphrase that `ask` gives.
///
/// # Errors
/// What `ask` returns, or that the passphrase is wrong.
pub fn unlock(
    file: &KeyFile,
    ask: impl FnOnce() -> anyhow::Result<Zeroizing<String>>,
) -> anyhow::Result<CryptKey> {
    let passphrase = match file.kdf {
        None => Zeroizing::new(Vec::new()),
        Some(_) => Zeroizing::new(ask()?.as_bytes().to_vec()),
    };
    Ok(file.open(|| Ok::<_, FormatError>(passphrase))?)
}

fn create(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let kind = kdf(arguments)?;
    let path = target(arguments)?;
    if arguments.path("path").is_none() {
        output::err(&format!("creating default key at: {path:?}\n"));
    }
    let now = KeyTime::now();
    let key = CryptKey::generate()?;
    let prompt = "Encryption Key Password: ";
    let file = lock(&key, kind, prompt, now, now, arguments.given("hint"))?;
    files::create(&path, &file.to_json()?)?;
    Ok(ExitCode::SUCCESS)
}

fn change_passphrase(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let kind = kdf(arguments)?;
    let path = existing(arguments)?;
    if arguments.path("path").is_none() {
        output::err(&format!("updating default key at: {path:?}\n"));
    }
    if !terminal::can_ask() {
        bail!("unable to change passphrase - no tty");
    }
    let file = read(&path)?;
    let key = unlock(&file, encryption::passphrase)?;
    let hint = arguments.given("hint");
    let file = lock(
        &key,
        kind,
        "New Password: ",
        file.created,
        KeyTime::now(),
        hint,
    )?;
    files::replace(&path, &file.to_json()?)?;
    Ok(ExitCode::SUCCESS)
}

/// What is known about a key without its passphrase.
fn description(path: &std::path::Path, file: &KeyFile) -> Value {
    let kdf = match &file.kdf {
        None => "none",
        Some(backstop_format::key_file::Kdf::Scrypt { .. }) => "scrypt",
        Some(backstop_format::key_file::Kdf::Pbkdf2 { .. }) => "pbkdf2",
    };
    let mut members = Map::new();
    members.insert("path".to_string(), json!(format!("{path:?}")));
    members.insert("kdf".to_string(), json!(kdf));
    members.insert("created".to_string(), json!(file.created.seconds));
    members.insert("modified".to_string(), json!(file.modified.seconds));
    if let Some(fingerprint) = &file.fingerprint {
        members.insert("fingerprint".to_string(), json!(fingerprint.to_string()));
    }
    if let Some(hint) = &file.hint {
        members.insert("hint".to_string(), json!(hint));
    }
    Value::Object(members)
}

fn show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = existing(arguments)?;
    output::print_record(&KEY, &description(&path, &read(&path)?), arguments)?;
    Ok(ExitCode::SUCCESS)
}
