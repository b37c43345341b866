//! Heartbeats: one push for each finished run, to whoever watches for it.
//!
//! What is here decides and never acts: which run concerns which [`Monitor`], and what the request to its receiver looks like. It
//! reads no file, opens no connection and looks at no clock. URLs of receivers are secrets, and appear in nothing but the request.

mod answer;
mod binding;
mod event;
mod monitor;
mod receiver;
mod run_id;
mod waiting;

pub use answer::Objection;
pub use binding::{Binding, BindingError, Job};
pub use event::{Event, Outcome, Place, Source};
pub use monitor::{Monitor, MonitorError, Monitors};
pub use receiver::{Push, Receiver, Signal, UrlError, check_url, shown_server};
pub use run_id::RunId;
pub use waiting::WaitingPush;
