//! Options for the settings of configuration entries, made from the same rules as the files and the API.

use backstop_types::schema::{Properties, Schema};
use serde_json::{Map, Value};

use crate::command::{Arguments, Parameter};

/// Guards a change against others: the digest of the file that was seen before.
pub const DIGEST: Parameter = Parameter::of(
    "digest",
    "Refuse if the configuration file no longer has this SHA-256 digest.",
    &backstop_types::config_schema::value::DIGEST,
);

/// The option of one setting; settings without a rule get none.
pub fn option(
    properties: &Properties,
    name: &'static str,
    help: &'static str,
) -> Option<Parameter> {
    let schema: &'static Schema = properties.get(name)?.schema;
    Some(Parameter::of(name, help, schema))
}

/// Options of several settings.
pub fn options(properties: &Properties, helps: &[(&'static str, &'static str)]) -> Vec<Parameter> {
    helps
        .iter()
        .filter_map(|(name, help)| option(properties, name, help))
        .collect()
}

/// The settings on the command line in the form of the API.
///
/// # Errors
/// If a value does not fit its rule.
pub fn given(arguments: &Arguments, properties: &Properties) -> anyhow::Result<Map<String, Value>> {
    let mut map = Map::new();
    for property in properties.list {
        let values = arguments.list(property.name);
        let parse = |schema: &Schema, text: &str| {
            schema.parse_text(text).map_err(|reason| {
                anyhow::anyhow!(
                    "parameter verification failed - '{}': {reason}",
                    property.name
                )
            })
        };
        match (property.schema, values) {
            (_, []) => {}
            (Schema::Array { items, .. }, values) => {
                let values = values.iter().map(|text| parse(items, text));
                map.insert(
                    property.name.to_string(),
                    Value::Array(values.collect::<Result<_, _>>()?),
                );
            }
            (schema, [text, ..]) => {
                map.insert(property.name.to_string(), parse(schema, text)?);
            }
        }
    }
    Ok(map)
}
