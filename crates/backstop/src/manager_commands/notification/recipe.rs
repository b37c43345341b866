//! `backstop notification recipe …`: ready-made webhook targets.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use backstop_notify::recipe::{self, RECIPES};
use backstop_notify::settings::MATCHER;
use backstop_server::config::notifications as config;
use backstop_types::config_schema::value;
use serde_json::{Map, Value, json};

use crate::command::{Arguments, Command, Group, Parameter};
use crate::manager_commands::configuration;
use crate::output::{self, Column, OUTPUT_FORMAT, Table};

/// Largest secret that is read, in bytes.
const MAX_SECRET: u64 = 64 << 10;

const LIST: Table = Table::new(&[
    Column::text("name"),
    Column::text("about"),
    Column::text("needs"),
]);

const RECIPE: Parameter =
    Parameter::text("recipe", "The name of the recipe, as the list shows it.");

/// The commands below `recipe`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "list",
            Command::new("List the ready-made webhooks.", list).option(OUTPUT_FORMAT),
        )
        .command(
            "show",
            Command::new("Show what a recipe sends, and what it has to be told.", show)
                .argument(RECIPE),
        )
        .command(
            "create",
            Command::new(
                "Make a webhook target after a recipe. Secrets are read from the standard input, one NAME=VALUE a line, or from a file.",
                create,
            )
            .argument(RECIPE)
            .option(Parameter::of("name", "The name of the new target.", &value::ENTITY_ID).required())
            .option(
                Parameter::text("set", "What the recipe has to be told, as NAME=VALUE; may be repeated. For secrets, use --secrets.")
                    .repeated(),
            )
            .option(
                Parameter::path("secrets", "A file with the secrets, one NAME=VALUE a line; - for the standard input.")
                    .file(),
            )
            .option(
                Parameter::flag(
                    "matcher",
                    "Also make a matcher of this name that sends warnings and errors, and what ends them, to the target.",
                )
                .default("false"),
            ),
        )
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let rows = RECIPES.iter().map(|recipe| {
        let needed = recipe.ingredients.iter();
        let needed = needed
            .filter(|known| known.default.is_none())
            .map(|known| known.name);
        let needed: Vec<&str> = needed.collect();
        json!({ "name": recipe.name, "about": recipe.about, "needs": needed.join(", ") })
    });
    output::print_table(&LIST, &Value::Array(rows.collect()), arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn find(arguments: &Arguments) -> anyhow::Result<&'static recipe::Recipe> {
    recipe::find(arguments.required("recipe")?).map_err(|reason| anyhow!("{reason}"))
}

fn show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let recipe = find(arguments)?;
    let mut text = format!("{}\n\n", recipe.about);
    for known in recipe.ingredients {
        let note = match (known.is_secret, known.default) {
            (true, None) => " (secret)".to_owned(),
            (true, Some(_)) => " (secret, may be left out)".to_owned(),
            (false, Some("")) => " (may be left out)".to_owned(),
            (false, Some(default)) => format!(" ({default} unless said otherwise)"),
            (false, None) => String::new(),
        };
        text.push_str(&format!("  {}{note}: {}\n", known.name, known.help));
    }
    output::out(&format!("{text}\n{}", recipe.text()));
    Ok(ExitCode::SUCCESS)
}

/// Reads `NAME=VALUE`. What has another form is not repeated, as it can be a secret.
fn assignment(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text
        .split_once('=')
        .context("expected NAME=VALUE, found something else")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn secrets(arguments: &Arguments) -> anyhow::Result<String> {
    let mut text = String::new();
    let Some(path) = arguments.path("secrets") else {
        return Ok(text);
    };
    let read = match path.to_str() {
        Some("-") => std::io::stdin().take(MAX_SECRET).read_to_string(&mut text),
        _ => std::fs::File::open(path)
            .and_then(|file| file.take(MAX_SECRET).read_to_string(&mut text)),
    };
    read.with_context(|| format!("unable to read the secrets from {path:?}"))?;
    Ok(text)
}

fn create(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let recipe = find(arguments)?;
    let mut given = BTreeMap::new();
    for text in arguments.list("set") {
        let (name, value) = assignment(text)?;
        given.insert(name, value);
    }
    let secrets = secrets(arguments)?;
    for line in secrets.lines().filter(|line| !line.trim().is_empty()) {
        let (name, value) = assignment(line)?;
        given.insert(name, value);
    }
    let settings = recipe
        .settings(&given)
        .map_err(|reason| anyhow!("{reason}"))?;
    let (store, name) = (configuration(), arguments.required("name")?);
    config::create(&store, ("webhook", name), &settings)?;
    if arguments.flag("matcher") {
        let mut matcher = Map::new();
        matcher.insert("match-severity".to_owned(), json!(["warning,error"]));
        matcher.insert("target".to_owned(), json!([name]));
        let name = format!("{name}-failures");
        config::create(&store, (MATCHER, &name), &matcher)?;
    }
    Ok(ExitCode::SUCCESS)
}
