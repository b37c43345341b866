//! Where the files of the calling user are: keys, fingerprints, tickets, the list of recent repositories.
//! Nothing is created here.

use std::path::PathBuf;

const DIRECTORY: &str = "proxmox-backup";

fn directory(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |path: std::ffi::OsString| Some(PathBuf::from(path)).filter(|p| p.is_absolute());
    std::env::var_os(variable)
        .and_then(absolute)
        .or_else(|| Some(std::env::home_dir()?.join(below_home)))
}

/// A file of the user's configuration, whether it exists or not.
pub fn config(name: &str) -> Option<PathBuf> {
    Some(
        directory("XDG_CONFIG_HOME", ".config")?
            .join(DIRECTORY)
            .join(name),
    )
}

/// A file of the configuration if it exists: the user's, else the one of the whole system.
pub fn existing_config(name: &str) -> Option<PathBuf> {
    let system = std::env::var("XDG_CONFIG_DIRS").unwrap_or_else(|_| "/etc/xdg".to_string());
    let system = system
        .split(':')
        .filter(|path| path.starts_with('/'))
        .map(|path| PathBuf::from(path).join(DIRECTORY).join(name))
        .collect::<Vec<_>>();
    config(name)
        .into_iter()
        .chain(system)
        .find(|path| path.is_file())
}

/// A file of the session, gone after the user logs out.
pub fn runtime(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    Some(path.join(DIRECTORY).join(name)).filter(|path| path.is_absolute())
}

/// A file that may be lost.
pub fn cache(name: &str) -> Option<PathBuf> {
    Some(
        directory("XDG_CACHE_HOME", ".cache")?
            .join(DIRECTORY)
            .join(name),
    )
}
