//! Archives made to do harm write nothing outside of the target.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use backstop_client::archive::*;
use backstop_format::pxar::decoder::Decoder;
use backstop_format::pxar::encoder::Encoder;
use backstop_format::pxar::entry::*;

use crate::support::*;

fn directory() -> Metadata {
    let mut metadata = Metadata::new(MODE_DIRECTORY | 0o755, Timestamp::default());
    metadata.stat.uid = rustix::process::geteuid().as_raw();
    metadata.stat.gid = rustix::process::getegid().as_raw();
    metadata
}

fn file() -> Metadata {
    Metadata {
        stat: Stat {
            mode: MODE_FILE | 0o644,
            ..directory().stat
        },
        ..directory()
    }
}

fn link() -> Metadata {
    Metadata {
        stat: Stat {
            mode: MODE_SYMLINK | 0o777,
            ..directory().stat
        },
        ..directory()
    }
}

type TestEncoder = Encoder<Vec<u8>>;

fn add_file(
    encoder: &mut TestEncoder,
    name: &[u8],
    data: &[u8],
) -> backstop_format::pxar::encoder::LinkOffset {
    let mut writer = encoder
        .create_file(&file(), name, data.len() as u64)
        .unwrap();
    writer.write_all(data).unwrap();
    writer.finish().unwrap()
}

fn archive(build: impl FnOnce(&mut TestEncoder)) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), &directory()).unwrap();
    build(&mut encoder);
    encoder.finish().unwrap().0
}

/// A place to extract to, with something to be protected beside it.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        fs::write(directory.path().join("outside/secret"), b"secret").unwrap();
        Self { directory }
    }

    fn target(&self) -> std::path::PathBuf {
        self.directory.path().join("target")
    }

    fn outside(&self) -> std::path::PathBuf {
        self.directory.path().join("outside")
    }

    /// Extracts with the most permissive options.
    fn extract(&self, archive: &[u8], lines: &Lines) -> Result<ExtractSummary> {
        let options = ExtractOptions {
            allow_existing_dirs: true,
            keep_going: true,
            ..ExtractOptions::default()
        };
        extract(
            &mut Decoder::new(archive),
            &self.target(),
            &options.overwrite(),
            lines,
        )
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let names: Vec<_> = names(&self.outside());
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read(self.outside().join("secret")).unwrap(), b"secret");
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(
            fs::metadata(self.outside().join("secret")).unwrap().nlink(),
            1
        );
        assert_eq!(names_of(self.directory.path()), ["outside", "target"]);
    }
}

fn names(path: &Path) -> Vec<String> {
    names_of(path)
}

fn names_of(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn nothing_is_written_through_symbolic_links_of_the_archive() {
    let place = Place::new();
    let bytes = archive(|encoder| {
        encoder.add_symlink(&link(), b"d", b"../outside").unwrap();
        encoder.create_directory(&directory(), b"d").unwrap();
        add_file(encoder, b"planted", b"x");
        add_file(encoder, b"secret", b"overwritten");
        encoder.finish_directory().unwrap();
        encoder
            .add_symlink(&link(), b"f", b"../outside/secret")
            .unwrap();
        add_file(encoder, b"f", b"overwritten");
    });
    let lines = Lines::default();
    assert!(matches!(
        place.extract(&bytes, &lines),
        Err(ArchiveError::SomeFailed)
    ));
    place.assert_untouched();
    assert_eq!(names(&place.target()), ["d", "f"]);
}

#[test]
fn nothing_is_written_through_symbolic_links_that_were_there_before() {
    let place = Place::new();
    fs::create_dir(place.target()).unwrap();
    symlink("../outside", place.target().join("d")).unwrap();
    symlink("../outside/secret", place.target().join("f")).unwrap();
    let bytes = archive(|encoder| {
        encoder.create_directory(&directory(), b"d").unwrap();
        add_file(encoder, b"planted", b"x");
        encoder.finish_directory().unwrap();
        add_file(encoder, b"f", b"overwritten");
    });
    assert!(place.extract(&bytes, &Lines::default()).is_err());
    place.assert_untouched();
}

#[test]
fn hard_links_lead_to_regular_files_below_the_target_only() {
    for target in [
        &b"../outside/secret"[..],
        b"/etc/passwd",
        b"d/../../outside/secret",
        b"./f",
        b"link",
        b"out/secret",
        b"d",
        b"missing",
        b"f/",
        b"//f",
    ] {
        let place = Place::new();
        let bytes = archive(|encoder| {
            let offset = add_file(encoder, b"f", b"x");
            encoder.create_directory(&directory(), b"d").unwrap();
            encoder.finish_directory().unwrap();
            encoder
                .add_symlink(&link(), b"link", b"../outside/secret")
                .unwrap();
            encoder.add_symlink(&link(), b"out", b"../outside").unwrap();
            encoder.add_hardlink(b"hard", target, offset).unwrap();
        });
        let text = String::from_utf8_lossy(target).into_owned();
        assert!(place.extract(&bytes, &Lines::default()).is_err(), "{text}");
        place.assert_untouched();
        assert_eq!(names(&place.target()), ["d", "f", "link", "out"], "{text}");
    }
}

#[test]
fn names_that_leave_their_directory_end_the_extraction() {
    for name in [
        &b"../outside/planted"[..],
        b"..",
        b".",
        b"a/b",
        b"/planted",
        b"",
        b"a\0b",
    ] {
        let place = Place::new();
        let bytes = archive(|encoder| {
            add_file(encoder, b"NAMENAMENAMENAMENA", b"x");
        });
        let mut name = name.to_vec();
        name.resize(18, b'\0');
        let at = bytes
            .windows(18)
            .position(|window| window == b"NAMENAMENAMENAMENA")
            .unwrap();
        let mut hostile = bytes.clone();
        hostile[at..at + 18].copy_from_slice(&name);
        assert!(matches!(
            place.extract(&hostile, &Lines::default()),
            Err(ArchiveError::Pxar(_))
        ));
        place.assert_untouched();
        assert_eq!(names(&place.target()), [""; 0]);
    }
}

#[test]
fn impossible_sizes_take_no_memory() {
    let place = Place::new();
    let bytes = archive(|encoder| {
        add_file(encoder, b"f", b"hello");
    });
    // The PAYLOAD item announces 4 EiB.
    let header = [
        &0x2814_7a1b_0b7c_1a25u64.to_le_bytes()[..],
        &21u64.to_le_bytes(),
    ]
    .concat();
    let at = bytes
        .windows(16)
        .position(|window| window == header)
        .unwrap();
    let mut hostile = bytes;
    hostile[at + 8..at + 16].copy_from_slice(&(1u64 << 62).to_le_bytes());
    assert!(place.extract(&hostile, &Lines::default()).is_err());
    place.assert_untouched();
}

#[test]
fn a_fifo_in_the_way_of_a_file_does_not_block() {
    let place = Place::new();
    fs::create_dir(place.target()).unwrap();
    make_node(&place.target().join("f"), rustix::fs::FileType::Fifo, 0);
    let bytes = archive(|encoder| {
        add_file(encoder, b"f", b"x");
    });
    assert!(place.extract(&bytes, &Lines::default()).is_err());
}

#[test]
fn extended_attributes_of_other_kinds_are_not_set() {
    let place = Place::new();
    let mut metadata = file();
    for name in [
        "security.selinux",
        "system.posix_acl_access",
        "security.ima",
        "user.fine",
    ] {
        metadata.xattrs.push(Xattr {
            name: name.into(),
            value: b"x".to_vec(),
        });
    }
    let bytes = archive(|encoder| {
        encoder
            .create_file(&metadata, b"f", 0)
            .unwrap()
            .finish()
            .unwrap();
    });
    let lines = Lines::default();
    place.extract(&bytes, &lines).unwrap();
    assert_eq!(lines.take().len(), 3);
    let found = describe(&place.target());
    assert_eq!(
        found[&b"f"[..]].xattrs.keys().collect::<Vec<_>>(),
        [b"user.fine"]
    );
}

#[test]
fn an_error_ends_the_extraction_unless_asked_to_go_on() {
    let place = Place::new();
    let bytes = archive(|encoder| {
        let offset = add_file(encoder, b"f", b"x");
        encoder.add_hardlink(b"hard", b"missing", offset).unwrap();
        add_file(encoder, b"last", b"x");
    });
    let result = extract(
        &mut Decoder::new(bytes.as_slice()),
        &place.target(),
        &ExtractOptions::default(),
        &Lines::default(),
    );
    assert!(matches!(
        result,
        Err(ArchiveError::File {
            action: "create hard link",
            ..
        })
    ));
    let lines = Lines::default();
    assert!(matches!(
        place.extract(&bytes, &lines),
        Err(ArchiveError::SomeFailed)
    ));
    assert_eq!(lines.take().len(), 1);
    assert_eq!(names(&place.target()), ["f", "last"]);
}
