//! Archives whose bytes are laid down in `docs/formats/pxar.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};

use backstop_format::Digest;
use backstop_format::pxar::accessor::Accessor;
use backstop_format::pxar::decoder::{Decoder, Event};
use backstop_format::pxar::encoder::Encoder;
use backstop_format::pxar::entry::{
    Acl, AclEntry, Device, EntryKind, Metadata, PayloadPlace, Timestamp, Xattr,
};
use backstop_format::pxar::{PxarError, exclude_patterns_to_prelude};
use backstop_format::read_at::ReadAt;

const T0: Timestamp = Timestamp::from_seconds(1_700_000_000);

fn after(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(T0.seconds + seconds)
}

fn add_file<W: Write, P: Write>(
    encoder: &mut Encoder<W, P>,
    metadata: &Metadata,
    name: &[u8],
    data: &[u8],
) -> backstop_format::pxar::encoder::LinkOffset {
    let mut file = encoder
        .create_file(metadata, name, data.len() as u64)
        .unwrap();
    file.write_all(data).unwrap();
    file.finish().unwrap()
}

fn simple<W: Write, P: Write>(mut encoder: Encoder<W, P>) -> (W, Option<P>) {
    add_file(&mut encoder, &Metadata::new(0o100_644, T0), b"f", b"hi");
    encoder.finish().unwrap()
}

fn conformance_tree<W: Write, P: Write>(mut encoder: Encoder<W, P>) -> (W, Option<P>) {
    let mtime = Timestamp {
        seconds: 1_700_000_001,
        nanos: 500,
    };
    let mut metadata = Metadata::new(0o100_644, mtime);
    (metadata.stat.uid, metadata.stat.gid) = (1000, 1000);
    let link = add_file(&mut encoder, &metadata, b"a.txt", b"hello\n");
    encoder.add_hardlink(b"b", b"a.txt", link).unwrap();
    encoder
        .create_directory(&Metadata::new(0o040_755, after(2)), b"dir")
        .unwrap();
    let before_epoch = Timestamp {
        seconds: -1,
        nanos: 999_999_999,
    };
    encoder
        .add_symlink(&Metadata::new(0o120_777, before_epoch), b"ln", b"../a.txt")
        .unwrap();
    let mut metadata = Metadata::new(0o100_600, Timestamp::default());
    metadata.xattrs.push(Xattr {
        name: b"user.k".to_vec(),
        value: b"v".to_vec(),
    });
    metadata.acl.users.push(AclEntry {
        id: 33,
        permissions: 6,
    });
    metadata.acl.group_obj = Some(4);
    add_file(&mut encoder, &metadata, b"x", b"xyz");
    encoder.finish_directory().unwrap();
    encoder
        .add_special(&Metadata::new(0o010_600, after(3)), b"pipe")
        .unwrap();
    let tty = Device { major: 5, minor: 1 };
    encoder
        .add_device(&Metadata::new(0o020_666, after(4)), b"tty", tty)
        .unwrap();
    encoder.finish().unwrap()
}

fn root() -> Metadata {
    Metadata::new(0o040_755, T0)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn version_1() -> Vec<u8> {
    conformance_tree(Encoder::new(Vec::new(), &root()).unwrap()).0
}

fn version_2() -> (Vec<u8>, Vec<u8>) {
    let prelude = exclude_patterns_to_prelude("*.tmp\n");
    let encoder = Encoder::split(Vec::new(), Vec::new(), &root(), Some(&prelude)).unwrap();
    let (archive, payload) = conformance_tree(encoder);
    (archive, payload.unwrap())
}

#[test]
fn a_small_archive_has_the_documented_bytes() {
    let (archive, _) = simple(Encoder::new(Vec::new(), &root()).unwrap());
    let expected = hex(
        "efac88e5746495d53800000000000000 ed410000000000000000000000000000
         000000000000000000f1536500000000 0000000000000000b317390621117016
         12000000000000006600efac88e57464 95d53800000000000000a48100000000
         00000000000000000000000000000000 000000f1536500000000000000000000
         0000251a7c0b1b7a1428120000000000 000068691d73d542a64fec2f40000000
         000000004011d5e3a4ab76435c000000 000000005c0000000000000055153e75
         5bed5eef940000000000000040000000 00000000",
    );
    assert_eq!(archive, expected);
}

#[test]
fn a_small_split_archive_has_the_documented_bytes() {
    let (archive, payload) = simple(Encoder::split(Vec::new(), Vec::new(), &root(), None).unwrap());
    let expected = hex(
        "0da416df756c0f731800000000000000 0200000000000000efac88e5746495d5
         3800000000000000ed41000000000000 00000000000000000000000000000000
         00f15365000000000000000000000000 b3173906211170161200000000000000
         6600efac88e5746495d5380000000000 0000a481000000000000000000000000
         0000000000000000000000f153650000 000000000000000000007e97bac46b3d
         9d412000000000000000100000000000 000002000000000000001d73d542a64f
         ec2f40000000000000004011d5e3a4ab 76436a000000000000006c0000000000
         000055153e755bed5eefba0000000000 00004000000000000000",
    );
    assert_eq!(archive, expected);
    let expected = hex(
        "d24e4a19c2684c831000000000000000 251a7c0b1b7a14281200000000000000
         6869b5814c988bb7726c100000000000 0000",
    );
    assert_eq!(payload.unwrap(), expected);
}

#[test]
fn the_conformance_tree_has_the_documented_digests() {
    let check = |bytes: &[u8], size: usize, digest: &str| {
        assert_eq!(bytes.len(), size);
        assert_eq!(Digest::of(bytes).to_string(), digest);
    };
    check(
        &version_1(),
        986,
        "e3aa2e8ab58db966abcd8db758ce048e69ce9f2a5f230af3a384413fb8d71f64",
    );
    let (archive, payload) = version_2();
    check(
        &archive,
        1079,
        "6b67f59e9d6301a713c7a1cc48aa63334d666c74de7404ff57d0cbddd20f168a",
    );
    check(
        &payload,
        73,
        "63a544988ecb4ded92d38d59e129ae79a1253136adffd1fa05b328d38d95e0ef",
    );
}

fn check_tree<R: Read, P: Read>(mut decoder: Decoder<R, P>) {
    let mut lines = Vec::new();
    let mut contents = Vec::new();
    while let Some(event) = decoder.next_event().unwrap() {
        let Event::Entry(entry) = event else {
            lines.push("leave".to_owned());
            continue;
        };
        let name = String::from_utf8(entry.name).unwrap();
        if matches!(entry.kind, EntryKind::File { .. }) {
            decoder
                .content()
                .unwrap()
                .read_to_end(&mut contents)
                .unwrap();
        }
        if name == "x" {
            let acl = Acl {
                users: vec![AclEntry {
                    id: 33,
                    permissions: 6,
                }],
                group_obj: Some(4),
                ..Acl::default()
            };
            assert_eq!(entry.metadata.acl, acl);
            assert_eq!(entry.metadata.xattrs.len(), 1);
        }
        lines.push(format!(
            "{name} {:o} {}",
            entry.metadata.stat.mode,
            match entry.kind {
                EntryKind::Directory => "directory".to_owned(),
                EntryKind::File { size, .. } => format!("file {size}"),
                EntryKind::Symlink(target) => String::from_utf8(target).unwrap(),
                EntryKind::Hardlink { target, .. } => String::from_utf8(target).unwrap(),
                EntryKind::Device(device) => format!("{}:{}", device.major, device.minor),
                EntryKind::Fifo => "fifo".to_owned(),
                EntryKind::Socket => "socket".to_owned(),
            }
        ));
    }
    assert_eq!(
        lines,
        [
            " 40755 directory",
            "a.txt 100644 file 6",
            "b 0 a.txt",
            "dir 40755 directory",
            "ln 120777 ../a.txt",
            "x 100600 file 3",
            "leave",
            "pipe 10600 fifo",
            "tty 20666 5:1",
            "leave"
        ]
    );
    assert_eq!(contents, b"hello\nxyz");
}

#[test]
fn both_versions_decode_to_the_same_tree() {
    check_tree(Decoder::new(version_1().as_slice()));
    check_tree(Decoder::new(std::io::Cursor::new(version_1())).seek_over_contents());
    let (archive, payload) = version_2();
    check_tree(Decoder::split(archive.as_slice(), payload.as_slice()));
    check_tree(Decoder::split_seekable(
        archive.as_slice(),
        std::io::Cursor::new(payload),
    ));
}

#[test]
fn contents_that_are_not_asked_for_are_passed_over() {
    let (archive, payload) = version_2();
    for split in [false, true] {
        let v1 = version_1();
        let mut decoder = match split {
            false => Decoder::split(v1.as_slice(), payload.as_slice()),
            true => Decoder::split(archive.as_slice(), payload.as_slice()),
        };
        let mut found = Vec::new();
        while let Some(event) = decoder.next_event().unwrap() {
            if matches!(&event, Event::Entry(entry) if entry.name == b"x") {
                decoder.content().unwrap().read_to_end(&mut found).unwrap();
            }
        }
        assert_eq!(found, b"xyz");
    }
}

#[test]
fn the_accessor_finds_entries_and_follows_hard_links() {
    let (archive, payload) = version_2();
    let split = Accessor::split(archive, payload).unwrap();
    assert_eq!(
        split.prelude(),
        Some(&br#"{"exclude-patterns":"*.tmp\n"}"#[..])
    );
    let node = split.lookup(b"/dir/x").unwrap().unwrap();
    assert_eq!(
        node.entry.kind,
        EntryKind::File {
            size: 3,
            place: PayloadPlace::Referenced(38)
        }
    );
    let unified = Accessor::split(version_1(), Vec::new()).unwrap();
    for accessor in [&split, &unified] {
        assert!(accessor.lookup(b"/dir/y").unwrap().is_none());
        assert!(accessor.lookup(b"/a.txt/x").unwrap().is_none());
        let link = accessor.lookup(b"b").unwrap().unwrap();
        let file = accessor.follow_hardlink(link).unwrap();
        assert_eq!(file.entry.name, b"a.txt");
        let content = accessor.content(&file).unwrap();
        assert_eq!(content.size(), 6);
        let mut bytes = [0; 4];
        content.read_exact_at(&mut bytes, 2).unwrap();
        assert_eq!(&bytes, b"llo\n");
        let root = accessor.directory(accessor.root()).unwrap();
        let names: Vec<_> = root
            .children()
            .unwrap()
            .map(|node| node.unwrap().entry.name)
            .collect();
        assert_eq!(names, [&b"a.txt"[..], b"b", b"dir", b"pipe", b"tty"]);
        let names: Vec<_> = root
            .children_in_table_order()
            .map(|node| node.unwrap().entry.name)
            .collect();
        assert_eq!(names, [&b"tty"[..], b"b", b"a.txt", b"dir", b"pipe"]);
    }
}

#[test]
fn every_cut_of_an_archive_is_noticed() {
    let whole = version_1();
    for length in 0..whole.len() {
        let mut decoder = Decoder::new(&whole[..length]);
        let result = loop {
            match decoder.next_event() {
                Ok(Some(Event::Entry(entry))) => {
                    if matches!(entry.kind, EntryKind::File { .. })
                        && let Err(err) = decoder.content().unwrap().read_to_end(&mut Vec::new())
                    {
                        break Err(PxarError::Io {
                            action: "",
                            position: 0,
                            source: err,
                        });
                    }
                }
                Ok(Some(Event::Leave)) => {}
                Ok(None) => break Ok(()),
                Err(err) => break Err(err),
            }
        };
        assert!(result.is_err(), "cut at {length}");
        assert!(decoder.next_event().is_err() || length < whole.len());
    }
}

#[test]
fn a_payload_stream_of_another_archive_is_refused() {
    let (archive, mut payload) = version_2();
    payload[24] = 21;
    let mut decoder = Decoder::split(archive.as_slice(), payload.as_slice());
    decoder.next_event().unwrap();
    decoder.next_event().unwrap();
    assert!(matches!(
        decoder.content(),
        Err(PxarError::BadPayload { position: 16, .. })
    ));
    let accessor = Accessor::split(archive.as_slice(), payload.as_slice()).unwrap();
    let node = accessor.lookup(b"a.txt").unwrap().unwrap();
    assert!(matches!(
        accessor.content(&node),
        Err(PxarError::BadPayload { position: 16, .. })
    ));
    let mut decoder = Decoder::new(archive.as_slice());
    decoder.next_event().unwrap();
    decoder.next_event().unwrap();
    assert!(matches!(decoder.content(), Err(PxarError::NoPayload)));
}

#[test]
fn the_encoder_refuses_what_the_format_cannot_hold() {
    let mut encoder = Encoder::new(Vec::new(), &root()).unwrap();
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 4097]] {
        assert!(
            encoder
                .add_special(&Metadata::new(0o010_600, T0), name)
                .is_err()
        );
    }
    assert!(
        encoder
            .add_symlink(&Metadata::new(0o120_777, T0), b"l", b"a\0b")
            .is_err()
    );
    assert!(encoder.finish_directory().is_err());
    let mut file = encoder
        .create_file(&Metadata::new(0o100_644, T0), b"f", 3)
        .unwrap();
    assert!(file.write_all(b"four").is_err());
    file.write_all(b"ab").unwrap();
    assert!(file.finish().is_err());
    assert!(
        encoder
            .add_special(&Metadata::new(0o010_600, T0), b"p")
            .is_err()
    );
    assert!(encoder.finish().is_err());
}

#[test]
fn injected_payload_is_accounted_for_and_references_increase() {
    let mut encoder = Encoder::split(Vec::new(), Vec::new(), &root(), None).unwrap();
    let file = Metadata::new(0o100_644, T0);
    add_file(&mut encoder, &file, b"a", b"12");
    assert!(matches!(
        encoder.advance_payload(100),
        Err(PxarError::Usage(_))
    ));
    encoder.flush().unwrap();
    assert_eq!(encoder.payload_position(), Some(34));
    encoder.payload_sink().unwrap().extend([b'.'; 100]);
    encoder.advance_payload(100).unwrap();
    encoder.add_payload_ref(&file, b"b", 5, 50).unwrap();
    assert!(encoder.add_payload_ref(&file, b"c", 5, 50).is_err());
    add_file(&mut encoder, &file, b"d", b"34");
    let (archive, payload) = encoder.finish().unwrap();
    let payload = payload.unwrap();
    assert_eq!(payload.len(), 16 + 18 + 100 + 18 + 16);
    let mut decoder = Decoder::split(archive.as_slice(), payload.as_slice());
    let mut contents = Vec::new();
    while let Some(event) = decoder.next_event().unwrap() {
        if matches!(&event, Event::Entry(entry) if matches!(entry.kind, EntryKind::File { .. }) && entry.name != b"b")
        {
            decoder
                .content()
                .unwrap()
                .read_to_end(&mut contents)
                .unwrap();
        }
    }
    assert_eq!(contents, b"1234");
}
