//! `node.cfg`: lines of `key: value`, headed by a description in `#` lines.

use std::path::Path;

use backstop_types::config_schema::node::NODE;
use serde_json::{Map, Value};

use super::ConfigError;

/// The settings of the host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeConfig {
    /// The values by key; `description` holds the text of the `#` lines.
    pub values: Map<String, Value>,
}

impl NodeConfig {
    /// Reads the text of the file; `path` is only named in errors.
    ///
    /// # Errors
    /// The first line that breaks the format.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut values = Map::new();
        let mut description = String::new();
        let mut in_description = true;
        for (index, line) in text.lines().enumerate() {
            let failed = |reason: String| ConfigError::Lines {
                path: path.to_path_buf(),
                line: index + 1,
                reason,
            };
            match line.strip_prefix('#') {
                Some(comment) if in_description => {
                    description.push_str(comment);
                    description.push('\n');
                    continue;
                }
                _ => in_description = false,
            }
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line
                .split_once(':')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| failed("expected 'key: value'".to_string()))?;
            let property = NODE
                .get(key)
                .ok_or_else(|| failed(format!("unknown property '{key}'")))?;
            let value = property
                .schema
                .parse_text(value.trim_start())
                .map_err(|reason| failed(format!("property '{key}': {reason}")))?;
            values.insert(key.to_string(), value);
        }
        if !description.is_empty() {
            values.insert("description".to_string(), Value::String(description));
        }
        Ok(Self { values })
    }

    /// The canonical text of the file.
    ///
    /// # Errors
    /// When a value breaks its schema or has several lines.
    pub fn to_text(&self) -> Result<String, ConfigError> {
        let mut out = String::new();
        if let Some(description) = self.values.get("description").and_then(Value::as_str) {
            for line in description.lines() {
                out.push('#');
                out.push_str(line);
                out.push('\n');
            }
        }
        let invalid = |text: String| ConfigError::Invalid(text);
        let mut keys: Vec<&String> = self.values.keys().collect();
        keys.sort();
        for key in keys.into_iter().filter(|key| *key != "description") {
            let Some(value) = self.values.get(key).filter(|value| !value.is_null()) else {
                continue;
            };
            let property = NODE
                .get(key)
                .ok_or_else(|| invalid(format!("unknown property '{key}'")))?;
            property
                .schema
                .verify(value)
                .map_err(|reason| invalid(format!("property '{key}': {reason}")))?;
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            if text.contains('\n') {
                return Err(invalid(format!("property '{key}' may only have one line")));
            }
            out.push_str(&format!("{key}: {text}\n"));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use serde_json::json;

    fn parse(text: &str) -> Result<NodeConfig, ConfigError> {
        NodeConfig::parse(Path::new("node.cfg"), text)
    }

    #[test]
    fn the_reference_file_is_written_back_unchanged() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/pbs-3.2.4/etc-proxmox-backup/node.cfg"
        );
        let text = std::fs::read_to_string(path).unwrap();
        let config = parse(&text).unwrap();
        assert_eq!(config.values["description"], json!("fixture node\n"));
        assert_eq!(config.values["task-log-max-days"], json!(90));
        assert_eq!(config.to_text().unwrap(), text);
    }

    #[test]
    fn later_comments_are_ignored_and_the_last_value_wins() {
        let config = parse("# a\n#b\n\n# c\n  email-from:  x@y  \nemail-from: z@y\n").unwrap();
        assert_eq!(config.to_text().unwrap(), "# a\n#b\nemail-from: z@y\n");
    }

    #[test]
    fn broken_lines_are_refused() {
        for text in [
            "nope",
            ": x",
            "bogus: 1",
            "task-log-max-days: x",
            "default-lang: tlh",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
