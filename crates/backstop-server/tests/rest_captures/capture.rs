//! One recorded HTTP exchange of a stock server.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use testbed::stock_root::fixtures;

/// The recorded exchange.
#[derive(Debug, Deserialize)]
pub struct Capture {
    pub method: String,
    pub path: String,
    pub auth: Option<String>,
    pub request_headers: serde_json::Map<String, serde_json::Value>,
    pub request_body: Option<String>,
    pub status_line: String,
    pub headers: Vec<(String, String)>,
    body: Option<String>,
    body_encoding: Option<String>,
}

impl Capture {
    pub fn read(path: &Path) -> Self {
        let text =
            fs::read_to_string(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
    }

    pub fn body(&self) -> Vec<u8> {
        let text = self.body.as_deref().unwrap_or_default();
        match self.body_encoding.as_deref() {
            Some("base64") => STANDARD.decode(text).expect("base64"),
            _ => text.as_bytes().to_vec(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Names of all recorded exchanges of one version, in their order.
pub fn all(version: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(fixtures(version).join("rest"))
        .expect("rest folder")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect();
    names.sort();
    names
}
