//! What a provider says of a user.

use serde_json::{Map, Value};

/// Claims by name: those of the ID token, and beside them those that the provider tells on request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// Puts both together; what the ID token says counts.
    #[must_use]
    pub fn merged(token: Map<String, Value>, told: Map<String, Value>) -> Self {
        let mut all = told;
        all.extend(token.into_iter().filter(|(_, value)| !value.is_null()));
        Self(all)
    }

    /// A claim that is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }
}
