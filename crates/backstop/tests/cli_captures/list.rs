//! The tables that say, for every recorded command line, what this program does about it.
//!
//! Each line of `lists/*.tsv` has: version, name, state, note. States:
//! * `same`: exit status, standard output and standard error equal the recorded ones. The note may hold words that
//!   say what cannot be compared exactly, see [`Tolerance`], and `new`: run in an installation without datastores;
//! * `differs`: behaves differently on purpose, the note says why; checked to differ still;
//! * `later`: not done yet, the note says what is missing; not run;
//! * `skipped`: cannot be run again, the note says why.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use testbed::stock_root::fixtures;

use crate::compare::Tolerance;

/// What is done about one command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Same,
    Differs,
    Later,
    Skipped,
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
    pub fn is_run(&self) -> bool {
        matches!(self.state, State::Same | State::Differs)
    }

    /// Whether it belongs to an installation that has no datastores yet.
    pub fn is_for_new(&self) -> bool {
        self.state == State::Same && self.note.split_whitespace().any(|word| word == "new")
    }

    pub fn tolerance(&self) -> Tolerance {
        let mut tolerance = Tolerance::default();
        if self.state != State::Same {
            return tolerance;
        }
        for word in self.note.split_whitespace() {
            match word.split_once(':') {
                Some(("volatile", name)) => tolerance.volatile.push(name.to_owned()),
                None if word == "new" => {}
                None if word == "unordered" => tolerance.unordered = true,
                None if word == "numbers" => tolerance.numbers = true,
                None if word == "widths" => tolerance.widths = true,
                None if word == "stdout" => tolerance.stdout_only = true,
                _ => panic!("{}: unknown word {word:?}", self.name),
            }
        }
        tolerance
    }
}

/// All lines of all tables, in the order of the recordings.
pub fn rows() -> Vec<Row> {
    let folder = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/cli_captures/lists"
    ));
    let mut rows = Vec::new();
    for entry in fs::read_dir(folder).expect("lists") {
        let path = entry.expect("entry").path();
        let text = fs::read_to_string(&path).expect("list");
        for line in text.lines().filter(|line| !line.is_empty()) {
            let mut columns = line.split('\t');
            let mut column = || columns.next().unwrap_or_default().to_owned();
            let (version, name, state, note) = (column(), column(), column(), column());
            let state = match state.as_str() {
                "same" => State::Same,
                "differs" => State::Differs,
                "later" => State::Later,
                "skipped" => State::Skipped,
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

/// Every recorded command line is in exactly one line.
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
        for entry in fs::read_dir(fixtures(version).join("cli")).expect("cli folder") {
            let name = entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("UTF-8");
            let Some(name) = name.strip_suffix(".json") else {
                continue;
            };
            assert!(
                listed.remove(&(version.to_owned(), name.to_owned())),
                "not listed: {version} {name}"
            );
        }
    }
    assert!(
        listed.is_empty(),
        "listed, but there is no such file: {listed:?}"
    );
}
