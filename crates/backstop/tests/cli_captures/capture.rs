//! One recorded run of a stock program.

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;
use testbed::stock_root::fixtures;

/// What a program said.
#[derive(Debug, Deserialize)]
pub struct Said {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The recorded run.
#[derive(Debug, Deserialize)]
pub struct Capture {
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    #[serde(flatten)]
    pub said: Said,
}

impl Capture {
    pub fn read(version: &str, name: &str) -> Self {
        let path = fixtures(version).join("cli").join(format!("{name}.json"));
        let text =
            fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
    }
}
