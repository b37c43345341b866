//! JSON text as scripts expect it: keys in alphabetical order, a line end at the end.

use serde_json::Value;

/// One line.
pub fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// Indented by two spaces.
pub fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
