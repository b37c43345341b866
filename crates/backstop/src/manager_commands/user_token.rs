//! API tokens: `user list-tokens`, `user generate-token`, `user delete-token`, and the same and more under `user token …`.
//!
//! A secret is printed when it is made and never again; nothing here can show one that exists.

use std::process::ExitCode;

use backstop_server::access::token;
use backstop_server::config::SectionFile;
use backstop_types::config_schema::access::TOKEN;
use backstop_types::config_schema::value;
use backstop_types::{AuthId, TokenName};
use serde_json::{Map, Value, json};

use super::configuration;
use super::settings::{self, DIGEST};
use super::user::{USER_ID, enabled, expiry, settings_options, user_id};
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Column, OUTPUT_FORMAT, Table};

/// API tokens.
pub const TOKENS: Table = Table::new(&[
    Column::text("tokenid"),
    Column::number("enable").rendered(enabled),
    Column::number("expire").rendered(expiry),
    Column::text("comment"),
]);

const TOKEN_NAME: Parameter =
    Parameter::of("token-name", "The name of the token.", &value::TOKEN_NAME);

fn token_options() -> Vec<Parameter> {
    settings_options()
        .into_iter()
        .filter(|option| TOKEN.get(option.name).is_some())
        .collect()
}

/// The commands below `user token`.
pub fn commands() -> Group {
    Group::new()
        .command("list", list_command())
        .command("generate", generate_command())
        .command(
            "update",
            Command::new("Change an API token; its secret stays.", update)
                .argument(USER_ID)
                .argument(TOKEN_NAME)
                .options(&token_options())
                .option(
                    Parameter::choice("delete", "A setting to remove.", token::DELETABLE)
                        .repeated(),
                )
                .option(DIGEST),
        )
        .command(
            "regenerate",
            Command::new(
                "Give an API token a new secret and show it, this once. The old one stops working; rights stay.",
                regenerate,
            )
            .argument(USER_ID)
            .argument(TOKEN_NAME)
            .option(DIGEST),
        )
        .command("delete", delete_command())
}

/// Lists the tokens of a user.
pub fn list_command() -> Command {
    Command::new("List the API tokens of a user.", list)
        .argument(USER_ID)
        .option(OUTPUT_FORMAT)
}

/// Makes a token.
pub fn generate_command() -> Command {
    Command::new(
        "Make an API token and show its secret, this once.",
        generate,
    )
    .argument(USER_ID)
    .argument(TOKEN_NAME)
    .options(&token_options())
    .option(DIGEST)
}

/// Removes a token.
pub fn delete_command() -> Command {
    Command::new("Remove an API token with its rights.", delete)
        .argument(USER_ID)
        .argument(TOKEN_NAME)
        .option(DIGEST)
}

fn token_name(arguments: &Arguments) -> anyhow::Result<TokenName> {
    Ok(arguments.required("token-name")?.parse()?)
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let user = user_id(arguments)?;
    let loaded = configuration().sections(SectionFile::User)?;
    let mut tokens = Vec::new();
    for (id, _) in loaded.data.of_type("token") {
        let (Ok(token), Some(mut record)) = (id.parse::<AuthId>(), loaded.data.to_api(id)) else {
            continue;
        };
        if let (true, Some(name)) = (*token.user() == user, token.token_name()) {
            record.insert("token-name".to_string(), json!(name.to_string()));
            tokens.push(Value::Object(record));
        }
    }
    output::print_table(&TOKENS, &Value::Array(tokens), arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn generate(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let parameters = settings::given(arguments, &TOKEN)?;
    let new = token::generate(
        &configuration(),
        &user_id(arguments)?,
        &token_name(arguments)?,
        parameters,
        arguments.text("digest"),
    )?;
    output::print_result(&json!({ "tokenid": new.tokenid.to_string(), "value": new.value }));
    Ok(ExitCode::SUCCESS)
}

fn update(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let parameters = settings::given(arguments, &TOKEN)?;
    change(arguments, parameters, false)?;
    Ok(ExitCode::SUCCESS)
}

fn regenerate(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(new) = change(arguments, Map::new(), true)? {
        let token = user_id(arguments)?.token(&token_name(arguments)?)?;
        output::print_result(&json!({ "tokenid": token.to_string(), "value": new.secret }));
    }
    Ok(ExitCode::SUCCESS)
}

fn change(
    arguments: &Arguments,
    parameters: Map<String, Value>,
    regenerate: bool,
) -> anyhow::Result<Option<backstop_types::record::RegeneratedToken>> {
    Ok(token::update(
        &configuration(),
        &user_id(arguments)?,
        &token_name(arguments)?,
        parameters,
        arguments.list("delete"),
        regenerate,
        arguments.text("digest"),
    )?)
}

fn delete(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    token::delete(
        &configuration(),
        &user_id(arguments)?,
        &token_name(arguments)?,
        arguments.text("digest"),
    )?;
    Ok(ExitCode::SUCCESS)
}
