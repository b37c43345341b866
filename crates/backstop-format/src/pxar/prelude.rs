//! The prelude that backup clients put into split archives: the exclude patterns of the command
//! line as compact JSON.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClientPrelude {
    exclude_patterns: Option<String>,
}

/// The prelude bytes that record `patterns` (one pattern per line).
pub fn exclude_patterns_to_prelude(patterns: &str) -> Vec<u8> {
    serde_json::json!({ "exclude-patterns": patterns })
        .to_string()
        .into_bytes()
}

/// The exclude patterns recorded in a prelude; `None` when it holds none or is of another kind.
pub fn exclude_patterns_from_prelude(prelude: &[u8]) -> Option<String> {
    serde_json::from_slice::<ClientPrelude>(prelude)
        .ok()?
        .exclude_patterns
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn patterns_come_back_and_other_preludes_are_harmless() {
        let prelude = exclude_patterns_to_prelude("*.tmp\n");
        assert_eq!(prelude, br#"{"exclude-patterns":"*.tmp\n"}"#);
        assert_eq!(
            exclude_patterns_from_prelude(&prelude).as_deref(),
            Some("*.tmp\n")
        );
        assert_eq!(exclude_patterns_from_prelude(b"{}"), None);
        assert_eq!(exclude_patterns_from_prelude(b"\xff\x00"), None);
    }
}
