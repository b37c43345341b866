//! The id of a run, which ties the push of its start to that of its end.

use std::fmt;

use backstop_types::Upid;
use serde::{Deserialize, Serialize};

/// An id in the form of a UUID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// The id of a task: the same for each push of it, and another for every other task of this host.
    pub fn of_task(upid: &Upid) -> Self {
        let part = |number: u64| (number & 0xffff_ffff) as u128;
        let bits = part(upid.pid.into()) << 96
            | part(upid.pstart) << 64
            | part(upid.task_id) << 32
            | part(u64::try_from(upid.starttime).unwrap_or_default());
        Self::of_bits(bits)
    }

    /// An id of these 128 bits, of which six mark it as a UUID of its own kind (version 8).
    pub fn of_bits(bits: u128) -> Self {
        let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x8 << 76) | (0x2 << 62);
        let hex = format!("{bits:032x}");
        let mut text = String::with_capacity(36);
        for (position, digit) in hex.chars().enumerate() {
            if matches!(position, 8 | 12 | 16 | 20) {
                text.push('-');
            }
            text.push(digit);
        }
        Self(text)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
