//! Comparing an answer with a recorded one.

use serde_json::Value;

use crate::capture::Capture;
use crate::client::Answer;

/// Members whose values differ from run to run; both sides need to have them, of the same JSON type.
const VOLATILE: &[&str] = &["CSRFPreventionToken", "ticket", "ticket-info", "digest"];
/// Headers that have to agree.
const HEADERS: &[&str] = &["content-type", "location", "content-disposition", "upgrade"];

/// How one exchange may differ.
#[derive(Debug, Default, Clone)]
pub struct Tolerance {
    /// Further volatile members.
    pub volatile: Vec<String>,
    /// Members that may be missing on either side.
    pub ignored: Vec<String>,
    /// Whether arrays are sets.
    pub unordered: bool,
}

/// Says what is different, if anything is.
pub fn difference(
    capture: &Capture,
    answer: &Answer,
    root: &str,
    tolerance: &Tolerance,
) -> Option<String> {
    if capture.status_line != answer.status_line {
        return Some(format!(
            "status {:?}, not {:?}: {}",
            answer.status_line,
            capture.status_line,
            answer.text()
        ));
    }
    for name in HEADERS {
        if capture.header(name) != answer.header(name) {
            return Some(format!(
                "header {name}: {:?}, not {:?}",
                answer.header(name),
                capture.header(name)
            ));
        }
    }
    let cookie = |value: Option<&str>| {
        value.map(|value| value.split_once('=').unwrap_or((value, "")).0.to_owned())
    };
    let (wanted, got) = (
        cookie(capture.header("set-cookie")),
        cookie(answer.header("set-cookie")),
    );
    if wanted != got {
        return Some(format!("cookie {got:?}, not {wanted:?}"));
    }
    if capture.method == "HEAD" {
        return None;
    }
    let wanted = capture.body();
    let got = String::from_utf8_lossy(&answer.body).replace(root, "");
    match (
        serde_json::from_slice::<Value>(&wanted),
        serde_json::from_str::<Value>(&got),
    ) {
        (Ok(wanted), Ok(got)) => compare("", &tidy(wanted, tolerance), &tidy(got, tolerance)),
        _ if wanted == answer.body || wanted == got.as_bytes() => None,
        _ => Some(format!(
            "body {got:?}, not {:?}",
            String::from_utf8_lossy(&wanted)
        )),
    }
}

/// Takes out what may differ.
fn tidy(value: Value, tolerance: &Tolerance) -> Value {
    match value {
        Value::Object(object) => Value::Object(
            object
                .into_iter()
                .filter(|(name, _)| !tolerance.ignored.contains(name))
                .map(|(name, value)| {
                    let volatile =
                        VOLATILE.contains(&name.as_str()) || tolerance.volatile.contains(&name);
                    let value = if volatile {
                        kind(&value)
                    } else {
                        tidy(value, tolerance)
                    };
                    (name, value)
                })
                .collect(),
        ),
        Value::Array(items) => {
            let mut items: Vec<Value> = items
                .into_iter()
                .map(|item| tidy(item, tolerance))
                .collect();
            if tolerance.unordered {
                items.sort_by_key(Value::to_string);
            }
            Value::Array(items)
        }
        Value::String(text)
            if tolerance.volatile.iter().any(|name| name == "task")
                && text.starts_with("UPID:") =>
        {
            // Node, process, counter and time of a new task differ; what it does and for whom does not.
            Value::String(text.split(':').skip(6).collect::<Vec<_>>().join(":"))
        }
        other => other,
    }
}

fn kind(value: &Value) -> Value {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Value::String(format!("any {kind}"))
}

fn compare(at: &str, wanted: &Value, got: &Value) -> Option<String> {
    match (wanted, got) {
        (Value::Object(wanted), Value::Object(got)) => {
            if let Some(name) = wanted.keys().find(|name| !got.contains_key(*name)) {
                return Some(format!("{at}/{name} is missing"));
            }
            if let Some(name) = got.keys().find(|name| !wanted.contains_key(*name)) {
                return Some(format!("{at}/{name} should not be there: {}", got[name]));
            }
            wanted
                .iter()
                .find_map(|(name, value)| compare(&format!("{at}/{name}"), value, &got[name]))
        }
        (Value::Array(wanted), Value::Array(got)) => {
            let pairs = wanted.iter().zip(got).enumerate();
            let mut differences =
                pairs.filter_map(|(number, (w, g))| compare(&format!("{at}/{number}"), w, g));
            differences.next().or_else(|| {
                (wanted.len() != got.len())
                    .then(|| format!("{at}: {} items, not {}", got.len(), wanted.len()))
            })
        }
        _ if wanted == got => None,
        _ => Some(format!("{at}: {got}, not {wanted}")),
    }
}
