//! The table `endpoints.tsv`, and how its lines belong to the endpoints that are served.

use std::collections::BTreeMap;

use backstop_server::router::{Endpoint, Method};

/// How a rule is seen at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Decided before parameters are looked at.
    Gate,
    /// Decided by the handler.
    Inside,
    /// The rule is who sees something in the answer.
    List,
}

/// Whether a call has to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    Must,
    Later,
    May,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Row {
    pub method: String,
    pub path: String,
    pub rule: String,
    pub check: Check,
    pub required: Required,
    /// Parameters of a real call.
    pub values: BTreeMap<String, String>,
    /// Optional parameters that get their usual value.
    pub more: Vec<String>,
    /// What those see whom the rule lets.
    pub sees: Option<String>,
    /// What an error says to whom the rule lets in.
    pub says: Option<String>,
    /// What is asked for in the `Upgrade` header.
    pub upgrade: Option<String>,
}

impl Row {
    fn parse(line: &str) -> Result<Self, String> {
        let mut columns = line.split('\t');
        let mut column = || columns.next().unwrap_or_default();
        let (method, path, rule, check, required, words) =
            (column(), column(), column(), column(), column(), column());
        let mut row = Self {
            method: method.to_owned(),
            path: path.to_owned(),
            rule: rule.to_owned(),
            check: match check {
                "gate" => Check::Gate,
                "inside" => Check::Inside,
                "list" => Check::List,
                other => return Err(format!("unknown check {other:?}")),
            },
            required: match required {
                "must" => Required::Must,
                "later" => Required::Later,
                "may" => Required::May,
                other => return Err(format!("unknown need {other:?}")),
            },
            values: BTreeMap::new(),
            more: Vec::new(),
            sees: None,
            says: None,
            upgrade: None,
        };
        if row.required == Required::Later {
            let reason = || "a call that is served later needs a reason".to_owned();
            return if words.is_empty() {
                Err(reason())
            } else {
                Ok(row)
            };
        }
        for word in words.split_whitespace() {
            if word == "#" {
                break;
            }
            let after = |prefix| word.strip_prefix(prefix).map(str::to_owned);
            if let Some(name) = after("+") {
                row.more.push(name);
            } else if let Some(text) = after("sees:") {
                row.sees = Some(text);
            } else if let Some(text) = after("says:") {
                row.says = Some(text);
            } else if let Some(protocol) = after("upgrade:") {
                row.upgrade = Some(protocol);
            } else if let Some((name, value)) = word.split_once('=') {
                row.values.insert(name.to_owned(), value.to_owned());
            } else {
                return Err(format!("{word:?} is no word of this table"));
            }
        }
        if (row.check == Check::List) != row.sees.is_some() {
            return Err("a list, and nothing else, needs sees:TEXT".to_owned());
        }
        Ok(row)
    }

    /// Method and path, with nothing in the place of parameter names.
    fn key(&self) -> (String, String) {
        key(&self.method, &self.path)
    }
}

fn key(method: &str, path: &str) -> (String, String) {
    let parts = path
        .split('/')
        .map(|part| if part.starts_with('{') { "{}" } else { part });
    (method.to_owned(), parts.collect::<Vec<_>>().join("/"))
}

/// The method of an endpoint as the table writes it.
pub const fn method(endpoint: &Endpoint) -> &'static str {
    match endpoint.method {
        Method::Get => "GET",
        Method::Put => "PUT",
        Method::Post => "POST",
        Method::Delete => "DELETE",
    }
}

/// All lines.
pub fn rows() -> Vec<Row> {
    let lines = include_str!("endpoints.tsv").lines().enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| {
            Row::parse(line).unwrap_or_else(|err| panic!("endpoints.tsv:{}: {err}", index + 1))
        })
        .collect()
}

/// Puts each endpoint together with its line. Everything that does not fit is in the second part of the answer, with what to do.
pub fn matched<'a>(
    rows: Vec<Row>,
    endpoints: &[&'a Endpoint],
) -> (Vec<(Row, &'a Endpoint)>, Vec<String>) {
    let mut faults = Vec::new();
    let mut by_key = BTreeMap::new();
    for row in rows {
        if let Some(other) = by_key.insert(row.key(), row) {
            faults.push(format!("two lines for {} {}", other.method, other.path));
        }
    }
    let mut pairs = Vec::new();
    for endpoint in endpoints {
        let method = method(endpoint);
        match by_key.remove(&key(method, endpoint.path)) {
            Some(row) => {
                if row.required == Required::Later {
                    faults.push(format!(
                        "{method} {} is served now: write `must` in the place of `later` in its line, and words in that of the reason",
                        endpoint.path
                    ));
                }
                pairs.push((row, *endpoint));
            }
            None => faults.push(format!(
                "no line for {method} {path}: who may call it? Add to crates/backstop-server/tests/permissions/endpoints.tsv, with the rule of \
                 its documentation and not that of its code (columns are divided by tabs):\n{method}\t{path}\tPRIVILEGE@/path\tgate\tmay",
                path = endpoint.path
            )),
        }
    }
    for row in by_key.values().filter(|row| row.required == Required::Must) {
        faults.push(format!(
            "{} {} has to be served and is not; when that is meant so for now, write `later` in its line, with the reason in the last column",
            row.method, row.path
        ));
    }
    (pairs, faults)
}
