#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Promises of the pipeline as a whole, against a recorder in place of a server.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use backstop_format::blob::DataBlob;
use backstop_format::chunker::Chunker;
use backstop_format::index::{DynamicIndexBuilder, FixedIndexBuilder};
use backstop_format::{CryptKey, CryptMode, Digest};
use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::chunk_stage::Stage;
use super::chunk_stream::{ChunkSink, chunk_stream};
use super::image::ImageSource;
use super::index_upload::{IndexTarget, UploadedIndex, upload_index};
use super::{pipeline, spawn};
use crate::archive::{PayloadSink as _, ReusedChunk};
use crate::error::{ClientError, Result};
use crate::workers::Workers;
use crate::writer::IndexKind;
use crate::writer::known_chunks::KnownChunks;

/// Records calls and checks that each is legal at its time.
#[derive(Default)]
struct Recorder {
    known: Arc<KnownChunks>,
    state: Mutex<Recorded>,
    fail_upload: Option<usize>,
    fail_append: bool,
}

#[derive(Default)]
struct Recorded {
    uploads: Vec<(Digest, u64, Bytes)>,
    /// What a server would accept in an append.
    answered: HashSet<Digest>,
    entries: Vec<(u64, Digest)>,
    appends_under_way: usize,
}

impl IndexTarget for Recorder {
    async fn upload(&self, digest: Digest, size: u64, blob: Bytes) -> Result<()> {
        let number = {
            let mut state = self.state.lock();
            state.uploads.push((digest, size, blob));
            state.uploads.len()
        };
        if self.fail_upload == Some(number) {
            return Err(ClientError::Invalid("upload refused".to_owned()));
        }
        // Answers come in another order than the uploads.
        for _ in 0..(digest.0[0] % 16) {
            tokio::task::yield_now().await;
        }
        self.state.lock().answered.insert(digest);
        Ok(())
    }

    async fn append(&self, entries: Vec<(u64, Digest)>) -> Result<()> {
        if self.fail_append {
            return Err(ClientError::Invalid("append refused".to_owned()));
        }
        {
            let mut state = self.state.lock();
            state.appends_under_way += 1;
            assert_eq!(
                state.appends_under_way, 1,
                "appends must not overtake each other"
            );
            for (_, digest) in &entries {
                assert!(
                    state.answered.contains(digest) || self.known.is_confirmed(digest),
                    "appended before its upload was answered"
                );
            }
            state.entries.extend(entries);
        }
        tokio::task::yield_now().await;
        self.state.lock().appends_under_way -= 1;
        Ok(())
    }

    fn known(&self) -> &KnownChunks {
        &self.known
    }
}

fn stage(recorder: &Recorder, key: Option<&Arc<CryptKey>>) -> Stage {
    let mode = if key.is_some() {
        CryptMode::Encrypt
    } else {
        CryptMode::None
    };
    Stage::new(
        Workers::start(3).unwrap(),
        mode,
        key,
        Arc::clone(&recorder.known),
    )
}

const AVERAGE: usize = 64 << 10;

/// Sends what `write` writes through the whole pipeline.
async fn send_stream(
    recorder: &Recorder,
    stage: &Stage,
    write: impl FnOnce(&mut ChunkSink) -> std::io::Result<()> + Send + 'static,
) -> Result<UploadedIndex> {
    let (feeder, prepared) = stage.feeder();
    let counters = feeder.counters();
    let (mut sink, chunker) = chunk_stream(feeder, AVERAGE)?;
    let source = spawn(move || {
        write(&mut sink)?;
        sink.finish()?;
        chunker.join()
    });
    let upload = upload_index(recorder, IndexKind::Dynamic, prepared, &counters);
    Ok(pipeline::join(stage, source, upload).await?.1)
}

fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        data.extend_from_slice(&(seed ^ (seed >> 29)).to_le_bytes());
    }
    data.truncate(length);
    data
}

/// Cuts with the plain chunker, the simplest way there is.
fn plain_cut(data: &[u8]) -> Vec<&[u8]> {
    let mut chunker = Chunker::new(AVERAGE);
    let (mut chunks, mut rest) = (Vec::new(), data);
    while let Some(length) = chunker.scan(rest) {
        let (chunk, after) = rest.split_at(length);
        chunks.push(chunk);
        rest = after;
    }
    if !rest.is_empty() {
        chunks.push(rest);
    }
    chunks
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Stretches of noise, zeros and repeated noise, and how they are written.
fn streams() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let stretch = (0u8..3, 1usize..400_000, 0u64..3);
    (proptest::collection::vec(stretch, 0..8), 1usize..300_000).prop_map(|(stretches, piece)| {
        let mut data = Vec::new();
        for (kind, length, seed) in stretches {
            match kind {
                0 => data.extend(noise(length, seed)),
                1 => data.resize(data.len() + length, 0),
                _ => data.extend(noise(1000, seed).iter().cycle().take(length)),
            }
        }
        (data, piece)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_stream_becomes_the_chunks_of_the_plain_chunker_in_order((data, piece) in streams(), encrypted: bool) {
        let key = encrypted.then(|| Arc::new(CryptKey::new([7; 32])));
        let recorder = Recorder::default();
        let stage = stage(&recorder, key.as_ref());
        let written = data.clone();
        let index = runtime().block_on(send_stream(&recorder, &stage, move |sink| {
            written.chunks(piece).try_for_each(|piece| sink.write_all(piece))
        })).unwrap();

        let digest = |chunk: &[u8]| key.as_ref().map_or_else(|| Digest::of(chunk), |key| key.chunk_digest(chunk));
        let state = recorder.state.into_inner();
        let mut offset = 0;
        let mut expected = Vec::new();
        let mut builder = DynamicIndexBuilder::new();
        for chunk in plain_cut(&data) {
            expected.push((offset, digest(chunk)));
            offset = builder.append(chunk.len() as u64, &digest(chunk)).unwrap();
        }
        prop_assert_eq!(&state.entries, &expected);
        prop_assert_eq!(index.size, data.len() as u64);
        prop_assert_eq!(index.chunks, expected.len() as u64);
        if !data.is_empty() {
            prop_assert_eq!(index.checksum, builder.finish().unwrap().1);
        }
        let uploads: HashMap<Digest, Bytes> =
            state.uploads.iter().map(|(digest, _, blob)| (*digest, blob.clone())).collect();
        prop_assert_eq!(uploads.len(), state.uploads.len(), "each chunk is uploaded once");
        for chunk in plain_cut(&data) {
            let blob = DataBlob::load(uploads[&digest(chunk)].to_vec()).unwrap();
            prop_assert_eq!(blob.is_encrypted(), encrypted);
            let plain = blob.decode_chunk(key.as_deref(), &digest(chunk), chunk.len() as u64).unwrap();
            prop_assert!(plain == chunk);
        }
    }
}

#[test]
fn known_chunks_are_appended_but_not_uploaded() {
    let data = noise(2 << 20, 1);
    let recorder = Recorder::default();
    recorder
        .known
        .register(plain_cut(&data).iter().map(|chunk| Digest::of(chunk)));
    let stage = stage(&recorder, None);
    let index = runtime()
        .block_on(send_stream(&recorder, &stage, move |sink| {
            sink.write_all(&data)
        }))
        .unwrap();
    assert_eq!((index.size, index.uploaded), (2 << 20, 0));
    assert!(recorder.state.into_inner().uploads.is_empty());
}

#[test]
fn two_streams_with_the_same_content_upload_it_once_and_both_end() {
    let data = noise(3 << 20, 5);
    let recorder = Recorder::default();
    let stage = stage(&recorder, None);
    let count = plain_cut(&data).len();
    let (first, second) = (data.clone(), data);
    let twin = Recorder {
        known: Arc::clone(&recorder.known),
        ..Recorder::default()
    };
    let (one, two) = runtime().block_on(async {
        tokio::join!(
            send_stream(&recorder, &stage, move |sink| sink.write_all(&first)),
            send_stream(&twin, &stage, move |sink| sink.write_all(&second)),
        )
    });
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.checksum, two.checksum);
    let (left, right) = (recorder.state.into_inner(), twin.state.into_inner());
    assert_eq!(left.uploads.len() + right.uploads.len(), count);
    assert_eq!(left.entries, right.entries);
}

#[test]
fn injected_chunks_stand_exactly_where_they_were_put() {
    let (before, after) = (noise(100_000, 1), noise(50_000, 2));
    let chunk = |number: u8, size: u64| ReusedChunk {
        digest: Digest([number; 32]),
        size,
        padding: 0,
    };
    let reused = [chunk(1, 1000), chunk(2, 2_000_000)];
    let recorder = Recorder::default();
    recorder
        .known
        .register(reused.iter().map(|chunk| chunk.digest));
    let stage = stage(&recorder, None);
    let (head, tail) = (before.clone(), after.clone());
    let index = runtime()
        .block_on(send_stream(&recorder, &stage, move |sink| {
            sink.write_all(&head)?;
            sink.inject(&reused)?;
            sink.write_all(&tail)
        }))
        .unwrap();
    let mut expected: Vec<(u64, Digest)> = Vec::new();
    let mut offset = 0;
    let mut add = |size: u64, digest: Digest| {
        expected.push((offset, digest));
        offset += size;
    };
    plain_cut(&before)
        .iter()
        .for_each(|chunk| add(chunk.len() as u64, Digest::of(chunk)));
    reused
        .iter()
        .for_each(|chunk| add(chunk.size, chunk.digest));
    plain_cut(&after)
        .iter()
        .for_each(|chunk| add(chunk.len() as u64, Digest::of(chunk)));
    assert_eq!(recorder.state.into_inner().entries, expected);
    assert_eq!(index.size, offset);
    assert_eq!((index.injected, index.injected_chunks), (2_001_000, 2));
}

#[test]
fn a_suggested_boundary_starts_a_chunk() {
    let data = noise(400_000, 3);
    let recorder = Recorder::default();
    let stage = stage(&recorder, None);
    let written = data.clone();
    runtime()
        .block_on(send_stream(&recorder, &stage, move |sink| {
            let (first, second) = written.split_at(100_000);
            sink.write_all(first)?;
            sink.suggest_boundary(100_000);
            sink.write_all(second)
        }))
        .unwrap();
    let offsets: Vec<u64> = recorder
        .state
        .into_inner()
        .entries
        .iter()
        .map(|entry| entry.0)
        .collect();
    assert!(offsets.contains(&100_000), "{offsets:?}");
    let plain: Vec<usize> = plain_cut(&data).iter().map(|chunk| chunk.len()).collect();
    assert_ne!(
        plain.len(),
        offsets.len(),
        "the plain chunker does not cut there: {plain:?}"
    );
}

/// A source that would go on for ever; only a failure elsewhere ends it.
fn endless(sink: &mut ChunkSink) -> std::io::Result<()> {
    let mut seed = 0;
    loop {
        seed += 1;
        sink.write_all(&noise(1 << 20, seed))?;
    }
}

#[test]
fn a_refused_upload_stops_the_source_and_is_the_reported_error() {
    let recorder = Recorder {
        fail_upload: Some(5),
        ..Recorder::default()
    };
    let stage = stage(&recorder, None);
    let error = runtime()
        .block_on(send_stream(&recorder, &stage, endless))
        .unwrap_err();
    assert_eq!(error.to_string(), "upload refused");
}

#[test]
fn a_refused_append_stops_the_source_and_is_the_reported_error() {
    let recorder = Recorder {
        fail_append: true,
        ..Recorder::default()
    };
    let stage = stage(&recorder, None);
    let error = runtime()
        .block_on(send_stream(&recorder, &stage, endless))
        .unwrap_err();
    assert_eq!(error.to_string(), "append refused");
}

#[test]
fn a_failing_source_fails_the_stream_with_its_own_error() {
    let recorder = Recorder::default();
    let stage = stage(&recorder, None);
    let error = runtime()
        .block_on(send_stream(&recorder, &stage, |sink| {
            sink.write_all(&noise(1 << 20, 1))?;
            Err(std::io::Error::other("the disk is broken"))
        }))
        .unwrap_err();
    assert_eq!(error.to_string(), "the disk is broken");
}

#[test]
fn a_stream_that_is_dropped_unfinished_is_never_complete() {
    let recorder = Recorder::default();
    let stage = stage(&recorder, None);
    let (feeder, _prepared) = stage.feeder();
    let (mut sink, chunker) = chunk_stream(feeder, AVERAGE).unwrap();
    sink.write_all(b"half a").unwrap();
    drop(sink);
    assert!(chunker.join().is_err());
}

async fn send_image(
    recorder: &Recorder,
    stage: &Stage,
    source: ImageSource,
    chunk_size: usize,
) -> Result<UploadedIndex> {
    let (mut feeder, prepared) = stage.feeder();
    let counters = feeder.counters();
    let source = spawn(move || source.feed(&mut feeder, chunk_size));
    let upload = upload_index(recorder, IndexKind::Fixed, prepared, &counters);
    Ok(pipeline::join(stage, source, upload).await?.1)
}

/// 64 KiB chunks: data, two holes, data, hole, short data at the end.
fn sparse_image(path: &std::path::Path) -> Vec<u8> {
    let file = std::fs::File::create(path).unwrap();
    file.write_all_at(&noise(65536, 1), 0).unwrap();
    file.write_all_at(&noise(65536, 2), 3 * 65536).unwrap();
    file.write_all_at(&noise(700, 3), 5 * 65536).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn a_sparse_image_gets_the_index_of_its_full_content() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    let content = sparse_image(&path);
    let recorder = Recorder::default();
    let stage = stage(&recorder, None);
    let source = ImageSource::open(&path).unwrap();
    assert_eq!(source.size(), Some(content.len() as u64));
    let index = runtime()
        .block_on(send_image(&recorder, &stage, source, 65536))
        .unwrap();

    let mut builder = FixedIndexBuilder::new(Some(content.len() as u64), 65536).unwrap();
    for (number, chunk) in content.chunks(65536).enumerate() {
        builder
            .add(
                number as u64 * 65536,
                chunk.len() as u64,
                &Digest::of(chunk),
            )
            .unwrap();
    }
    let (_, checksum, size) = builder.finish().unwrap();
    assert_eq!(
        (index.checksum, index.size, index.chunks),
        (checksum, size, 6)
    );
    assert_eq!(
        recorder.state.into_inner().uploads.len(),
        4,
        "three of data, one of zeros"
    );
}

#[test]
fn a_pipe_gives_the_same_chunks_as_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, pipe) = (dir.path().join("disk.raw"), dir.path().join("pipe"));
    let content = sparse_image(&file);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let writer = std::thread::spawn({
        let (pipe, content) = (pipe.clone(), content.clone());
        move || {
            std::fs::OpenOptions::new()
                .write(true)
                .open(pipe)
                .unwrap()
                .write_all(&content)
                .unwrap()
        }
    });
    let source = ImageSource::open(&pipe).unwrap();
    assert_eq!(source.size(), None);
    let recorder = Recorder::default();
    let stage = stage(&recorder, None);
    let index = runtime()
        .block_on(send_image(&recorder, &stage, source, 65536))
        .unwrap();
    writer.join().unwrap();
    assert_eq!((index.size, index.chunks), (content.len() as u64, 6));
    let digests: Vec<Digest> = recorder
        .state
        .into_inner()
        .entries
        .iter()
        .map(|entry| entry.1)
        .collect();
    assert_eq!(
        digests,
        content.chunks(65536).map(Digest::of).collect::<Vec<_>>()
    );
}

#[test]
fn an_image_that_shrinks_while_it_is_read_fails() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    sparse_image(&path);
    let source = ImageSource::open(&path).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(4 * 65536)
        .unwrap();
    let recorder = Recorder::default();
    let stage = stage(&recorder, None);
    let result = runtime().block_on(send_image(&recorder, &stage, source, 65536));
    let error = result.unwrap_err().to_string();
    assert!(error.contains("became shorter"), "{error}");
}

#[test]
fn empty_images_and_directories_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::write(&empty, b"").unwrap();
    assert!(
        ImageSource::open(&empty)
            .unwrap_err()
            .to_string()
            .contains("zero-sized")
    );
    assert!(ImageSource::open(dir.path()).is_err());
}
