//! Programs of others that tests start.

use std::path::PathBuf;

/// The programs that `cargo xtask test` has found or installed, divided by commas.
const PROMISED: &str = "BACKSTOP_TEST_PROGRAMS";

/// Where a program is, or `None` (and a line that says so) where it is not installed.
///
/// # Panics
///
/// When `cargo xtask test` has promised that it is there: a test must not skip itself for a fault of the set-up.
#[must_use]
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Services are there, which the path of users other than root leaves out.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        let promised = std::env::var(PROMISED).unwrap_or_default();
        assert!(
            !promised.split(',').any(|promised| promised == name),
            "{name} is promised by {PROMISED}, and not to be found in {}",
            path.display()
        );
        println!("skipped: {name} is not installed");
    }
    found
}
