//! Master keys: a pair of RSA keys whose public half seals the encryption key into each backup.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use backstop_format::key_file::KeyTime;
use backstop_format::master_key::{MasterPrivateKey, MasterPublicKey};
use serde_json::{Value, json};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{HINT, KDF, PATH, files, kdf, lock};
use crate::client_commands::encryption::{self, DEFAULT_MASTER_KEY};
use crate::command::{Arguments, Command, Parameter};
use crate::output::{self, Column, OUTPUT_FORMAT, Record};
use crate::{terminal, user_files};

/// The description of a master public key.
pub const PUBLIC_KEY: Record = Record::new(&[
    Column::text("path"),
    Column::text("modulus"),
    Column::text("exponent"),
    Column::number("length"),
]);

pub(super) fn create_command() -> Command {
    Command::new(
        "Make a pair of master keys in the current directory.",
        create,
    )
}

pub(super) fn import_public_command() -> Command {
    Command::new("Make a master public key the default one.", import_public).argument(
        Parameter::path("path", "The file with the master public key."),
    )
}

pub(super) fn show_public_command() -> Command {
    Command::new("Show what is known about a master public key.", show_public)
        .optional_argument(
            PATH.explained("The file with the master public key; without it the default one."),
        )
        .option(OUTPUT_FORMAT)
}

pub(super) fn import_with_command() -> Command {
    Command::new(
        "Recover an encryption key from a backup with the master private key.",
        import_with,
    )
    .optional_argument(PATH)
    .option(Parameter::path("master-keyfile", "The file with the master private key.").required())
    .option(Parameter::path("encrypted-keyfile", "The restored rsa-encrypted.key.").required())
    .option(KDF)
    .option(HINT)
}

fn create(_: &Arguments) -> anyhow::Result<ExitCode> {
    if !terminal::can_ask() {
        bail!("unable to create master key - no tty");
    }
    let passphrase = terminal::new_password("Master Key Password: ")?;
    let private = MasterPrivateKey::generate()?;
    let public = private.public_key().to_pem()?;
    let description = describe(Path::new(""), public.as_bytes())?;
    let member = |name: &str| {
        description
            .get(name)
            .map(crate::output::table::plain)
            .unwrap_or_default()
    };
    output::err(&format!(
        "Public key: modulus {}, exponent {}\n",
        member("modulus"),
        member("exponent")
    ));
    let path = Path::new("master-public.pem");
    output::err(&format!(
        "Writing public master key to {}\n",
        path.display()
    ));
    files::create_public(path, public.as_bytes())?;
    let path = Path::new("master-private.pem");
    output::err(&format!(
        "Writing private master key to {}\n",
        path.display()
    ));
    files::create(path, &private.to_pem(passphrase.as_bytes())?)?;
    Ok(ExitCode::SUCCESS)
}

fn import_public(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let pem = files::read(arguments.required_path("path")?)?;
    MasterPublicKey::from_pem(&pem).context("unable to parse master public key")?;
    let target = user_files::config(DEFAULT_MASTER_KEY).context("no home directory is known")?;
    files::replace(&target, &pem)?;
    output::err(&format!("Imported public master key to {target:?}\n"));
    Ok(ExitCode::SUCCESS)
}

fn show_public(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path: PathBuf = match arguments.path("path") {
        Some(path) => path.into(),
        None => user_files::existing_config(DEFAULT_MASTER_KEY)
            .context("no master public key file provided and no default file found")?,
    };
    let description = describe(&path, &files::read(&path)?)?;
    output::print_record(&PUBLIC_KEY, &description, arguments)?;
    Ok(ExitCode::SUCCESS)
}

/// Path, modulus in hexadecimal digits, exponent and length in bits.
fn describe(path: &Path, pem: &[u8]) -> anyhow::Result<Value> {
    MasterPublicKey::from_pem(pem)?;
    let (pem, _) =
        Pem::read(std::io::Cursor::new(pem)).context("the master public key is no PEM text")?;
    let (_, info) = SubjectPublicKeyInfo::from_der(&pem.contents)
        .map_err(|error| anyhow::anyhow!("unable to parse master public key - {error}"))?;
    let Ok(PublicKey::RSA(key)) = info.parsed() else {
        bail!("the master public key is no RSA key");
    };
    let modulus: String = key
        .modulus
        .iter()
        .skip_while(|byte| **byte == 0)
        .map(|byte| format!("{byte:02X}"))
        .collect();
    Ok(json!({
        "path": path.to_string_lossy(),
        "modulus": modulus,
        "exponent": key.try_exponent().context("the exponent is too large")?.to_string(),
        "length": key.key_size(),
    }))
}

fn import_with(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let kind = kdf(arguments)?;
    let path = super::target(arguments)?;
    if arguments.path("path").is_none() {
        if path.exists() {
            bail!(
                "Please remove default encryption key at {path:?} before importing to default location (or choose a non-default one)."
            );
        }
        output::err(&format!("Importing key to default location at: {path:?}\n"));
    }
    let sealed = files::read(arguments.required_path("encrypted-keyfile")?)?;
    let pem = files::read(arguments.required_path("master-keyfile")?)?;
    let encrypted = pem.windows(9).any(|part| part == b"ENCRYPTED");
    let passphrase = match encrypted {
        true if !terminal::can_ask() => bail!("unable to read passphrase - no tty"),
        true => terminal::password("Master Key Password: ")?,
        false => zeroize::Zeroizing::new(String::new()),
    };
    let private = MasterPrivateKey::from_pem(&pem, passphrase.as_bytes())
        .context("unable to open the master private key")?;
    let file = private
        .recover(&sealed)
        .context("unable to recover the encryption key")?;
    let key = super::unlock(&file, encryption::passphrase)?;
    let hint = arguments.given("hint");
    let file = lock(
        &key,
        kind,
        "New Password: ",
        file.created,
        KeyTime::now(),
        hint,
    )?;
    files::create(&path, &file.to_json()?)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_master_public_key_is_described_as_stock_does() {
        let fixtures = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/pbs-3.2.4"
        );
        let capture: Value = serde_json::from_slice(
            &std::fs::read(format!(
                "{fixtures}/cli/273-client-key-show-master-pubkey.json"
            ))
            .unwrap(),
        )
        .unwrap();
        let pem = std::fs::read(format!("{fixtures}/keys/master-public.pem")).unwrap();
        let description = describe(Path::new("/srv/fixture/keys/master-public.pem"), &pem).unwrap();
        assert_eq!(
            PUBLIC_KEY.render(&description, &crate::output::Style::PLAIN),
            capture["stdout"].as_str().unwrap()
        );
    }
}
