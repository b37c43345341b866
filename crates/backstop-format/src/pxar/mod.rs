//! pxar archives, version 1 (one stream) and version 2 (metadata and payload streams).
//!
//! The format is described in `docs/formats/pxar.md`. [`encoder::Encoder`] writes both versions,
//! [`decoder::Decoder`] reads them from front to back and [`accessor::Accessor`] looks entries up
//! through the tables at the end of each directory.
//!
//! Archives come from outside: nothing here panics on them, recurses along them or allocates more
//! than the limits of [`item`] say.

pub mod accessor;
mod attributes;
pub mod decoder;
pub mod encoder;
pub mod entry;
mod error;
mod goodbye;
pub mod item;
mod prelude;

pub use error::{PxarError, Result};
pub use item::name_hash;
pub use prelude::{exclude_patterns_from_prelude, exclude_patterns_to_prelude};
