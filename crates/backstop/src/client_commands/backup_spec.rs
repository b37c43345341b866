//! What to back up, as it is written on the command line: `name.type:path`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use anyhow::bail;
use backstop_client::backup::{ArchiveSpec, SourceKind};

/// Whether a text has the form of a backup specification.
///
/// # Errors
/// The sentence for the parameter error.
pub fn check(text: &str) -> Result<(), String> {
    match split(OsStr::new(text)) {
        Some(_) => Ok(()),
        None => Err("value does not match the regex pattern".to_string()),
    }
}

fn split(text: &OsStr) -> Option<(&str, SourceKind, &Path)> {
    let mut parts = text.as_bytes().splitn(2, |byte| *byte == b':');
    let name = std::str::from_utf8(parts.next()?).ok()?;
    let path = parts.next()?;
    let (label, kind) = name.split_once('.')?;
    let kind = match kind {
        "pxar" => SourceKind::Tree,
        "img" => SourceKind::Image,
        "conf" => SourceKind::Config,
        "log" => SourceKind::Log,
        _ => return None,
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (!label.is_empty() && label.chars().all(allowed) && !path.is_empty())
        .then(|| (name, kind, Path::new(OsStr::from_bytes(path))))
}

/// Reads specifications and looks at their sources, so that nothing is begun that cannot succeed.
///
/// # Errors
/// If a source is missing or of another kind, or a name or a pipe is given twice.
pub fn read(texts: &[OsString]) -> anyhow::Result<Vec<ArchiveSpec>> {
    let mut specs: Vec<ArchiveSpec> = Vec::new();
    let mut pipes: Vec<PathBuf> = Vec::new();
    for text in texts {
        let Some((name, kind, path)) = split(text) else {
            bail!(
                "unable to parse backup source specification '{}'",
                text.display()
            );
        };
        if specs.iter().any(|spec| spec.name == name) {
            bail!("got target twice: '{name}'");
        }
        if look_at(path, kind)? {
            if pipes.iter().any(|pipe| pipe == path) {
                bail!(
                    "pipe '{}' is named twice, but can be read only once",
                    path.display()
                );
            }
            pipes.push(path.to_path_buf());
        }
        specs.push(ArchiveSpec {
            name: name.to_string(),
            kind,
            path: path.to_path_buf(),
        });
    }
    Ok(specs)
}

/// Checks one source; tells whether it is a pipe.
fn look_at(path: &Path, kind: SourceKind) -> anyhow::Result<bool> {
    if path == Path::new("-") {
        bail!("'-' is no source; use /dev/stdin to read standard input");
    }
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => bail!("unable to access '{}' - {error}", path.display()),
    };
    let file_type = metadata.file_type();
    match kind {
        SourceKind::Tree if !file_type.is_dir() => {
            bail!("got unexpected file type (expected directory)")
        }
        SourceKind::Config | SourceKind::Log if !file_type.is_file() => {
            bail!("got unexpected file type (expected regular file)")
        }
        SourceKind::Image => {
            let possible =
                file_type.is_file() || file_type.is_block_device() || file_type.is_fifo();
            if !possible {
                bail!("got unexpected file type (expected file or block device)");
            }
            if file_type.is_file() && metadata.len() == 0 {
                bail!("got zero-sized file '{}'", path.display());
            }
            Ok(file_type.is_fifo())
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn refused(texts: &[&str]) -> String {
        let texts: Vec<OsString> = texts.iter().map(OsString::from).collect();
        read(&texts).unwrap_err().to_string()
    }

    #[test]
    fn a_specification_names_archive_kind_and_path() {
        for good in ["root.pxar:/", "a-b_9.img:/dev/sda", "x.conf:a:b", "x.log:-"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "nonsense",
            "a.zip:/x",
            "a.mpxar:/x",
            "a.pxar:",
            ".pxar:/x",
            "a.b.pxar:/x",
            "ä.img:/x",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sources_are_looked_at_before_anything_begins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let empty = format!("{path}/empty");
        std::fs::write(&empty, "").unwrap();
        let full = format!("{path}/full");
        std::fs::write(&full, "x").unwrap();

        assert_eq!(
            refused(&[&format!("a.pxar:{path}/nope")]),
            format!("unable to access '{path}/nope' - No such file or directory (os error 2)")
        );
        assert_eq!(
            refused(&[&format!("a.pxar:{full}")]),
            "got unexpected file type (expected directory)"
        );
        assert_eq!(
            refused(&[&format!("a.img:{path}")]),
            "got unexpected file type (expected file or block device)"
        );
        assert_eq!(
            refused(&["a.img:/dev/null"]),
            "got unexpected file type (expected file or block device)"
        );
        assert_eq!(
            refused(&[&format!("a.img:{empty}")]),
            format!("got zero-sized file '{empty}'")
        );
        assert_eq!(
            refused(&[&format!("a.pxar:{path}"), &format!("a.pxar:{path}")]),
            "got target twice: 'a.pxar'"
        );
        assert!(refused(&["a.img:-"]).contains("/dev/stdin"));
        let good = [
            format!("a.pxar:{path}"),
            format!("b.img:{full}"),
            format!("c.conf:{empty}"),
        ]
        .map(OsString::from);
        assert_eq!(read(&good).unwrap().len(), 3);
    }
}
