//! Scripts of somebody's own that tell the hook: jobs that name them need nothing more.

use std::io::Read as _;
use std::path::Path;

use super::cluster_file::is_executable;

/// How much of a script is read.
const MOST_READ: u64 = 64 << 10;
/// The name under which the program is the hook.
const NAME: &str = "backstop-pve-hook";

/// Whether a program is the hook by another path, or a script in which a line calls it. What cannot be read does not.
pub(super) fn tells(script: &Path, hook: &Path) -> bool {
    // No FIFO, which would be waited for.
    if !is_executable(script) {
        return false;
    }
    let is_named_so = script.file_name().is_some_and(|name| name == NAME);
    if is_named_so
        && let (Ok(one), Ok(other)) = (script.canonicalize(), hook.canonicalize())
        && one == other
    {
        return true;
    }
    let mut text = Vec::new();
    let read = std::fs::File::open(script).and_then(|file| {
        let mut file = file.take(MOST_READ);
        file.read_to_end(&mut text)
    });
    read.is_ok() && text.starts_with(b"#!") && calls(&String::from_utf8_lossy(&text))
}

fn calls(text: &str) -> bool {
    let lines = text.lines().map(str::trim_start);
    let mut commands = lines.filter(|line| !line.starts_with('#'));
    commands.any(|line| {
        let mut words = line.split_whitespace();
        line.contains(NAME) || (line.contains("backstop") && words.any(|word| word == "pve-hook"))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_comment_calls_nothing() {
        assert!(calls(
            "#!/bin/sh\n/usr/local/bin/backstop pve-hook \"$@\"\n"
        ));
        assert!(calls("#!/bin/sh\n exec /opt/backstop-pve-hook \"$@\"\n"));
        assert!(!calls(
            "#!/bin/sh\n# once: backstop pve-hook \"$@\"\ncurl x\n"
        ));
        assert!(!calls("#!/usr/bin/perl\nprint 'pve-hook';\n"));
    }
}
