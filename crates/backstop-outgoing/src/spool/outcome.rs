//! What becomes of items: the outcome of an attempt, and what is said of a look, of a pass and of what has not arrived.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// It arrived.
    Delivered,
    /// It did not, and is to be tried again.
    Failed(String),
    /// It did not, and the receiver says how long it wants to be left alone.
    Busy {
        /// Why.
        reason: String,
        /// How long.
        wait: Duration,
    },
    /// The receiver will not take this item. It is tried a few times more, and then set aside, so that others arrive.
    Refused(String),
    /// There is no sense in trying again, or nobody to deliver it to any more: it is removed and counted as dropped.
    Hopeless(String),
    /// It was not tried. Its lane waits for the next pass.
    Later,
    /// Nobody wants it any more: it is removed, and nothing is lost by it.
    Withdrawn,
}

/// What there is to do at some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Lanes that have something due; those that failed before come last.
    pub lanes: Vec<String>,
    /// When something is due in the other lanes; `None` when they are empty.
    pub next: Option<i64>,
    /// What was dropped, and why.
    pub dropped: Vec<String>,
    /// Files that could not be read, under their new names.
    pub set_aside: Vec<PathBuf>,
}

/// What was done in a lane, or in all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// How many items arrived.
    pub delivered: usize,
    /// What failed and stays.
    pub failed: Vec<String>,
    /// What is not tried again, as the receiver refuses it, and why.
    pub refused: Vec<String>,
    /// What was dropped, and why.
    pub dropped: Vec<String>,
    /// Files that could not be read, under their new names.
    pub set_aside: Vec<PathBuf>,
    /// When the next attempt is due; `None` when nothing is left.
    pub next: Option<i64>,
    /// Somebody else is delivering there just now.
    pub is_busy: bool,
}

/// An item that has not arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Undelivered {
    /// Its file without its ending.
    pub id: String,
    /// Whom it is for.
    pub lane: String,
    /// When it was added.
    pub queued: i64,
    /// How often it was tried.
    pub attempts: u32,
    /// When it first failed; `None` for one that waits behind another of its lane or was not tried yet.
    pub first_failure: Option<i64>,
    /// When it is tried next.
    pub next_try: i64,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// Whether the receiver refuses it, so that it is not tried again unless somebody says so.
    pub refused: bool,
}

/// An item that will not arrive.
#[derive(Debug, Clone, PartialEq)]
pub struct Lost {
    /// Whom it was for.
    pub lane: String,
    /// What it was.
    pub item: Value,
}
