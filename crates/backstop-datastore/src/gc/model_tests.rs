//! Garbage collection against a naive model of what it may remove.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use backstop_format::Digest;
use backstop_types::Tuning;
use proptest::prelude::*;

use super::*;
use crate::fixture::{Lines, TestStore, set_times, tuning};

const HOUR: i64 = 3600;

/// A chunk of the model.
#[derive(Debug, Clone)]
struct Chunk {
    /// Hours since its last use and since it was written.
    used: i64,
    written: i64,
    /// Snapshots (out of three) that name it.
    named_by: [bool; 3],
    /// Whether its file is there, and whether a corrupt copy is.
    present: bool,
    bad: bool,
}

fn chunk() -> impl Strategy<Value = Chunk> {
    (
        0..100i64,
        0..100i64,
        any::<[bool; 3]>(),
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(used, written, named_by, present, bad)| Chunk {
            used,
            written,
            named_by,
            present,
            bad,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn exactly_what_is_neither_named_nor_young_is_removed(
        chunks in prop::collection::vec(chunk(), 1..30),
        removed_snapshot in prop::option::of(0..3usize),
        cutoff_hours in 1..48u32,
        oldest_writer in prop::option::of(0..100i64),
    ) {
        let test = TestStore::empty();
        test.store.set_tuning(Tuning { gc_atime_cutoff_minutes: cutoff_hours * 60, ..tuning() }).unwrap();
        let now = clock::now();
        let contents: Vec<Vec<u8>> = (0..chunks.len()).map(|number| format!("chunk {number}").into_bytes()).collect();
        for snapshot in 0..3 {
            let named: Vec<&[u8]> = chunks.iter().zip(&contents)
                .filter(|(chunk, _)| chunk.named_by[snapshot])
                .map(|(_, content)| content.as_slice())
                .collect();
            if !named.is_empty() {
                test.backup(&format!("vm/{snapshot}/2024-01-01T00:00:00Z"), &named);
                if removed_snapshot == Some(snapshot) {
                    let snapshot = format!("vm/{snapshot}/2024-01-01T00:00:00Z").parse().unwrap();
                    test.store.remove_snapshot(&backstop_types::Namespace::root(), &snapshot, false).unwrap();
                }
            }
        }
        let age = |path: &std::path::Path, chunk: &Chunk| {
            set_times(path, now - chunk.used.min(chunk.written) * HOUR - 30);
        };
        for (chunk, content) in chunks.iter().zip(&contents) {
            let digest = test.insert(content);
            let path = test.store.chunks().chunk_path(&digest);
            if chunk.bad {
                test.store.chunks().mark_corrupt(&digest).unwrap();
                let mut bad = path.clone().into_os_string();
                bad.push(".0.bad");
                age(bad.as_ref(), chunk);
                if chunk.present {
                    test.insert(content);
                }
            }
            if chunk.present {
                age(&path, chunk);
            } else if !chunk.bad {
                std::fs::remove_file(&path).unwrap();
            }
        }
        let writer = oldest_writer.map(|hours| {
            let writer = test.store.hold_writer().unwrap();
            test.store.process_lock.backdate_writers(hours * HOUR);
            writer
        });
        let status = test.store.collect_garbage(None, &Lines::default()).unwrap();
        drop(writer);

        let mut removed = 0;
        for (chunk, content) in chunks.iter().zip(&contents) {
            let digest = Digest::of(content);
            let is_named = (0..3).any(|snapshot| chunk.named_by[snapshot] && removed_snapshot != Some(snapshot));
            // Half a minute off the full hours, so that no test depends on the second in which it runs.
            let age = chunk.used.min(chunk.written);
            let cutoff = i64::from(cutoff_hours);
            // A writer older than the cutoff moves it, with some minutes to spare.
            let is_young = age < cutoff || oldest_writer.is_some_and(|start| start > cutoff && age <= start);
            let path = test.store.chunks().chunk_path(&digest);
            let kept = is_named || is_young;
            assert_eq!(path.exists(), chunk.present && kept, "{chunk:?}");
            removed += u64::from(chunk.present && !kept);
            let mut bad = path.into_os_string();
            bad.push(".0.bad");
            // A corrupt copy is kept while there is nothing better.
            let bad_kept = is_young || (is_named && !chunk.present);
            assert_eq!(std::path::Path::new(&bad).exists(), chunk.bad && bad_kept, "{chunk:?}");
        }
        assert_eq!(status.removed_chunks, removed);
    }
}
