//! Comparing what the program said with what was recorded.
//!
//! Help and usage texts are the program's own words, so standard error counts up to where the usage begins.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::capture::Said;

/// How one command line may differ. Most of these also make the widths of table columns irrelevant.
#[derive(Debug, Default, Clone)]
pub struct Tolerance {
    /// JSON members, and rows of tables of names and values, of which only the presence counts.
    pub volatile: Vec<String>,
    /// Whether the order of lines, or of JSON items, is open.
    pub unordered: bool,
    /// Whether the widths of table columns are open, as they are where paths are longer here.
    pub widths: bool,
    /// Whether numbers, dates and task ids are compared by their shape only.
    pub numbers: bool,
    /// Whether standard error may differ: help texts, and news about failed tasks.
    pub stdout_only: bool,
}

impl Tolerance {
    fn is_exact(&self) -> bool {
        self.volatile.is_empty() && !self.unordered && !self.numbers && !self.widths
    }
}

/// Says what is different, if anything is.
pub fn difference(wanted: &Said, got: &Said, tolerance: &Tolerance) -> Option<String> {
    if wanted.exit != got.exit {
        return Some(format!(
            "exit {}, not {}: {}{}",
            got.exit, wanted.exit, got.stdout, got.stderr
        ));
    }
    differs("stdout", &wanted.stdout, &got.stdout, tolerance).or_else(|| {
        if tolerance.stdout_only {
            return None;
        }
        let (wanted, got) = (before_usage(&wanted.stderr), before_usage(&got.stderr));
        differs("stderr", wanted, got, tolerance)
    })
}

fn before_usage(text: &str) -> &str {
    let cut = ["Usage:", "Possible commands:", "USAGE:"]
        .iter()
        .filter_map(|word| text.find(word))
        .min();
    text.get(..cut.unwrap_or(text.len()))
        .unwrap_or(text)
        .trim_end()
}

fn differs(what: &str, wanted: &str, got: &str, tolerance: &Tolerance) -> Option<String> {
    if wanted == got {
        return None;
    }
    let (wanted, got) = (tidy(wanted, tolerance), tidy(got, tolerance));
    let lines = wanted.lines().zip(got.lines()).enumerate();
    let mut unequal = lines.filter(|(_, (wanted, got))| wanted != got);
    if let Some((number, (wanted, got))) = unequal.next() {
        return Some(format!(
            "{what} line {}: {got:?}, not {wanted:?}",
            number + 1
        ));
    }
    (wanted != got).then(|| format!("{what}: {got:?}, not {wanted:?}"))
}

fn tidy(text: &str, tolerance: &Tolerance) -> String {
    if tolerance.is_exact() {
        return text.to_owned();
    }
    if let Ok(value @ (Value::Array(_) | Value::Object(_))) = serde_json::from_str(text) {
        let value = tidy_json(value, tolerance);
        return serde_json::to_string_pretty(&value).expect("JSON");
    }
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !line.chars().all(|c| "┌─┬┐╞═╪╡├┼┤└┴┘".contains(c)))
        .map(|line| tidy_line(line, tolerance))
        .collect();
    if tolerance.unordered {
        lines.sort();
    }
    lines.join("\n")
}

fn tidy_line(line: &str, tolerance: &Tolerance) -> String {
    let mut cells: Vec<String> = line.split('│').map(|cell| cell.trim().to_owned()).collect();
    if cells.len() == 1 {
        return shape(line, tolerance);
    }
    let is_volatile = |name: &String| tolerance.volatile.contains(name);
    if cells.get(1).is_some_and(is_volatile)
        && let Some(value) = cells.get_mut(2)
    {
        *value = "…".to_owned();
    }
    cells
        .iter()
        .map(|cell| shape(cell, tolerance))
        .collect::<Vec<_>>()
        .join("│")
}

fn tidy_json(value: Value, tolerance: &Tolerance) -> Value {
    match value {
        Value::Object(object) => Value::Object(
            object
                .into_iter()
                .map(|(name, value)| {
                    let value = match tolerance.volatile.contains(&name) {
                        true => Value::String("…".to_owned()),
                        false => tidy_json(value, tolerance),
                    };
                    (name, value)
                })
                .collect(),
        ),
        Value::Array(items) => {
            let mut items: Vec<Value> = items
                .into_iter()
                .map(|item| tidy_json(item, tolerance))
                .collect();
            if tolerance.unordered {
                items.sort_by_key(Value::to_string);
            }
            Value::Array(items)
        }
        Value::String(text) => Value::String(shape(&text, tolerance)),
        Value::Number(_) if tolerance.numbers => Value::from(0),
        other => other,
    }
}

/// The text without its numbers, if they do not count.
fn shape(text: &str, tolerance: &Tolerance) -> String {
    static DATE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}")
            .expect("pattern")
    });
    static TASK: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("UPID:[^:]*:[0-9A-F:]*:").expect("pattern"));
    static NUMBER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r" *\d+(\.\d+)?( [KMGT]?i?B)?").expect("pattern"));
    if !tolerance.numbers {
        return text.to_owned();
    }
    let text = DATE.replace_all(text, "DATE");
    let text = TASK.replace_all(&text, "UPID:");
    let text = NUMBER.replace_all(&text, " #");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
