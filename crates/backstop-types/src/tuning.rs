//! Tuning settings of a datastore.

use std::str::FromStr;

use serde_json::{Map, Value};

use crate::config_schema::datastore::TUNING_PARTS;
use crate::name::NameError;

/// In which order chunks are read from disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ChunkOrder {
    /// As the index lists them.
    None,
    /// By inode number, which is kinder to spinning disks.
    #[default]
    Inode,
}

/// When written data is forced to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SyncLevel {
    /// Never; the kernel decides.
    None,
    /// After each file.
    File,
    /// Once at the end of a backup, for the whole file system.
    #[default]
    Filesystem,
}

/// Tuning settings with their defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// In which order chunks are read.
    pub chunk_order: ChunkOrder,
    /// When written data is forced to disk.
    pub sync_level: SyncLevel,
    /// Whether garbage collection first checks that access times can be set.
    pub gc_atime_safety_check: bool,
    /// How long an unmarked chunk is kept after its last use, in minutes.
    pub gc_atime_cutoff_minutes: u32,
    /// How many chunks garbage collection remembers as touched; 0 for none.
    pub gc_cache_capacity: usize,
    /// Threads that check chunks while verifying; unset: as many as suit the machine.
    pub verification_workers: Option<usize>,
    /// Threads that read chunks while verifying; unset: as many as suit the disk.
    pub verification_readers: Option<usize>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            chunk_order: ChunkOrder::Inode,
            sync_level: SyncLevel::Filesystem,
            gc_atime_safety_check: true,
            gc_atime_cutoff_minutes: 1445,
            gc_cache_capacity: 1_048_576,
            verification_workers: None,
            verification_readers: None,
        }
    }
}

impl FromStr for Tuning {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason: String| NameError::new("tuning", text, reason);
        let values = TUNING_PARTS.parse_property_string(text).map_err(error)?;
        let mut tuning = Self::default();
        match values.get("chunk-order").and_then(Value::as_str) {
            None => {}
            Some("none") => tuning.chunk_order = ChunkOrder::None,
            Some("inode") => tuning.chunk_order = ChunkOrder::Inode,
            Some(other) => {
                return Err(error(format!(
                    "unknown variant `{other}`, expected `none` or `inode`"
                )));
            }
        }
        match values.get("sync-level").and_then(Value::as_str) {
            None => {}
            Some("none") => tuning.sync_level = SyncLevel::None,
            Some("file") => tuning.sync_level = SyncLevel::File,
            Some("filesystem") => tuning.sync_level = SyncLevel::Filesystem,
            Some(other) => {
                return Err(error(format!(
                    "unknown variant `{other}`, expected one of `none`, `file`, `filesystem`"
                )));
            }
        }
        if let Some(check) = values.get("gc-atime-safety-check").and_then(Value::as_bool) {
            tuning.gc_atime_safety_check = check;
        }
        take_number(
            &values,
            "gc-atime-cutoff",
            &mut tuning.gc_atime_cutoff_minutes,
        );
        take_number(&values, "gc-cache-capacity", &mut tuning.gc_cache_capacity);
        tuning.verification_workers = number(&values, "default-verification-workers");
        tuning.verification_readers = number(&values, "default-verification-readers");
        Ok(tuning)
    }
}

/// A number that the schema has limited already.
fn number<T: TryFrom<u64>>(values: &Map<String, Value>, key: &str) -> Option<T> {
    let number = values.get(key).and_then(Value::as_u64)?;
    T::try_from(number).ok()
}

fn take_number<T: TryFrom<u64>>(values: &Map<String, Value>, key: &str, target: &mut T) {
    if let Some(number) = number(values, key) {
        *target = number;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn settings_override_defaults() {
        assert_eq!("".parse::<Tuning>().unwrap(), Tuning::default());
        let tuning: Tuning = "chunk-order=none,sync-level=file,gc-atime-cutoff=60,gc-cache-capacity=0,default-verification-workers=8,default-verification-readers=2,gc-atime-safety-check=false".parse().unwrap();
        assert_eq!(
            tuning,
            Tuning {
                chunk_order: ChunkOrder::None,
                sync_level: SyncLevel::File,
                gc_atime_safety_check: false,
                gc_atime_cutoff_minutes: 60,
                gc_cache_capacity: 0,
                verification_workers: Some(8),
                verification_readers: Some(2),
            }
        );
    }

    #[test]
    fn broken_settings_are_refused() {
        for text in [
            "chunk-order=x",
            "sync-level=x",
            "gc-atime-cutoff=0",
            "gc-atime-cutoff=2881",
            "x=1",
            "none",
        ] {
            assert!(text.parse::<Tuning>().is_err(), "{text}");
        }
    }
}
