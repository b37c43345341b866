//! Archiving and extracting trees on a real file system.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod exclusion;
mod hostile;
mod reuse;
mod round_trip;
mod stock;
mod support;
mod warnings;
