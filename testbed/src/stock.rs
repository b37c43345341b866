//! The stock programs, where a machine has them.

use std::path::PathBuf;

/// Name of the environment variable that names the folder of the stock programs.
pub const FOLDER_VARIABLE: &str = "BACKSTOP_STOCK_BIN";

/// The stock program `name`, or `None` (and a line that says so) where there is none.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE) else {
        println!("skipped: no stock binaries ({FOLDER_VARIABLE} is not set)");
        return None;
    };
    let path = PathBuf::from(folder).join(name);
    if path.is_file() {
        Some(path)
    } else {
        println!("skipped: no stock binaries ({} is missing)", path.display());
        None
    }
}
