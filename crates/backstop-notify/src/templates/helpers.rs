//! What templates can do with values, as on stock servers: `human-bytes`, `duration`, `timestamp`, `relative-percentage`, `object`,
//! `table`.

use backstop_types::ByteSize;
use handlebars::{
    Context, Handlebars, Helper, HelperResult, Output, RenderContext, RenderErrorReason,
};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

/// What a template makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Html,
}

type Function = fn(&Value) -> Option<String>;

const FUNCTIONS: [(&str, Function); 3] = [
    ("human-bytes", human_bytes),
    ("duration", duration),
    ("timestamp", |value| Some(timestamp(integer(value)?))),
];

/// Makes all of them known.
pub(super) fn register(handlebars: &mut Handlebars<'_>, form: Form) {
    for (name, function) in FUNCTIONS {
        let helper = move |helper: &Helper<'_>,
                           _: &Handlebars<'_>,
                           _: &Context,
                           _: &mut RenderContext<'_, '_>,
                           out: &mut dyn Output|
              -> HelperResult {
            let value = parameter(helper, name, 0)?;
            // as on stock servers: a broken value does not make the whole text fail
            out.write(&function(value).unwrap_or_else(|| "ERROR".to_owned()))?;
            Ok(())
        };
        handlebars.register_helper(name, Box::new(helper));
    }
    handlebars.register_helper("relative-percentage", Box::new(relative_percentage));
    let object = move |helper: &Helper<'_>,
                       _: &Handlebars<'_>,
                       _: &Context,
                       _: &mut RenderContext<'_, '_>,
                       out: &mut dyn Output|
          -> HelperResult {
        let text = serde_json::to_string_pretty(parameter(helper, "object", 0)?);
        let text = text.map_err(|err| RenderErrorReason::NestedError(err.into()))?;
        out.write(&match form {
            Form::Text => format!("\n{text}\n"),
            Form::Html => format!("\n<pre>{}</pre>\n", handlebars::html_escape(&text)),
        })?;
        Ok(())
    };
    handlebars.register_helper("object", Box::new(object));
    let table = move |helper: &Helper<'_>,
                      _: &Handlebars<'_>,
                      _: &Context,
                      _: &mut RenderContext<'_, '_>,
                      out: &mut dyn Output|
          -> HelperResult {
        let rows = rows(parameter(helper, "table", 0)?)
            .ok_or_else(|| RenderErrorReason::InvalidParamType("a table"))?;
        out.write(&match form {
            Form::Text => text_table(&rows),
            Form::Html => html_table(&rows),
        })?;
        Ok(())
    };
    handlebars.register_helper("table", Box::new(table));
}

fn parameter<'a>(
    helper: &'a Helper<'_>,
    name: &'static str,
    index: usize,
) -> Result<&'a Value, RenderErrorReason> {
    let parameter = helper.param(index);
    parameter
        .map(|parameter| parameter.value())
        .ok_or(RenderErrorReason::ParamNotFoundForIndex(name, index))
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn human_bytes(value: &Value) -> Option<String> {
    let bytes = number(value).filter(|bytes| *bytes >= 0.0)?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bytes = bytes as u64; // saturates
    Some(ByteSize::binary(bytes).to_string())
}

/// Seconds as days, hours, minutes and seconds.
fn duration(value: &Value) -> Option<String> {
    let seconds = integer(value).filter(|seconds| *seconds >= 0)?;
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    Some(match parts.is_empty() {
        true => "0s".to_owned(),
        false => parts.join(" "),
    })
}

/// Seconds since the epoch as local date and time.
pub(super) fn timestamp(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(moment) => {
            let local = TimeZone::system().to_datetime(moment);
            local.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => "ERROR".to_owned(),
    }
}

fn relative_percentage(
    helper: &Helper<'_>,
    _: &Handlebars<'_>,
    _: &Context,
    _: &mut RenderContext<'_, '_>,
    out: &mut dyn Output,
) -> HelperResult {
    let operand = |index| {
        let value = parameter(helper, "relative-percentage", index)?;
        number(value).ok_or(RenderErrorReason::ParamNotFoundForIndex(
            "relative-percentage",
            index,
        ))
    };
    let (part, whole) = (operand(0)?, operand(1)?);
    match whole == 0.0 {
        true => out.write("-")?,
        false => out.write(&format!("{:.2}%", part * 100.0 / whole))?,
    }
    Ok(())
}

/// The cells of a table, its labels first: `{schema: {columns: [{label, id, renderer?}]}, data: [{id: value}]}`.
fn rows(table: &Value) -> Option<Vec<Vec<String>>> {
    let columns = table.get("schema")?.get("columns")?.as_array()?;
    let text = |column: &Value, key: &str| Some(column.get(key)?.as_str()?.to_owned());
    let labels: Option<Vec<String>> = columns.iter().map(|column| text(column, "label")).collect();
    let mut rows = vec![labels?];
    for row in table.get("data")?.as_array()? {
        let cells = columns.iter().map(|column| {
            let value = row.get(text(column, "id")?).unwrap_or(&Value::Null);
            let renderer = text(column, "renderer");
            let function = renderer.and_then(|renderer| {
                let function = FUNCTIONS.iter().find(|(name, _)| *name == renderer);
                function.map(|(_, function)| *function)
            });
            Some(match (function, value) {
                (Some(function), value) => function(value).unwrap_or_else(|| "ERROR".to_owned()),
                (None, Value::String(text)) => text.clone(),
                (None, value) => value.to_string(),
            })
        });
        rows.push(cells.collect::<Option<_>>()?);
    }
    Some(rows)
}

fn text_table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + 4
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

fn html_table(rows: &[Vec<String>]) -> String {
    let mut html = "<table>".to_owned();
    for (number, row) in rows.iter().enumerate() {
        let tag = if number == 0 { "th" } else { "td" };
        html.push_str("<tr>");
        for cell in row {
            let cell = handlebars::html_escape(cell);
            html.push_str(&format!("<{tag}>{cell}</{tag}>"));
        }
        html.push_str("</tr>");
    }
    html.push_str("</table>");
    html
}
