//! `name=NAME,value=BASE64`, as headers and secrets of webhooks are written.

use backstop_types::config_schema::value::LINE;
use backstop_types::schema::{Properties, Property};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

static PARTS: Properties = Properties::new(&[
    Property::required("name", &LINE),
    Property::optional("value", &LINE),
]);

/// A name with a value in base64, or without one. `Debug` leaves the value out, which can be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedValue {
    /// The name.
    pub name: String,
    /// The value in base64.
    pub value: Option<String>,
}

impl std::fmt::Debug for NamedValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NamedValue")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl NamedValue {
    /// One with this value, which is encoded.
    #[must_use]
    pub fn new(name: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            value: Some(STANDARD.encode(value)),
        }
    }

    /// Reads its text.
    ///
    /// # Errors
    /// When it is no property string with a name. The text is not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = PARTS
            .parse_property_string(text)
            .map_err(|_| "not of the form name=NAME,value=BASE64".to_owned())?;
        let part = |key: &str| parts.get(key).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            name: part("name").unwrap_or_default(),
            value: part("value"),
        })
    }

    /// The value as text; empty without one.
    ///
    /// # Errors
    /// When it is not text in base64. The value is not repeated.
    pub fn decoded(&self) -> Result<String, String> {
        decode(self.value.as_deref().unwrap_or_default())
            .map_err(|reason| format!("'{}' {reason}", self.name))
    }

    /// As the configuration holds it.
    #[must_use]
    pub fn to_text(&self) -> String {
        match &self.value {
            Some(value) => format!("name={},value={value}", self.name),
            None => self.without_value(),
        }
    }

    /// Without its value, as the API shows a secret.
    #[must_use]
    pub fn without_value(&self) -> String {
        format!("name={}", self.name)
    }
}

/// Text that was encoded in base64.
///
/// # Errors
/// When it is none. What was given is not repeated, as it can be a secret.
pub fn decode(text: &str) -> Result<String, String> {
    let bytes = STANDARD.decode(text.trim());
    let bytes = bytes.map_err(|_| "is not base64".to_owned())?;
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text in base64".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(name in "[A-Za-z][A-Za-z0-9-]{0,20}", value in "\\PC{0,40}") {
            let written = NamedValue::new(&name, &value);
            let read = NamedValue::parse(&written.to_text()).unwrap();
            prop_assert_eq!(read.decoded().unwrap(), value);
            prop_assert_eq!(read.name, name);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            if let Ok(named) = NamedValue::parse(&text) {
                let _ = named.decoded();
            }
        }
    }

    #[test]
    fn a_value_is_in_no_error_and_in_no_debug_output() {
        let named = NamedValue::parse("name=a,value=hush!hush").unwrap();
        assert!(!format!("{named:?}").contains("hush"));
        assert!(!named.decoded().unwrap_err().contains("hush"));
    }
}
