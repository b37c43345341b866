//! Pure functions of time: which snapshots a retention rule keeps, when jobs run, what both make of backups.
//!
//! Nothing here reads a clock or a file.

pub mod event;
pub mod retention;
pub mod simulator;

pub use event::{CalendarEvent, CalendarEventError};
