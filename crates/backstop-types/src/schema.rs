//! What a value may be, described once and used for request parameters, configuration files and
//! property strings alike. The error texts are those that stock servers send.
//! A schema checks form only; it never looks anything up.

use serde_json::{Map, Value};

use crate::property_string;

/// A rule for one value.
#[derive(Debug, Clone, Copy)]
pub enum Schema {
    /// `true` or `false`; in texts also `1`, `on`, `yes` and `0`, `off`, `no` in any case.
    Boolean,
    /// A signed integer within inclusive limits.
    Integer {
        /// Smallest value; `i64::MIN` for no limit.
        min: i64,
        /// Largest value; `i64::MAX` for no limit.
        max: i64,
    },
    /// A finite floating-point number within inclusive limits.
    Number {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// A text with limits on its length in characters.
    Text {
        /// Fewest characters.
        min: usize,
        /// Most characters; `usize::MAX` for no limit.
        max: usize,
        /// What it must look like.
        format: Format,
    },
    /// Several values; in requests a repeated key, in configuration files a repeated line.
    Array {
        /// The rule for each element.
        items: &'static Schema,
        /// Fewest elements.
        min: usize,
        /// Most elements; `usize::MAX` for no limit.
        max: usize,
    },
    /// A JSON object; it cannot be given as text.
    Object(&'static Properties),
}

/// What a text must look like.
#[derive(Debug, Clone, Copy)]
pub enum Format {
    /// Anything.
    Any,
    /// A rule of form; broken, it is reported as a mismatch of the pattern.
    Pattern(fn(&str) -> bool),
    /// One of these words.
    Enum(&'static [&'static str]),
    /// A rule with an error text of its own.
    Verify(fn(&str) -> Result<(), String>),
    /// The same for what somebody sets now. A stored value may break the rule; whoever uses it says so then, so that one
    /// such value does not make a whole file unusable.
    VerifyNew(fn(&str) -> Result<(), String>),
    /// Several named values in one text.
    PropertyString(&'static Properties),
    /// Several values in one text, divided by `,`, `;` or white space.
    List(&'static Schema),
}

/// A named value of an object.
#[derive(Debug, Clone, Copy)]
pub struct Property {
    /// Its key.
    pub name: &'static str,
    /// The rule for its value.
    pub schema: &'static Schema,
    /// Whether it may be left out.
    pub optional: bool,
}

impl Property {
    /// A property that must be given.
    #[must_use]
    pub const fn required(name: &'static str, schema: &'static Schema) -> Self {
        Self {
            name,
            schema,
            optional: false,
        }
    }

    /// A property that may be left out.
    #[must_use]
    pub const fn optional(name: &'static str, schema: &'static Schema) -> Self {
        Self {
            name,
            schema,
            optional: true,
        }
    }
}

/// The named values of an object.
#[derive(Debug, Clone, Copy)]
pub struct Properties {
    /// All that are known.
    pub list: &'static [Property],
    /// Whether others may be given, too, as plain texts.
    pub additional: bool,
    /// The key that a property string may leave out.
    pub default_key: Option<&'static str>,
}

impl Properties {
    /// Known properties only, no default key.
    #[must_use]
    pub const fn new(list: &'static [Property]) -> Self {
        Self {
            list,
            additional: false,
            default_key: None,
        }
    }

    /// The same with a key that a property string may leave out.
    #[must_use]
    pub const fn with_default_key(self, key: &'static str) -> Self {
        Self {
            default_key: Some(key),
            ..self
        }
    }

    /// The property called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'static Property> {
        self.list.iter().find(|property| property.name == name)
    }

    /// Reads form parameters, that is query strings and form bodies. Repeated keys make arrays.
    ///
    /// # Errors
    /// All parameters that are unknown, repeated, missing or broken.
    pub fn parse_form<'a>(
        &self,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Map<String, Value>, ParameterErrors> {
        let mut values = Map::new();
        let mut errors = ParameterErrors::default();
        for (key, text) in pairs {
            if let Err(error) = self.parse_one(&mut values, key, text) {
                errors.push(key, error);
            }
        }
        self.finish(values, errors)
    }

    fn parse_one(
        &self,
        values: &mut Map<String, Value>,
        key: &str,
        text: &str,
    ) -> Result<(), String> {
        let schema = match self.get(key) {
            Some(property) => property.schema,
            None if self.additional => &ANY_TEXT,
            None => return Err("schema does not allow additional properties.".to_string()),
        };
        if let Schema::Array { items, .. } = schema {
            let value = items.parse_text(text)?;
            match values
                .entry(key)
                .or_insert_with(|| Value::Array(Vec::new()))
            {
                Value::Array(elements) => elements.push(value),
                _ => return Err("expected array - type mismatch".to_string()),
            }
        } else {
            let value = schema.parse_text(text)?;
            if values.insert(key.to_string(), value).is_some() {
                return Err("duplicate parameter.".to_string());
            }
        }
        Ok(())
    }

    /// Checks the parameters of a JSON body.
    ///
    /// # Errors
    /// All parameters that are unknown, missing or broken.
    pub fn verify_json(
        &self,
        values: Map<String, Value>,
    ) -> Result<Map<String, Value>, ParameterErrors> {
        let mut errors = ParameterErrors::default();
        for (key, value) in &values {
            match self.get(key) {
                // Element counts are checked for all arrays at the end.
                Some(Property {
                    schema: Schema::Array { items, .. },
                    ..
                }) => match value {
                    Value::Array(elements) => {
                        for (index, element) in elements.iter().enumerate() {
                            if let Err(error) = items.verify(element) {
                                errors.push(&format!("{key}/[{index}]"), error);
                            }
                        }
                    }
                    other => errors.push(key, expected_array(other)),
                },
                Some(property) => {
                    if let Err(error) = property.schema.verify(value) {
                        errors.push(key, error);
                    }
                }
                None if self.additional => {}
                None => errors.push(
                    key,
                    "schema does not allow additional properties.".to_string(),
                ),
            }
        }
        self.finish(values, errors)
    }

    fn finish(
        &self,
        values: Map<String, Value>,
        mut errors: ParameterErrors,
    ) -> Result<Map<String, Value>, ParameterErrors> {
        for property in self.list {
            match (values.get(property.name), property.schema) {
                (Some(Value::Array(elements)), Schema::Array { min, max, .. }) => {
                    if let Err(error) = check_count(elements.len(), *min, *max) {
                        errors.push(property.name, error);
                    }
                }
                (None, _) if !property.optional && !errors.has(property.name) => {
                    errors.push(
                        property.name,
                        "parameter is missing and it is not optional.".to_string(),
                    );
                }
                _ => {}
            }
        }
        if errors.is_empty() {
            Ok(values)
        } else {
            Err(errors)
        }
    }

    /// Reads a property string. Enumerations in it are left to whoever uses the value, as stock
    /// servers do.
    ///
    /// # Errors
    /// One text for the first thing that is wrong.
    pub fn parse_property_string(&self, text: &str) -> Result<Map<String, Value>, String> {
        let mut values = Map::new();
        let pairs = property_string::parse(text, self.default_key).map_err(|e| e.to_string())?;
        let failed =
            |key: &str, text: &str| Err(format!("parameter verification failed - '{key}': {text}"));
        for (key, value) in pairs {
            let schema = match self.get(key) {
                Some(property) => property.schema,
                None if self.additional => &ANY_TEXT,
                None => return failed(key, "schema does not allow additional properties"),
            };
            let parsed = match schema {
                Schema::Text {
                    format: Format::Enum(_),
                    ..
                } => Ok(Value::String(value)),
                schema => schema.parse_text(&value),
            };
            match parsed {
                Ok(value) => {
                    if values.insert(key.to_string(), value).is_some() {
                        return failed(key, "duplicate parameter.");
                    }
                }
                Err(error) => return failed(key, &format!("schema validation failed: {error}")),
            }
        }
        match self
            .list
            .iter()
            .find(|p| !p.optional && !values.contains_key(p.name))
        {
            Some(missing) => failed(missing.name, "property is missing and it is not optional"),
            None => Ok(values),
        }
    }
}

/// A text without any rule.
pub static ANY_TEXT: Schema = Schema::text(0, usize::MAX, Format::Any);

impl Schema {
    /// A text.
    #[must_use]
    pub const fn text(min: usize, max: usize, format: Format) -> Self {
        Self::Text { min, max, format }
    }

    /// A text of any length with a pattern.
    #[must_use]
    pub const fn pattern(matches: fn(&str) -> bool) -> Self {
        Self::text(0, usize::MAX, Format::Pattern(matches))
    }

    /// One of some words.
    #[must_use]
    pub const fn words(words: &'static [&'static str]) -> Self {
        Self::text(0, usize::MAX, Format::Enum(words))
    }

    /// An integer within inclusive limits.
    #[must_use]
    pub const fn integer(min: i64, max: i64) -> Self {
        Self::Integer { min, max }
    }

    /// Any number of `items`.
    #[must_use]
    pub const fn array(items: &'static Schema) -> Self {
        Self::Array {
            items,
            min: 0,
            max: usize::MAX,
        }
    }

    /// The rule for a value that is stored already.
    #[must_use]
    pub const fn of_stored(self) -> Self {
        match self {
            Self::Text {
                min,
                max,
                format: Format::VerifyNew(_),
            } => Self::text(min, max, Format::Any),
            other => other,
        }
    }

    /// Reads the value from its text form.
    ///
    /// # Errors
    /// The text for the first rule that it breaks.
    pub fn parse_text(&self, text: &str) -> Result<Value, String> {
        match self {
            Self::Boolean => parse_boolean(text).map(Value::Bool),
            Self::Integer { min, max } => {
                let value: i64 = text
                    .parse()
                    .map_err(|e: std::num::ParseIntError| e.to_string())?;
                check_integer(value, *min, *max)?;
                Ok(value.into())
            }
            Self::Number { .. } => {
                let value: f64 = text
                    .parse()
                    .map_err(|e: std::num::ParseFloatError| e.to_string())?;
                let value = serde_json::Number::from_f64(value)
                    .map(Value::Number)
                    .ok_or_else(|| "Expected number value.".to_string())?;
                self.verify(&value)?;
                Ok(value)
            }
            Self::Text { .. } => {
                self.verify_text(text)?;
                Ok(Value::String(text.to_string()))
            }
            Self::Array { items, min, max } => {
                // One text for a whole array: the elements are divided as in a list.
                let elements = property_string::split_list(text)
                    .map(|element| items.parse_text(element))
                    .collect::<Result<Vec<_>, _>>()?;
                check_count(elements.len(), *min, *max)?;
                Ok(Value::Array(elements))
            }
            Self::Object(_) => Err("unable to parse complex (sub) objects.".to_string()),
        }
    }

    /// Checks a JSON value.
    ///
    /// # Errors
    /// The text for the first rule that it breaks.
    pub fn verify(&self, value: &Value) -> Result<(), String> {
        match (self, value) {
            (Self::Boolean, Value::Bool(_)) => Ok(()),
            (Self::Boolean, _) => Err("Expected boolean value.".to_string()),
            (Self::Integer { min, max }, value) => match value.as_i64() {
                Some(value) => check_integer(value, *min, *max),
                None => Err("Expected integer value.".to_string()),
            },
            (Self::Number { min, max }, value) => match value.as_f64() {
                Some(value) if value < *min => Err(format!(
                    "value must have a minimum value of {min} (got {value})"
                )),
                Some(value) if value > *max => Err(format!(
                    "value must have a maximum value of {max} (got {value})"
                )),
                Some(_) => Ok(()),
                None => Err("Expected number value.".to_string()),
            },
            (Self::Text { .. }, Value::String(text)) => self.verify_text(text),
            (Self::Text { .. }, _) => Err("Expected string value.".to_string()),
            (Self::Array { items, min, max }, Value::Array(elements)) => {
                check_count(elements.len(), *min, *max)?;
                elements
                    .iter()
                    .try_for_each(|element| items.verify(element))
            }
            (Self::Array { .. }, other) => Err(expected_array(other)),
            (Self::Object(properties), Value::Object(map)) => {
                match properties.verify_json(map.clone()) {
                    Ok(_) => Ok(()),
                    Err(errors) => Err(errors.to_string()),
                }
            }
            (Self::Object(_), Value::Array(_)) => Err("Expected object - got array.".to_string()),
            (Self::Object(_), _) => Err("Expected object - got scalar value.".to_string()),
        }
    }

    /// Checks a text; only for text schemas, others accept any.
    fn verify_text(&self, text: &str) -> Result<(), String> {
        let Self::Text { min, max, format } = self else {
            return Ok(());
        };
        if *min > 0 || *max < usize::MAX {
            crate::name::check_length(text, *min, *max)?;
        }
        match format {
            Format::Any => Ok(()),
            Format::Pattern(matches) if matches(text) => Ok(()),
            Format::Pattern(_) => Err(crate::name::PATTERN_MISMATCH.to_string()),
            Format::Enum(words) if words.contains(&text) => Ok(()),
            Format::Enum(_) => Err(format!("value '{text}' is not defined in the enumeration.")),
            Format::Verify(verify) | Format::VerifyNew(verify) => verify(text),
            Format::PropertyString(properties) => {
                properties.parse_property_string(text).map(|_| ())
            }
            Format::List(items) => property_string::split_list(text)
                .try_for_each(|element| items.parse_text(element).map(|_| ())),
        }
    }
}

fn expected_array(value: &Value) -> String {
    match value {
        Value::Object(_) => "Expected array - got object.".to_string(),
        _ => "Expected array - got scalar value.".to_string(),
    }
}

/// Reads a boolean from its text.
///
/// # Errors
/// When it is none of the accepted words.
pub fn parse_boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Ok(true),
        "0" | "off" | "no" | "false" => Ok(false),
        _ => Err("Unable to parse boolean option.".to_string()),
    }
}

fn check_integer(value: i64, min: i64, max: i64) -> Result<(), String> {
    if value < min {
        Err(format!(
            "value must have a minimum value of {min} (got {value})"
        ))
    } else if value > max {
        Err(format!(
            "value must have a maximum value of {max} (got {value})"
        ))
    } else {
        Ok(())
    }
}

fn check_count(count: usize, min: usize, max: usize) -> Result<(), String> {
    if count < min {
        Err(format!("array must contain at least {min} elements"))
    } else if count > max {
        Err(format!("array may only contain {max} elements"))
    } else {
        Ok(())
    }
}

/// All that is wrong with the parameters of a request, in the order in which it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParameterErrors(Vec<(String, String)>);

impl ParameterErrors {
    /// One parameter with one error.
    #[must_use]
    pub fn one(name: &str, error: impl Into<String>) -> Self {
        Self(vec![(name.to_string(), error.into())])
    }

    /// Adds an error.
    pub fn push(&mut self, name: &str, error: String) {
        self.0.push((name.to_string(), error));
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(own, _)| own == name)
    }

    /// Names with their errors.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, error)| (name.as_str(), error.as_str()))
    }
}

impl std::fmt::Display for ParameterErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_slice() {
            [(name, error)] => write!(f, "parameter verification failed - '{name}': {error}"),
            errors => {
                f.write_str("parameter verification failed:")?;
                errors
                    .iter()
                    .try_for_each(|(name, error)| write!(f, "\n- '{name}': {error}"))
            }
        }
    }
}

impl std::error::Error for ParameterErrors {}

#[cfg(test)]
mod tests;
