//! The parameters of a call: collected from path, query and body, and checked against the endpoint's table.

use std::fmt;
use std::str::FromStr;

use backstop_types::NameError;
use backstop_types::schema::{Properties, Property};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use percent_encoding::percent_decode;
use serde_json::{Map, Value};

use crate::http::ApiError;

/// Checked parameters: each value has the type that its schema asks for. `Debug` shows names only, as values can be
/// secrets.
#[derive(Clone, Default)]
pub struct Params(Map<String, Value>);

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Params {
    /// Collects and checks the parameters of a request. `body` is `None` for calls whose body is opaque.
    ///
    /// # Errors
    /// 400 for an unknown content type, a body that cannot be parsed, and for parameter errors.
    pub fn of_request(
        table: &'static [Property],
        path: &[(&'static str, String)],
        query: Option<&str>,
        headers: &HeaderMap,
        body: Option<&[u8]>,
    ) -> Result<Self, ApiError> {
        let table = Properties::new(table);
        let mut is_json = false;
        if body.is_some()
            && let Some(value) = headers.get(CONTENT_TYPE)
        {
            let text = value.to_str().unwrap_or_default();
            match text.split(';').next().unwrap_or_default().trim() {
                "application/x-www-form-urlencoded" => {}
                "application/json" => is_json = true,
                _ => {
                    return Err(ApiError::bad_request(format!(
                        "unsupported content type Ok({text:?})"
                    )));
                }
            }
        }
        let body = std::str::from_utf8(body.unwrap_or_default())?;
        if is_json {
            let mut object: Map<String, Value> = if body.is_empty() {
                Map::new()
            } else {
                serde_json::from_str(body)?
            };
            for (name, value) in path {
                object.insert((*name).to_owned(), Value::String(value.clone()));
            }
            return Ok(Self(
                table
                    .verify_json(object)
                    .map_err(ApiError::from_parameters)?,
            ));
        }
        let mut pairs = form_pairs(body)?;
        if let Some(query) = query {
            pairs.extend(
                form_pairs(query)?
                    .into_iter()
                    .filter(|(name, _)| name != "_dc"),
            );
        }
        let path = path.iter().map(|(name, value)| (*name, value.as_str()));
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .chain(path);
        Ok(Self(
            table.parse_form(pairs).map_err(ApiError::from_parameters)?,
        ))
    }

    /// All names and values. Values can be secrets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether the parameter was sent.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// A text that has to be there.
    ///
    /// # Errors
    /// A parameter error when it is missing.
    pub fn required_text(&self, name: &str) -> Result<&str, ApiError> {
        self.text(name).ok_or_else(|| missing(name))
    }

    /// A boolean, `default` when it was not sent.
    pub fn bool(&self, name: &str, default: bool) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(default)
    }

    /// A whole number.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.0.get(name).and_then(Value::as_i64)
    }

    /// A number without sign whose schema does not exclude negative ones.
    ///
    /// # Errors
    /// 400 for a negative number, with the text of a stock server.
    pub fn unsigned(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(number) = self.integer(name) else {
            return Ok(None);
        };
        u64::try_from(number).map(Some).map_err(|_| {
            ApiError::bad_request(format!("invalid value: integer `{number}`, expected u64"))
        })
    }

    /// The texts of an array, empty when it was not sent.
    pub fn texts(&self, name: &str) -> Vec<&str> {
        self.0
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    /// A text as the type that its schema was made from.
    ///
    /// # Errors
    /// A parameter error when it does not parse.
    pub fn parse<T: FromStr<Err = NameError>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let parsed = self.text(name).map(str::parse::<T>).transpose();
        parsed.map_err(|err| ApiError::parameter(name, err.reason))
    }

    /// A text that has to be there, as the type that its schema was made from.
    ///
    /// # Errors
    /// A parameter error when it is missing or does not parse.
    pub fn required<T: FromStr<Err = NameError>>(&self, name: &str) -> Result<T, ApiError> {
        self.parse(name)?.ok_or_else(|| missing(name))
    }

    /// The texts of an array as texts of their own.
    pub fn owned_texts(&self, name: &str) -> Vec<String> {
        self.texts(name).into_iter().map(str::to_owned).collect()
    }

    /// All parameters but those named: the properties of a section, most of the time.
    pub fn without(&self, names: &[&str]) -> Map<String, Value> {
        let kept = self
            .0
            .iter()
            .filter(|(name, _)| !names.contains(&name.as_str()));
        kept.map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// All parameters, by name.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }
}

fn missing(name: &str) -> ApiError {
    ApiError::parameter(name, "parameter is missing and it is not optional.")
}

/// Splits `a=1&b=2`, decoding `%XX` and `+`.
fn form_pairs(text: &str) -> Result<Vec<(String, String)>, ApiError> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

fn decode(text: &str) -> Result<String, ApiError> {
    let spaced = text.replace('+', " ");
    Ok(percent_decode(spaced.as_bytes())
        .decode_utf8()?
        .into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use backstop_types::schema::{ANY_TEXT, Schema};
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    static BOOLEAN: Schema = Schema::Boolean;
    static COUNT: Schema = Schema::integer(1, i64::MAX);
    static WORD: Schema = Schema::words(&["a", "b"]);
    static WORDS: Schema = Schema::array(&WORD);
    const TABLE: &[Property] = &[
        Property::required("id", &ANY_TEXT),
        Property::optional("dry-run", &BOOLEAN),
        Property::optional("keep-last", &COUNT),
        Property::optional("delete", &WORDS),
    ];

    fn request(query: Option<&str>, kind: &'static str, body: &str) -> Result<Params, String> {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        Params::of_request(TABLE, &[], query, &headers, Some(body.as_bytes()))
            .map_err(|err| err.to_string())
    }

    #[test]
    fn query_and_form_are_merged_and_the_cache_buster_is_dropped() {
        let params = request(
            Some("_dc=1&id=a%2Fb"),
            "application/x-www-form-urlencoded; charset=x",
            "dry-run=1",
        )
        .unwrap();
        assert_eq!(params.text("id"), Some("a/b"));
        assert!(params.bool("dry-run", false));
    }

    #[test]
    fn a_json_body_hides_the_query_and_is_strict() {
        let params = request(
            Some("id=query"),
            "application/json",
            r#"{"id":"body","keep-last":2}"#,
        )
        .unwrap();
        assert_eq!(params.text("id"), Some("body"));
        assert_eq!(params.integer("keep-last"), Some(2));
        assert_eq!(
            request(
                None,
                "application/json",
                r#"{"id":"x","dry-run":"true","keep-last":"1"}"#
            )
            .unwrap_err(),
            "parameter verification failed:\n- 'dry-run': Expected boolean value.\n- 'keep-last': Expected integer value."
        );
        assert_eq!(
            request(None, "application/json", "{bad").unwrap_err(),
            "key must be a string at line 1 column 2"
        );
    }

    #[test]
    fn what_is_missing_unknown_or_given_twice_is_named() {
        let text = |query| request(Some(query), "", "").unwrap_err();
        assert_eq!(
            text(""),
            "parameter verification failed - 'id': parameter is missing and it is not optional."
        );
        assert_eq!(
            text("id=a&x=1"),
            "parameter verification failed - 'x': schema does not allow additional properties."
        );
        assert_eq!(
            text("id=a&id=b"),
            "parameter verification failed - 'id': duplicate parameter."
        );
    }

    #[test]
    fn values_do_not_show_up_in_debug_output() {
        let params = request(Some("id=Very-Secret"), "", "").unwrap();
        assert_eq!(format!("{params:?}"), r#"{"id"}"#);
    }

    #[test]
    fn a_repeated_key_makes_an_array() {
        assert_eq!(
            request(Some("id=x&delete=a&delete=b"), "", "")
                .unwrap()
                .texts("delete"),
            ["a", "b"]
        );
        let params = request(None, "application/json", r#"{"id":"x","delete":["a"]}"#).unwrap();
        assert_eq!(params.texts("delete"), ["a"]);
    }

    #[test]
    fn other_content_types_are_refused() {
        assert_eq!(
            request(None, "text/plain", "x").unwrap_err(),
            "unsupported content type Ok(\"text/plain\")"
        );
    }

    proptest! {
        #[test]
        fn every_text_survives_its_encoding(id in "\\PC{0,40}") {
            let encoded = percent_encoding::utf8_percent_encode(&id, percent_encoding::NON_ALPHANUMERIC).to_string();
            let params = request(Some(&format!("id={encoded}")), "", "").unwrap();
            prop_assert_eq!(params.text("id"), Some(id.as_str()));
        }

        #[test]
        fn no_input_panics(query in "\\PC{0,80}", body in "\\PC{0,80}", json in any::<bool>()) {
            let _ = request(Some(&query), if json { "application/json" } else { "" }, &body);
        }
    }
}
