//! Archives as file systems: a directory archive, unified or split, mounted read-only through FUSE; and images as block devices.
//!
//! [`ArchiveTree`] answers questions by inode number and knows no kernel; [`mount`] connects it to one. [`Mappings`] mounts an image
//! on a file and has a loop device show that. Nothing is
//! written anywhere. Archives are hostile until proven otherwise: what cannot be read or cannot exist is an input/output
//! error to whoever asked and a line in the log, never a guess and never a panic.

mod cache;
mod filesystem;
mod image;
mod inodes;
mod loop_device;
mod mapping;
mod mounted;
mod tree;
mod unit_name;

#[cfg(test)]
mod tests;

pub use loop_device::LoopDevice;
pub use mapping::{MapError, MappedImage, Mapping, Mappings};
pub use mounted::{MountError, MountedArchive, check_device, mount};
pub use tree::{ArchiveTree, Attributes, Kind, Listed, ROOT, TreeError};
