//! The tables that say, for every recorded exchange, what this server does about it.
//!
//! Each line of `lists/*.tsv` has: version, name, state, note. States:
//! * `same`: the answer equals the recorded one; the note may hold `volatile:NAME` (type is compared only),
//!   `ignore:NAME`, `unordered`, `task` (new task id), divided by blanks;
//! * `differs`: answered differently on purpose, the note says why; checked to differ still;
//! * `later`: not answered yet, the note says what is missing; not sent.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::capture;
use crate::compare::Tolerance;

/// What is done about one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Same,
    Differs,
    Later,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Row {
    pub version: String,
    pub name: String,
    pub state: State,
    pub note: String,
}

impl Row {
    pub fn tolerance(&self) -> Tolerance {
        let mut tolerance = Tolerance::default();
        for word in self.note.split_whitespace() {
            match word.split_once(':') {
                Some(("volatile", name)) => tolerance.volatile.push(name.to_owned()),
                Some(("ignore", name)) => tolerance.ignored.push(name.to_owned()),
                _ if word == "task" => tolerance.volatile.push("task".to_owned()),
                _ if word == "unordered" => tolerance.unordered = true,
                _ => panic!("{}: unknown word {word:?}", self.name),
            }
        }
        tolerance
    }
}

/// All lines of all tables, in the order of the exchanges.
pub fn rows() -> Vec<Row> {
    let folder = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/rest_captures/lists"
    ));
    let mut rows = Vec::new();
    for entry in fs::read_dir(folder).expect("lists") {
        let path = entry.expect("entry").path();
        for line in fs::read_to_string(&path)
            .expect("list")
            .lines()
            .filter(|line| !line.is_empty())
        {
            let mut columns = line.split('\t');
            let mut column = || columns.next().unwrap_or_default().to_owned();
            let (version, name, state, note) = (column(), column(), column(), column());
            let state = match state.as_str() {
                "same" => State::Same,
                "differs" => State::Differs,
                "later" => State::Later,
                other => panic!("{}: unknown state {other:?} in {line:?}", path.display()),
            };
            assert!(
                state == State::Same || !note.is_empty(),
                "no reason: {line}"
            );
            rows.push(Row {
                version,
                name,
                state,
                note,
            });
        }
    }
    rows.sort_by(|a, b| (&a.version, &a.name).cmp(&(&b.version, &b.name)));
    rows
}

/// Every recorded exchange is in exactly one line.
pub fn check_complete(rows: &[Row]) {
    let mut listed = BTreeSet::new();
    for row in rows {
        assert!(
            listed.insert((row.version.clone(), row.name.clone())),
            "listed twice: {} {}",
            row.version,
            row.name
        );
    }
    for version in ["3.2.4", "4.2.3"] {
        for name in capture::all(version) {
            assert!(
                listed.remove(&(version.to_owned(), name.clone())),
                "not listed: {version} {name}"
            );
        }
    }
    assert!(
        listed.is_empty(),
        "listed, but there is no such file: {listed:?}"
    );
}
