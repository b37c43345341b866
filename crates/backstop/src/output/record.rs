//! Tables of one object: a row per property, with its name and its value.

use serde_json::Value;

use super::style::Style;
use super::table::{self, Align, Column};

/// How one object is shown.
pub struct Record {
    properties: &'static [Column],
    header: bool,
}

impl Record {
    /// An object with these properties, in this order; absent ones are left out.
    pub const fn new(properties: &'static [Column]) -> Self {
        Self {
            properties,
            header: true,
        }
    }

    /// The same without the titles `Name` and `Value`.
    pub const fn without_header(self) -> Self {
        Self {
            header: false,
            ..self
        }
    }

    /// The table as text.
    pub fn render(&self, object: &Value, style: &Style) -> String {
        let mut rows = Vec::new();
        for property in self.properties {
            let Some(value) = object.get(property.key).filter(|v| !v.is_null()) else {
                continue;
            };
            let text = match property.render {
                None => table::plain(value),
                Some(render) => {
                    render(value, object).unwrap_or_else(|error| format!("ERROR - {error}"))
                }
            };
            rows.push(vec![property.title.to_string(), text]);
        }
        let numbers = self.properties.iter().all(|p| p.align == Align::Right);
        let value_align = if numbers { Align::Right } else { Align::Left };
        let style = Style {
            header: style.header && self.header,
            ..style.clone()
        };
        table::frame(
            &["Name", "Value"],
            &[Align::Left, value_align],
            rows,
            &style,
        )
    }
}
