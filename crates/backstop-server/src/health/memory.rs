//! What is remembered between restarts: `backstop-health-memory.json` in the state directory (`docs/formats/health.md`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use backstop_health::{Learnt, Ledger};
use serde::{Deserialize, Serialize};

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
    /// What the file holds; nothing when it is not there or makes no sense.
    pub fn open(file: PathBuf) -> Self {
        let content = read(&file).unwrap_or_else(|err| {
            tracing::error!(path = %file.display(), %err, "what health remembers cannot be read; it begins anew");
            Content::default()
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

    /// The same, to be changed by a gathering, which stores it.
    pub fn parts(&mut self) -> (&mut Ledger, &mut Learnt, &mut Jumps) {
        let Content {
            ledger,
            learnt,
            jumps,
        } = &mut self.content;
        (ledger, learnt, jumps)
    }

    /// Changes the ledger and stores it.
    pub fn change<T, E>(
        &mut self,
        change: impl FnOnce(&mut Ledger) -> Result<T, E>,
    ) -> Result<T, E> {
        let done = change(&mut self.content.ledger)?;
        self.store();
        Ok(done)
    }

    /// Writes it. A failure costs the memory only, and is said.
    pub fn store(&mut self) {
        let write = || {
            let text = serde_json::to_vec(&self.content)?;
            state_file::replace(&self.file, &text, MODE)
        };
        match write() {
            Ok(()) => self.is_lost = false,
            Err(err) if !self.is_lost => {
                tracing::error!(path = %self.file.display(), %err, "what health remembers cannot be written");
                self.is_lost = true;
            }
            Err(_) => {}
        }
    }
}

fn read(file: &Path) -> io::Result<Content> {
    match fs::read(file) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Content::default()),
        Err(err) => Err(err),
    }
}
