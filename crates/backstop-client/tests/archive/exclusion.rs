//! What exclude patterns leave out of an archive.

use std::fs;
use std::path::Path;

use backstop_client::archive::*;
use backstop_format::pxar::accessor::Accessor;
use backstop_format::pxar::decoder::Decoder;

use crate::support::*;

fn make(root: &Path, paths: &[&str]) {
    for path in paths {
        let full = root.join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, path).unwrap();
    }
}

fn archived(root: &Path, patterns: &[&str], lines: &Lines) -> Vec<String> {
    let exclude = patterns
        .iter()
        .map(|text| Pattern::parse(text, MatchType::Exclude).unwrap())
        .collect();
    let options = CreateOptions {
        exclude,
        ..CreateOptions::default()
    };
    let (_, archive, _) = unified(root, &options, lines);
    let target = root.with_extension("restored");
    extract(
        &mut Decoder::new(archive.as_slice()),
        &target,
        &ExtractOptions::default(),
        lines,
    )
    .unwrap();
    let found = describe(&target);
    fs::remove_dir_all(target).unwrap();
    found
        .into_keys()
        .skip(1)
        .map(|path| String::from_utf8(path).unwrap())
        .collect()
}

#[test]
fn exclude_files_hold_for_their_directory_and_below() {
    let source = tempfile::tempdir().unwrap();
    make(
        source.path(),
        &[
            "excl/a.tmp",
            "excl/a.txt",
            "excl/anchored",
            "excl/deeper/anchored",
            "excl/deeper/b.tmp",
            "excl/sub/drop",
            "excl/sub/keep",
            "other/c.tmp",
            "other/sub/drop",
            "zz.tmp",
        ],
    );
    fs::write(
        source.path().join("excl/.pxarexclude"),
        b"# comment\n*.tmp\n  /anchored  \n\nsub/*\n!sub/keep\n[bad\n",
    )
    .unwrap();
    let lines = Lines::default();
    assert_eq!(
        archived(source.path(), &[], &lines),
        [
            "excl",
            "excl/.pxarexclude",
            "excl/a.txt",
            "excl/deeper",
            "excl/deeper/anchored",
            "excl/sub",
            "excl/sub/keep",
            "other",
            "other/c.tmp",
            "other/sub",
            "other/sub/drop",
            "zz.tmp"
        ]
    );
    let lines = lines.take();
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].starts_with("bad pattern in \"excl\": "),
        "{lines:?}"
    );
}

#[test]
fn patterns_of_the_command_line_are_recorded_in_the_archive() {
    let source = tempfile::tempdir().unwrap();
    make(
        source.path(),
        &["a.tmp", "d/b.tmp", "d/keep.tmp", "z", ".pxarexclude-cli"],
    );
    let lines = Lines::default();
    let patterns = ["*.tmp", "!keep.tmp", "/none/"];
    assert_eq!(
        archived(source.path(), &patterns, &lines),
        [".pxarexclude-cli", "d", "d/keep.tmp", "z"]
    );
    assert_eq!(
        archived(source.path(), &[], &lines),
        ["a.tmp", "d", "d/b.tmp", "d/keep.tmp", "z"]
    );
    let exclude = patterns
        .iter()
        .map(|text| Pattern::parse(text, MatchType::Exclude).unwrap())
        .collect();
    let options = CreateOptions {
        exclude,
        ..CreateOptions::default()
    };
    let (_, archive, _) = unified(source.path(), &options, &lines);
    let accessor = Accessor::new(archive.as_slice()).unwrap();
    let root = accessor.directory(accessor.root()).unwrap();
    let last = root.children().unwrap().last().unwrap().unwrap();
    assert_eq!(last.entry.name, b".pxarexclude-cli");
    assert_eq!(last.entry.metadata.stat.mode, 0o100_600);
    let mut text = vec![0; 23];
    use backstop_format::read_at::ReadAt as _;
    accessor
        .content(&last)
        .unwrap()
        .read_exact_at(&mut text, 0)
        .unwrap();
    assert_eq!(text, b"*.tmp\n!keep.tmp\n/none/\n");
    let (metadata, _) = split(source.path(), &options, &lines);
    let accessor = Accessor::new(metadata).unwrap();
    assert!(accessor.lookup(b".pxarexclude-cli").unwrap().is_none());
    assert_eq!(
        accessor.prelude(),
        Some(&br#"{"exclude-patterns":"*.tmp\n!keep.tmp\n/none/\n"}"#[..])
    );
}

#[test]
fn patterns_for_directories_leave_files_of_that_name() {
    let source = tempfile::tempdir().unwrap();
    make(source.path(), &["cache/x", "d/cache", "e/cache/y"]);
    let lines = Lines::default();
    assert_eq!(
        archived(source.path(), &["cache/"], &lines),
        [".pxarexclude-cli", "d", "d/cache", "e"]
    );
    assert_eq!(
        archived(source.path(), &["**/y", "/cache"], &lines),
        [".pxarexclude-cli", "d", "d/cache", "e", "e/cache"]
    );
}
