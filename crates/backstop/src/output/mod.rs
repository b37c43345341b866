//! What the commands print: tables, JSON and the values in them. Nothing here knows where data comes from.
//! A closed pipe is not an error and never a panic.

pub mod json;
pub mod record;
pub mod size;
pub mod style;
pub mod table;
pub mod time;

use std::io::Write as _;

use serde_json::Value;

pub use record::Record;
pub use style::Style;
pub use table::{Column, Table};

use crate::command::{Arguments, Parameter};

/// The option that every command with structured results has.
pub const OUTPUT_FORMAT: Parameter = Parameter::choice(
    "output-format",
    "How to print the result.",
    &["text", "json", "json-pretty"],
);

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people: tables and lines.
    Text,
    /// One line of JSON.
    Json,
    /// Indented JSON.
    JsonPretty,
}

impl Format {
    /// The format asked for on the command line, else by `PROXMOX_OUTPUT_FORMAT`, else text.
    ///
    /// # Errors
    /// If the variable holds another word.
    pub fn of(arguments: &Arguments) -> anyhow::Result<Self> {
        let word = match arguments.given("output-format") {
            Some(word) => word.to_string(),
            None => std::env::var("PROXMOX_OUTPUT_FORMAT").unwrap_or_else(|_| "text".to_string()),
        };
        match word.as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "json-pretty" => Ok(Self::JsonPretty),
            other => anyhow::bail!(
                "PROXMOX_OUTPUT_FORMAT is '{other}', but must be one of text, json, json-pretty"
            ),
        }
    }

    /// The value as JSON text, or nothing if the format is text.
    pub fn json(self, value: &Value) -> Option<String> {
        match self {
            Self::Text => None,
            Self::Json => Some(json::line(value)),
            Self::JsonPretty => Some(json::pretty(value)),
        }
    }
}

/// Writes to standard output; a reader that went away is no failure.
pub fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

/// Writes to standard error.
pub fn err(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Prints a list as a table or as JSON. JSON shows the data as it came.
///
/// # Errors
/// If the format is not known.
pub fn print_table(table: &Table, rows: &Value, arguments: &Arguments) -> anyhow::Result<()> {
    let format = Format::of(arguments)?;
    match format.json(rows) {
        Some(text) => out(&text),
        None => out(&table.render(rows.as_array().map_or(&[], Vec::as_slice), &Style::detect())),
    }
    Ok(())
}

/// Prints one object as a table of names and values, or as JSON.
///
/// # Errors
/// If the format is not known.
pub fn print_record(record: &Record, object: &Value, arguments: &Arguments) -> anyhow::Result<()> {
    let format = Format::of(arguments)?;
    match format.json(object) {
        Some(text) => out(&text),
        None => out(&record.render(object, &Style::detect())),
    }
    Ok(())
}

/// Prints what a command without a form of its own returns.
pub fn print_result(value: &Value) {
    out(&format!("Result: {}", json::pretty(value)));
}
