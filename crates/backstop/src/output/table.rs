//! Tables of equal rows: columns chosen from JSON objects, sorted, aligned and framed.

use std::cmp::Ordering;

use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use super::style::Style;

/// To which side a cell is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// To the left.
    Left,
    /// To the right: numbers, and what is said to be.
    Right,
}

/// Makes the text of a cell from its value (null if absent) and the whole row.
pub type Render = fn(&Value, &Value) -> anyhow::Result<String>;

/// One column of a table.
#[derive(Clone, Copy)]
pub struct Column {
    /// The member of the row's object.
    pub key: &'static str,
    /// The title.
    pub title: &'static str,
    /// To which side cells and title are pushed.
    pub align: Align,
    /// How a cell is made, if not by its JSON type.
    pub render: Option<Render>,
    /// Whether it is left out of a table in which no row has it.
    pub is_optional: bool,
}

impl Column {
    /// A column of text.
    pub const fn text(key: &'static str) -> Self {
        Self {
            key,
            title: key,
            align: Align::Left,
            render: None,
            is_optional: false,
        }
    }

    /// A column of numbers or yes and no.
    pub const fn number(key: &'static str) -> Self {
        Self {
            align: Align::Right,
            ..Self::text(key)
        }
    }

    /// The same with another title.
    pub const fn titled(self, title: &'static str) -> Self {
        Self { title, ..self }
    }

    /// The same, left out of a table in which no row has it.
    pub const fn optional(self) -> Self {
        Self {
            is_optional: true,
            ..self
        }
    }

    /// The same with cells made by `render`.
    pub const fn rendered(self, render: Render) -> Self {
        Self {
            render: Some(render),
            ..self
        }
    }
}

/// A table: its columns and the members it is sorted by.
pub struct Table {
    columns: &'static [Column],
    sort: &'static [&'static str],
}

impl Table {
    /// A table sorted by its first column.
    pub const fn new(columns: &'static [Column]) -> Self {
        Self { columns, sort: &[] }
    }

    /// The same sorted by these members in turn.
    pub const fn sorted(self, sort: &'static [&'static str]) -> Self {
        Self { sort, ..self }
    }

    /// The table as text; nothing at all if there are no rows. A cell that cannot be made shows why.
    pub fn render(&self, rows: &[Value], style: &Style) -> String {
        if rows.is_empty() {
            return String::new();
        }
        let mut rows: Vec<&Value> = rows.iter().collect();
        let first = self.columns.first().map(|c| c.key);
        let keys: Vec<&str> = if self.sort.is_empty() {
            first.into_iter().collect()
        } else {
            self.sort.to_vec()
        };
        rows.sort_by(|a, b| {
            keys.iter()
                .map(|key| compare(a.get(key), b.get(key)))
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        });
        let is_there = |c: &&Column| rows.iter().any(|row| row.get(c.key).is_some());
        let columns: Vec<&Column> = self
            .columns
            .iter()
            .filter(|c| !c.is_optional || is_there(c))
            .collect();
        let cells = rows
            .iter()
            .map(|row| columns.iter().map(|c| cell(c, row)).collect())
            .collect();
        let titles: Vec<&str> = columns.iter().map(|c| c.title).collect();
        let aligns: Vec<Align> = columns.iter().map(|c| c.align).collect();
        frame(&titles, &aligns, cells, style)
    }
}

fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    let a = a.unwrap_or(&Value::Null);
    let b = b.unwrap_or(&Value::Null);
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a
                .as_f64()
                .partial_cmp(&b.as_f64())
                .unwrap_or(Ordering::Equal),
        },
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (a, b) => plain(a).cmp(&plain(b)),
    }
}

fn cell(column: &Column, row: &Value) -> String {
    let value = row.get(column.key).unwrap_or(&Value::Null);
    match column.render {
        None => plain(value),
        Some(render) => render(value, row).unwrap_or_else(|error| format!("ERROR - {error}")),
    }
}

/// The text of a value without a form of its own.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(yes) => if *yes { "1" } else { "0" }.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

struct Glyphs {
    bar: &'static str,
    top: [&'static str; 4],
    header: [&'static str; 4],
    middle: [&'static str; 4],
    bottom: [&'static str; 4],
}

const BOXES: Glyphs = Glyphs {
    bar: "│",
    top: ["┌", "─", "┬", "┐"],
    header: ["╞", "═", "╪", "╡"],
    middle: ["├", "─", "┼", "┤"],
    bottom: ["└", "─", "┴", "┘"],
};

const ASCII: Glyphs = Glyphs {
    bar: "|",
    top: ["+", "=", "+", "+"],
    header: ["+", "=", "+", "+"],
    middle: ["+", "-", "+", "+"],
    bottom: ["+", "=", "+", "+"],
};

/// Draws rows of cells; a cell may have several lines.
pub(super) fn frame(
    titles: &[&str],
    aligns: &[Align],
    rows: Vec<Vec<String>>,
    style: &Style,
) -> String {
    let widths: Vec<usize> = titles
        .iter()
        .enumerate()
        .map(|(index, title)| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(index))
                .flat_map(|cell| cell.lines().map(|line| line.width()));
            let header = if style.header { title.width() } else { 0 };
            cells.max().unwrap_or(0).max(header)
        })
        .collect();
    let glyphs = if style.unicode { &BOXES } else { &ASCII };
    let mut lines = Vec::new();
    if style.borders {
        lines.push(rule(&widths, &glyphs.top));
    }
    if style.header {
        lines.push(text_line(titles, aligns, &widths, style, glyphs.bar));
        lines.push(rule(&widths, &glyphs.header));
    }
    let last = rows.len().saturating_sub(1);
    for (number, row) in rows.iter().enumerate() {
        let height = row.iter().map(|cell| cell.lines().count()).max();
        for line in 0..height.unwrap_or(1).max(1) {
            let parts: Vec<&str> = row
                .iter()
                .map(|cell| cell.lines().nth(line).unwrap_or(""))
                .collect();
            lines.push(text_line(&parts, aligns, &widths, style, glyphs.bar));
        }
        if style.borders {
            let glyphs = if number == last {
                &glyphs.bottom
            } else {
                &glyphs.middle
            };
            lines.push(rule(&widths, glyphs));
        }
    }
    let mut text = String::new();
    for line in lines {
        match style.clip {
            Some(columns) => text.extend(line.chars().take(columns)),
            None => text.push_str(&line),
        }
        text.push('\n');
    }
    text
}

fn rule(widths: &[usize], [left, dash, cross, right]: &[&str; 4]) -> String {
    let dashes: Vec<String> = widths.iter().map(|width| dash.repeat(width + 2)).collect();
    format!("{left}{}{right}", dashes.join(cross))
}

fn text_line(
    parts: &[&str],
    aligns: &[Align],
    widths: &[usize],
    style: &Style,
    bar: &str,
) -> String {
    let cells: Vec<String> = parts
        .iter()
        .zip(aligns)
        .zip(widths)
        .map(|((part, align), width)| {
            let padding = " ".repeat(width.saturating_sub(part.width()));
            match align {
                Align::Left => format!("{part}{padding}"),
                Align::Right => format!("{padding}{part}"),
            }
        })
        .collect();
    if style.borders {
        format!("{bar} {} {bar}", cells.join(&format!(" {bar} ")))
    } else {
        cells.join(" ")
    }
}
