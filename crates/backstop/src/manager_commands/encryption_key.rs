//! `encryption-key …`: the keys that sync jobs encrypt and decrypt with. A secret is printed when a key is made, and never again.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use backstop_format::key_file::MAX_KEY_FILE_SIZE;
use backstop_server::config::encryption_keys;
use backstop_types::config_schema::value;
use serde_json::Value;
use zeroize::Zeroizing;

use super::configuration;
use super::settings::DIGEST;
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Column, OUTPUT_FORMAT, Table, time};

/// All keys.
pub const KEYS: Table = Table::new(&[
    Column::text("id"),
    Column::text("fingerprint"),
    Column::number("created").rendered(moment),
    Column::number("archived-at").rendered(moment),
])
.sorted(&["id"]);

const ID: Parameter = Parameter::of("id", "The name of the key.", &value::CONFIG_ID);

fn moment(value: &Value, _: &Value) -> anyhow::Result<String> {
    Ok(value.as_i64().map(time::local).unwrap_or_default())
}

/// The commands below `encryption-key`.
pub fn commands() -> Group {
    let on_key = |help, action| Command::new(help, action).argument(ID);
    Group::new()
        .command(
            "list",
            Command::new("List the keys of sync jobs, without their secrets.", list)
                .option(
                    Parameter::flag("include-archived", "Also those that no longer encrypt.")
                        .default("false"),
                )
                .option(OUTPUT_FORMAT),
        )
        .command(
            "create",
            on_key(
                "Add a key for sync jobs and print it, this once, as a key file of the client. Keep a copy elsewhere: without it \
                 nobody can read what was encrypted.",
                create,
            )
            .option(
                Parameter::path(
                    "keyfile",
                    "Take this key file, which has no passphrase, instead of making a key; nothing is printed then.",
                )
                .file(),
            ),
        )
        .command(
            "archive",
            on_key("Use a key no longer to encrypt. It still decrypts.", archive).option(DIGEST),
        )
        .command(
            "unarchive",
            on_key("Use an archived key again to encrypt.", unarchive).option(DIGEST),
        )
        .command(
            "remove",
            on_key("Remove an archived key that no sync job names, for good.", remove)
                .option(DIGEST),
        )
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let keys = encryption_keys::list(&configuration(), arguments.flag("include-archived"))?;
    let keys = keys.into_iter().map(Value::Object).collect();
    output::print_table(&KEYS, &Value::Array(keys), arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).with_context(|| format!("unable to open {path:?}"))?;
    file.take(MAX_KEY_FILE_SIZE as u64)
        .read_to_string(&mut text)
        .with_context(|| format!("unable to read {path:?}"))?;
    Ok(text)
}

fn create(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let id = arguments.required("id")?;
    let given = arguments.path("keyfile").map(read).transpose()?;
    let given = given.as_ref().map(|text| text.as_str());
    let key = encryption_keys::create(&configuration(), id, given)?;
    if given.is_none() {
        let text = key.to_json_pretty()?;
        output::out(&format!("{}\n", String::from_utf8_lossy(&text)));
    }
    Ok(ExitCode::SUCCESS)
}

fn set_archived(arguments: &Arguments, wanted: bool) -> anyhow::Result<ExitCode> {
    let id = arguments.required("id")?;
    let digest = arguments.text("digest");
    encryption_keys::set_archived(&configuration(), id, Some(wanted), digest)?;
    Ok(ExitCode::SUCCESS)
}

fn archive(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    set_archived(arguments, true)
}

fn unarchive(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    set_archived(arguments, false)
}

fn remove(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let digest = arguments.text("digest");
    encryption_keys::remove(&configuration(), arguments.required("id")?, digest)?;
    Ok(ExitCode::SUCCESS)
}
