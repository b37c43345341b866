//! What is remembered between restarts: `backstop-health-memory.json` in the state directory (`docs/formats/health.md`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use backstop_health::{Absences, Learnt, Ledger, Settings};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use parking_lot::Mutex;

use super::clock::Jumps;
use crate::state_file;

/// Its name.
pub(super) const FILE: &str = "backstop-health-memory.json";
const MODE: u32 = 0o640;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    #[serde(default)]
    ledger: Ledger,
    #[serde(default)]
    learnt: Learnt,
    #[serde(default)]
    jumps: Jumps,
    #[serde(default)]
    absences: Absences,
    /// What the operator has said last that made sense.
    #[serde(default)]
    settings: Option<Settings>,
}

/// What a gathering changes.
pub(super) struct Parts<'a> {
    pub ledger: &'a mut Ledger,
    pub learnt: &'a mut Learnt,
    pub jumps: &'a mut Jumps,
    pub absences: &'a mut Absences,
    pub settings: &'a mut Option<Settings>,
}

/// The memory, and the file that it lies in.
#[derive(Debug)]
pub(super) struct Memory {
    file: PathBuf,
    content: Content,
    /// Whether the last attempt to write it failed, which is said once.
    is_lost: bool,
}

impl Memory {
    /// What the file holds; nothing when it is not there, and what makes sense of it otherwise. What does not is kept aside.
    pub fn open(file: PathBuf) -> Self {
        let content = read(&file).unwrap_or_else(|reason| {
            let aside = aside(&file);
            tracing::error!(path = %file.display(), reason, ?aside, "what health remembers cannot be read whole; it is kept aside");
            let kept = fs::copy(&file, &aside);
            if let Err(err) = kept {
                tracing::error!(path = %aside.display(), %err, "it cannot be kept aside");
            }
            salvage(&fs::read(&file).unwrap_or_default())
        });
        Self {
            file,
            content,
            is_lost: false,
        }
    }

    /// Since when what is as it is.
    pub fn ledger(&self) -> &Ledger {
        &self.content.ledger
    }

    /// The same, to be changed. Whoever does stores it afterwards.
    pub fn parts(&mut self) -> Parts<'_> {
        let Content {
            ledger,
            learnt,
            jumps,
            absences,
            settings,
        } = &mut self.content;
        Parts {
            ledger,
            learnt,
            jumps,
            absences,
            settings,
        }
    }

    /// What could not be read and lies aside; `None`: nothing. Blocks for a look at a file.
    pub fn aside(&self) -> Option<String> {
        let aside = aside(&self.file);
        aside.exists().then(|| aside.display().to_string())
    }

    /// Writes a memory. It is locked while it is put into words, and not while the disk works. A failure costs the memory only, and is
    /// said. Blocks for a file.
    pub fn store(memory: &Mutex<Self>, writing: &Mutex<()>) {
        // Who comes later writes what is newer.
        let _writing = writing.lock();
        let (file, text) = {
            let memory = memory.lock();
            (memory.file.clone(), serde_json::to_vec(&memory.content))
        };
        let written = text
            .map_err(io::Error::from)
            .and_then(|text| state_file::replace(&file, &text, MODE));
        let mut memory = memory.lock();
        match written {
            Ok(()) => memory.is_lost = false,
            Err(err) if !memory.is_lost => {
                tracing::error!(path = %file.display(), %err, "what health remembers cannot be written");
                memory.is_lost = true;
            }
            Err(_) => {}
        }
    }
}

fn aside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".unreadable");
    name.into()
}

fn read(file: &Path) -> Result<Content, String> {
    match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).map_err(|err| err.to_string()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Content::default()),
        Err(err) => Err(err.to_string()),
    }
}

/// What makes sense of a memory that does not as a whole: each part, and of the ledger each entry, for itself.
fn salvage(text: &[u8]) -> Content {
    let Ok(Value::Object(mut all)) = serde_json::from_slice(text) else {
        return Content::default();
    };
    let mut ledger = Map::new();
    for key in ["entries", "history"] {
        let items = all.get_mut("ledger").and_then(|ledger| ledger.get_mut(key));
        let items = items.and_then(Value::as_array_mut).map(std::mem::take);
        let mut items = items.unwrap_or_default();
        items.retain(|item| serde_json::from_value::<Ledger>(json!({ key: [item] })).is_ok());
        ledger.insert(key.to_owned(), items.into());
    }
    Content {
        ledger: part(Some(ledger.into())),
        learnt: part(all.remove("learnt")),
        jumps: part(all.remove("jumps")),
        absences: part(all.remove("absences")),
        settings: part(all.remove("settings")),
    }
}

fn part<T: DeserializeOwned + Default>(value: Option<Value>) -> T {
    let read = value.and_then(|value| serde_json::from_value(value).ok());
    read.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use backstop_health::{Code, Finding, Moment, Scope, State};
    use jiff::tz::TimeZone;

    use super::*;

    /// A file with two checks that are bad, of which one is acknowledged.
    fn written(file: &Path) -> Value {
        let memory = Mutex::new(Memory::open(file.to_owned()));
        let bad = |object| {
            let finding = Finding::ok(Code::JobFailed, object, &Scope::default(), "it failed");
            finding.bad(State::Critical, None, "look")
        };
        let findings = vec![bad("job/sync/a"), bad("job/sync/b")];
        let moment = Moment::new(1000, TimeZone::UTC);
        let mut held = memory.lock();
        let parts = held.parts();
        parts.ledger.observe(findings, &[], &[], &moment);
        let known =
            parts
                .ledger
                .acknowledge(Code::JobFailed, "job/sync/b", "ann@pbs", "", None, 1001);
        known.unwrap();
        parts.learnt.note_backups("group/store1/vm/1", &[900], 1000);
        drop(held);
        Memory::store(&memory, &Mutex::new(()));
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    }

    #[test]
    fn one_entry_that_makes_no_sense_costs_that_entry_and_the_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let mut text = written(&file);
        assert_eq!(Memory::open(file.clone()).aside(), None);
        text["ledger"]["entries"][0]["finding"]["code"] = "of-tomorrow".into();
        fs::write(&file, text.to_string()).unwrap();
        let mut memory = Memory::open(file.clone());
        let aside = memory.aside().unwrap();
        assert_eq!(fs::read_to_string(aside).unwrap(), text.to_string());
        let parts = memory.parts();
        let known = parts.ledger.unacknowledge(Code::JobFailed, "job/sync/b");
        assert!(known.is_ok());
        assert_eq!(parts.ledger.history().count(), 2);
        assert_eq!(parts.learnt.backups("group/store1/vm/1"), [900]);
    }

    #[test]
    fn garbage_is_kept_aside_and_costs_no_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        fs::write(&file, "{ \"ledger\": ").unwrap();
        let memory = Memory::open(file);
        assert!(memory.aside().is_some());
        assert_eq!(memory.ledger().history().count(), 0);
    }
}
