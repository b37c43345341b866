//! Pure functions of time: which snapshots a retention rule keeps, when jobs run, what both make of backups, and which part of the
//! day it is.
//!
//! Nothing here reads a clock or a file.

pub mod daily_duration;
pub mod event;
pub mod retention;
pub mod simulator;

pub use daily_duration::{DailyDuration, DailyDurationError};
pub use event::{CalendarEvent, CalendarEventError};
