//! Unchanged files are taken over from the previous archive, and the new archive is still right.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{self, Cursor, Write};
use std::path::Path;
use std::sync::Arc;

use backstop_client::archive::*;
use backstop_format::Digest;
use backstop_format::index::{DynamicIndex, DynamicIndexBuilder};
use backstop_format::pxar::accessor::Accessor;
use backstop_format::pxar::decoder::{Decoder, Event};
use backstop_format::pxar::entry::{EntryKind, PayloadPlace};

use crate::support::*;

const CHUNK: usize = 16 << 10;

/// A payload sink with a chunk store; cuts where it is suggested, if that gives no tiny chunks.
struct Chunks<'a> {
    store: &'a mut HashMap<Digest, Vec<u8>>,
    current: Vec<u8>,
    index: DynamicIndexBuilder,
    suggested: BTreeSet<u64>,
    stream: Vec<u8>,
    injected: u64,
}

impl<'a> Chunks<'a> {
    fn new(store: &'a mut HashMap<Digest, Vec<u8>>) -> Self {
        Self {
            store,
            current: Vec::new(),
            index: DynamicIndexBuilder::new(),
            suggested: BTreeSet::new(),
            stream: Vec::new(),
            injected: 0,
        }
    }

    fn cut(&mut self) {
        if !self.current.is_empty() {
            let chunk = std::mem::take(&mut self.current);
            let digest = Digest::of(&chunk);
            self.index.append(chunk.len() as u64, &digest).unwrap();
            self.store.insert(digest, chunk);
        }
    }

    fn finish(mut self) -> (DynamicIndex, Vec<u8>) {
        self.cut();
        let (index, _, size) = self.index.finish().unwrap();
        assert_eq!(size, self.stream.len() as u64);
        (DynamicIndex::parse(index).unwrap(), self.stream)
    }
}

impl Write for Chunks<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        for &byte in data {
            let here = self.stream.len() as u64;
            let suggested = self.suggested.contains(&here) && self.current.len() >= CHUNK / 4;
            if suggested || self.current.len() >= CHUNK {
                self.cut();
            }
            self.current.push(byte);
            self.stream.push(byte);
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PayloadSink for Chunks<'_> {
    fn suggest_boundary(&mut self, offset: u64) {
        assert!(offset >= self.stream.len() as u64, "suggested too late");
        self.suggested.insert(offset);
    }

    fn inject(&mut self, chunks: &[ReusedChunk]) -> io::Result<()> {
        assert!(!chunks.is_empty() && chunks.len() <= 128);
        self.cut();
        for chunk in chunks {
            let data = &self.store[&chunk.digest];
            assert_eq!(data.len() as u64, chunk.size);
            assert!(chunk.padding <= chunk.size);
            self.index.append(chunk.size, &chunk.digest).unwrap();
            self.stream.extend_from_slice(data);
            self.injected += chunk.size;
        }
        Ok(())
    }
}

struct Archive {
    metadata: Vec<u8>,
    index: Arc<DynamicIndex>,
    stream: Vec<u8>,
    summary: CreateSummary,
}

impl Archive {
    fn create(
        source: &Path,
        store: &mut HashMap<Digest, Vec<u8>>,
        previous: Option<&Archive>,
        lines: &Lines,
    ) -> Self {
        let previous = previous.map(|previous| Previous {
            metadata: Arc::new(previous.metadata.clone()),
            payload_index: previous.index.clone(),
        });
        let sink = Chunks::new(store);
        let options = CreateOptions::default();
        let (summary, metadata, sink) =
            create_split(source, &options, Vec::new(), sink, previous, lines).unwrap();
        assert_eq!(sink.injected, summary.injected_bytes);
        let (index, stream) = sink.finish();
        Self {
            metadata,
            index: Arc::new(index),
            stream,
            summary,
        }
    }

    /// Extracts sequentially, without seeking, and through the accessor.
    fn check(&self, source: &Path) {
        let lines = Lines::default();
        let mut last = 0;
        let mut decoder = Decoder::new(self.metadata.as_slice());
        while let Some(event) = decoder.next_event().unwrap() {
            if let Event::Entry(entry) = event
                && let EntryKind::File {
                    place: PayloadPlace::Referenced(offset),
                    ..
                } = entry.kind
            {
                assert!(offset > last, "references do not increase");
                last = offset;
            }
        }
        let target = tempfile::tempdir().unwrap();
        let expected = describe(source);
        let one = target.path().join("one");
        let mut decoder = Decoder::split(self.metadata.as_slice(), self.stream.as_slice());
        extract(&mut decoder, &one, &ExtractOptions::default(), &lines).unwrap();
        assert!(describe(&one) == expected);
        let two = target.path().join("two");
        let accessor = Accessor::split(self.metadata.as_slice(), self.stream.as_slice()).unwrap();
        extract_path(&accessor, b"", &two, &ExtractOptions::default(), &lines).unwrap();
        assert!(describe(&two) == expected);
        assert_eq!(lines.take(), [""; 0]);
    }
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}

fn file_name(numbers: &mut Numbers) -> String {
    format!("d{}/f{:03}", numbers.below(3), numbers.below(60))
}

fn fill(source: &Path, numbers: &mut Numbers) {
    for directory in 0..3 {
        fs::create_dir(source.join(format!("d{directory}"))).unwrap();
    }
    for _ in 0..120 {
        let size = if numbers.below(10) == 0 {
            numbers.below(60_000)
        } else {
            numbers.below(3000)
        };
        fs::write(source.join(file_name(numbers)), numbers.bytes(size)).unwrap();
    }
    fs::write(source.join("d1/empty"), b"").unwrap();
    std::os::unix::fs::symlink("f000", source.join("d1/link")).unwrap();
}

#[test]
fn an_unchanged_tree_is_taken_over_completely() {
    let source = tempfile::tempdir().unwrap();
    fill(source.path(), &mut Numbers(1));
    let (mut store, lines) = (HashMap::new(), Lines::default());
    let first = Archive::create(source.path(), &mut store, None, &lines);
    assert_eq!(first.summary.reused_files, 0);
    let chunks = store.len();
    let mut previous = first;
    for _ in 0..3 {
        let next = Archive::create(source.path(), &mut store, Some(&previous), &lines);
        assert_eq!(next.summary.encoded_files, 0);
        assert_eq!(next.summary.reused_files, next.summary.files);
        assert_eq!(
            next.summary.injected_bytes,
            next.summary.reused_bytes + next.summary.padding_bytes
        );
        next.check(source.path());
        previous = next;
    }
    // Each time a new first and last marker; nothing else.
    assert!(store.len() <= chunks + 2, "{} {chunks}", store.len());
    assert_eq!(lines.take(), [""; 0]);
}

#[test]
fn trees_that_change_again_and_again_are_archived_right() {
    for seed in 0..3 {
        let source = tempfile::tempdir().unwrap();
        let mut numbers = Numbers(seed);
        fill(source.path(), &mut numbers);
        let (mut store, lines) = (HashMap::new(), Lines::default());
        let mut previous = Archive::create(source.path(), &mut store, None, &lines);
        let mut reused = 0;
        for generation in 0..8 {
            for _ in 0..numbers.below(6) {
                let path = source.path().join(file_name(&mut numbers));
                match numbers.below(5) {
                    0 => drop(fs::remove_file(&path)),
                    1 => {
                        let other = source.path().join(file_name(&mut numbers));
                        drop(fs::rename(&path, other));
                    }
                    2 => {
                        let other = source.path().join(file_name(&mut numbers));
                        drop(fs::hard_link(&path, other));
                    }
                    3 if path.exists() => set_mtime(&path, generation, 0),
                    _ => {
                        let size = numbers.below(4000);
                        let content = numbers.bytes(size);
                        fs::remove_file(&path).ok();
                        fs::write(&path, content).unwrap();
                        set_mtime(&path, 1000 + generation, numbers.below(1000) as i64);
                    }
                }
            }
            let next = Archive::create(source.path(), &mut store, Some(&previous), &lines);
            next.check(source.path());
            let summary = &next.summary;
            assert_eq!(summary.files, summary.reused_files + summary.encoded_files);
            reused += summary.reused_files;
            previous = next;
        }
        assert!(reused > 100, "{reused}");
        assert_eq!(lines.take(), [""; 0]);
    }
}

#[test]
fn a_damaged_previous_archive_is_not_used() {
    let source = tempfile::tempdir().unwrap();
    fill(source.path(), &mut Numbers(2));
    let (mut store, lines) = (HashMap::new(), Lines::default());
    let good = Archive::create(source.path(), &mut store, None, &lines);
    for cut in [0, 10, 100, good.metadata.len() / 2, good.metadata.len() - 1] {
        let metadata = good.metadata[..cut].to_vec();
        let (index, stream) = (good.index.clone(), good.stream.clone());
        let damaged = Archive {
            metadata,
            index,
            stream,
            summary: good.summary,
        };
        let next = Archive::create(source.path(), &mut store, Some(&damaged), &lines);
        assert_eq!(next.summary.reused_files, 0);
        assert!(lines.take()[0].starts_with("previous archive cannot be read"));
        next.check(source.path());
    }
    let mut metadata = good.metadata.clone();
    let middle = metadata.len() / 3;
    metadata[middle..middle + 400].fill(0xff);
    let damaged = Archive {
        metadata,
        index: good.index.clone(),
        stream: Vec::new(),
        summary: good.summary,
    };
    let next = Archive::create(source.path(), &mut store, Some(&damaged), &lines);
    assert!(next.summary.encoded_files > 0);
    assert_eq!(lines.take().len(), 1);
    next.check(source.path());
}

#[test]
fn a_seekable_payload_is_read_only_where_it_is_needed() {
    let source = tempfile::tempdir().unwrap();
    fill(source.path(), &mut Numbers(3));
    let (mut store, lines) = (HashMap::new(), Lines::default());
    let archive = Archive::create(source.path(), &mut store, None, &lines);
    let target = source.path().with_extension("target");
    let patterns = vec![Pattern::parse("d2", MatchType::Include).unwrap()];
    let options = ExtractOptions {
        patterns,
        only_matching: true,
        ..ExtractOptions::default()
    };
    let mut decoder =
        Decoder::split_seekable(archive.metadata.as_slice(), Cursor::new(&archive.stream));
    extract(&mut decoder, &target, &options, &lines).unwrap();
    assert!(describe(&target.join("d2")) == describe(&source.path().join("d2")));
    fs::remove_dir_all(target).unwrap();
}

/// A previous metadata archive that runs `meddle` when its last entry is looked up.
struct MeddlingArchive {
    data: Vec<u8>,
    meddle: std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl backstop_format::read_at::ReadAt for MeddlingArchive {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let name = self
            .data
            .windows(4)
            .position(|window| window == b"f33\0")
            .unwrap() as u64;
        if offset == name - 16
            && let Some(meddle) = self.meddle.lock().unwrap().take()
        {
            meddle();
        }
        self.data.read_at(buf, offset)
    }

    fn size(&self) -> u64 {
        self.data.len() as u64
    }
}

#[test]
fn files_that_change_or_vanish_while_they_are_held_back_are_found_anew() {
    let source = tempfile::tempdir().unwrap();
    // Not worth taking over: each file shares its chunk with bigger ones that go.
    for i in 0..40 {
        fs::write(source.path().join(format!("f{i:02}")), vec![i; 2000]).unwrap();
    }
    let (mut store, lines) = (HashMap::new(), Lines::default());
    let first = Archive::create(source.path(), &mut store, None, &lines);
    for i in (0..40).filter(|i| i % 8 > 1) {
        fs::remove_file(source.path().join(format!("f{i:02}"))).unwrap();
    }
    set_mtime(source.path(), 1_000_000_000, 0);
    let path = source.path().to_owned();
    let meddle = move || {
        fs::remove_file(path.join("f32")).unwrap();
        fs::remove_file(path.join("f33")).unwrap();
        fs::write(path.join("f33"), b"another file").unwrap();
        set_mtime(&path, 1_000_000_000, 0);
    };
    let metadata = MeddlingArchive {
        data: first.metadata.clone(),
        meddle: std::sync::Mutex::new(Some(Box::new(meddle))),
    };
    let previous = Previous {
        metadata: Arc::new(metadata),
        payload_index: first.index.clone(),
    };
    let sink = Chunks::new(&mut store);
    let (summary, metadata, sink) = create_split(
        source.path(),
        &CreateOptions::default(),
        Vec::new(),
        sink,
        Some(previous),
        &lines,
    )
    .unwrap();
    let (index, stream) = sink.finish();
    let next = Archive {
        metadata,
        index: Arc::new(index),
        stream,
        summary,
    };
    next.check(source.path());
    assert_eq!(
        lines.take(),
        ["warning: file vanished while reading: \"f32\""]
    );
}
