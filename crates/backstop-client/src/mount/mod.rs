//! Archives as file systems: a directory archive, unified or split, mounted read-only through FUSE.
//!
//! [`ArchiveTree`] answers questions by inode number and knows no kernel; [`mount`] connects it to one. Nothing is
//! written anywhere. Archives are hostile until proven otherwise: what cannot be read or cannot exist is an input/output
//! error to whoever asked and a line in the log, never a guess and never a panic.

mod cache;
mod filesystem;
mod inodes;
mod mounted;
mod tree;

#[cfg(test)]
mod tests;

pub use mounted::{MountError, MountedArchive, check_device, mount};
pub use tree::{ArchiveTree, Attributes, Kind, Listed, ROOT, TreeError};
