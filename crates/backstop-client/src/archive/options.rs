//! What is archived and how trees are written.

use std::path::PathBuf;

use super::pattern::Pattern;

/// Which kinds of objects and metadata are stored or restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Extended attributes.
    pub xattrs: bool,
    /// POSIX ACLs.
    pub acls: bool,
    /// File capabilities.
    pub fcaps: bool,
    /// Block and character devices.
    pub device_nodes: bool,
    /// Fifos.
    pub fifos: bool,
    /// Sockets.
    pub sockets: bool,
}

impl Default for Features {
    /// Everything.
    fn default() -> Self {
        Self {
            xattrs: true,
            acls: true,
            fcaps: true,
            device_nodes: true,
            fifos: true,
            sockets: true,
        }
    }
}

/// Which mounted file systems below the source are entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceSet {
    /// The source's own and those these paths lie on.
    SourceAnd(Vec<PathBuf>),
    /// All but virtual ones.
    All,
}

/// How a tree is archived.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// Exclude patterns of the command line, in order, `lost+found` included when it is to be skipped.
    pub exclude: Vec<Pattern>,
    /// Mount points to cross.
    pub devices: DeviceSet,
    /// Leave out extended attributes that are too big to read instead of failing.
    pub skip_e2big_xattr: bool,
    /// Most directory entries held at once along the current path.
    pub entries_max: usize,
    /// What is stored.
    pub features: Features,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            exclude: Vec::new(),
            devices: DeviceSet::SourceAnd(Vec::new()),
            skip_e2big_xattr: false,
            entries_max: 1 << 20,
            features: Features::default(),
        }
    }
}

/// How an archive is written to disk.
#[derive(Debug, Clone, Default)]
pub struct ExtractOptions {
    /// Selection, evaluated from last to first against `/` and the path in the archive.
    pub patterns: Vec<Pattern>,
    /// Extract only what a pattern includes; otherwise everything that no pattern excludes.
    pub only_matching: bool,
    /// Directories, the target included, may exist.
    pub allow_existing_dirs: bool,
    /// Existing files are replaced.
    pub overwrite_files: bool,
    /// Existing objects are replaced by symbolic links.
    pub overwrite_symlinks: bool,
    /// Existing objects are replaced by hard links.
    pub overwrite_hardlinks: bool,
    /// Leave owners as they come.
    pub ignore_ownership: bool,
    /// Leave modes as they come.
    pub ignore_permissions: bool,
    /// Go on when a device node cannot be made.
    pub ignore_device_errors: bool,
    /// Log errors and go on; the extraction then ends with [`super::ArchiveError::SomeFailed`].
    pub keep_going: bool,
    /// What is restored.
    pub features: Features,
    /// Number of threads that write files; 0 chooses by the machine.
    pub threads: usize,
}

impl ExtractOptions {
    /// All three `overwrite_*` at once.
    pub fn overwrite(mut self) -> Self {
        self.overwrite_files = true;
        self.overwrite_symlinks = true;
        self.overwrite_hardlinks = true;
        self
    }
}
