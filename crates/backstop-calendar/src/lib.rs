//! Pure functions of time: which snapshots a retention rule keeps, when jobs run.
//!
//! Nothing here reads a clock or a file.

pub mod event;
pub mod retention;

pub use event::{CalendarEvent, CalendarEventError};
