//! Notifications: what is told to whom, in which words, and how it gets there.
//!
//! Events become a [`Notification`]; [`matcher`]s choose targets; [`repeats`] folds what was told already and finds the success that ends a
//! failure; [`templates`] make words of it. The crate knows no server, no job and no datastore, and no secret leaves it but towards
//! the target that it belongs to.

pub mod delivery;
pub mod dispatch;
pub mod matcher;
pub mod named_value;
pub mod notification;
pub mod recipe;
pub mod repeats;
pub mod settings;
pub mod target;
pub mod templates;

pub use delivery::{SendError, Surroundings};
pub use dispatch::{Dispatch, DispatchError, Sorted};
pub use matcher::Matcher;
pub use named_value::NamedValue;
pub use notification::{Content, Notification, Severity};
pub use settings::{Settings, SettingsError};
pub use target::{Target, TargetKind};
pub use templates::{Rendered, Templates};
