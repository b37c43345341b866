//! Writers, chunks and indexes.

use backstop_format::index::{DynamicIndex, FixedIndex};

use super::*;

#[test]
fn writer_ids_count_from_one_over_both_kinds_and_are_never_reused() {
    let mut state = session();
    assert_eq!(state.create_dynamic("a.pxar.didx").unwrap(), 1);
    assert_eq!(state.create_fixed("b.img.fidx", Some(5)).unwrap(), 2);
    upload(&mut state, IndexKind::Fixed, 2, 1, 5);
    append(&mut state, IndexKind::Fixed, 2, &[(0, 1)]).unwrap();
    let index = close(
        &mut state,
        IndexKind::Fixed,
        2,
        &claim(1, 5, fixed_csum(&[1])),
    )
    .unwrap();
    state.index_stored(2, &index).unwrap();
    assert_eq!(state.create_dynamic("c.pxar.didx").unwrap(), 3);
    assert_eq!(
        state
            .check_upload(IndexKind::Fixed, 2, 5)
            .unwrap_err()
            .to_string(),
        "fixed writer '2' not registered"
    );
}

#[test]
fn a_session_creates_at_most_256_writers() {
    let mut state = session();
    for number in 1..=256 {
        assert_eq!(
            state.create_dynamic(&format!("a{number}.didx")).unwrap(),
            number
        );
    }
    assert!(state.create_dynamic("one-more.didx").is_err());
}

#[test]
fn a_writer_of_the_other_kind_is_not_registered() {
    let mut state = session();
    let wid = state.create_dynamic("a.pxar.didx").unwrap();
    let err = state.check_upload(IndexKind::Fixed, wid, 5).unwrap_err();
    assert_eq!(err.to_string(), "fixed writer '1' not registered");
}

#[test]
fn archive_names_need_the_extension_of_their_kind() {
    let mut state = session();
    assert_eq!(
        state.create_dynamic("a.fidx").unwrap_err().to_string(),
        "wrong archive extension: 'a.fidx'"
    );
    assert_eq!(
        state.create_fixed("a.didx", None).unwrap_err().to_string(),
        "wrong archive extension: 'a.didx'"
    );
    assert_eq!(
        state.check_blob("a.didx").unwrap_err().to_string(),
        "wrong blob file extension: 'a.didx'"
    );
    assert!(state.check_blob("a.blob").is_ok());
}

#[test]
fn two_open_writers_never_share_an_archive() {
    let mut state = session();
    state.create_dynamic("a.didx").unwrap();
    assert!(state.create_dynamic("a.didx").is_err());
}

#[test]
fn an_index_takes_only_chunks_known_to_the_session() {
    let mut state = session();
    let wid = state.create_dynamic("a.didx").unwrap();
    upload(&mut state, IndexKind::Dynamic, wid, 1, 10);
    let err = append(&mut state, IndexKind::Dynamic, wid, &[(0, 1), (10, 2)]).unwrap_err();
    assert_eq!(err.to_string(), format!("no such chunk {}", digest(2)));
    // the entry before the unknown one stays appended
    let index = close(
        &mut state,
        IndexKind::Dynamic,
        wid,
        &claim(1, 10, dynamic_csum(&[(10, 1)])),
    )
    .unwrap();
    assert!(DynamicIndex::parse(index.bytes).is_ok());
}

#[test]
fn a_chunk_uploaded_through_one_writer_may_be_appended_by_another() {
    let mut state = session();
    let first = state.create_dynamic("a.didx").unwrap();
    let second = state.create_dynamic("b.didx").unwrap();
    upload(&mut state, IndexKind::Dynamic, first, 1, 10);
    append(&mut state, IndexKind::Dynamic, second, &[(0, 1)]).unwrap();
}

#[test]
fn digest_and_offset_lists_must_be_of_one_length() {
    let mut state = session();
    let wid = state.create_dynamic("a.didx").unwrap();
    let err = state
        .append(IndexKind::Dynamic, wid, &[digest(1)], &[], |_| ())
        .unwrap_err();
    assert_eq!(err.to_string(), "offset list has wrong length (0 != 1)");
}

#[test]
fn a_dynamic_index_is_written_without_gaps() {
    let mut state = session();
    let wid = state.create_dynamic("a.didx").unwrap();
    upload(&mut state, IndexKind::Dynamic, wid, 1, 10);
    append(&mut state, IndexKind::Dynamic, wid, &[(0, 1)]).unwrap();
    let err = append(&mut state, IndexKind::Dynamic, wid, &[(11, 1)]).unwrap_err();
    assert_eq!(
        err.to_string(),
        "dynamic writer 'a.didx' append chunk failed - got strange chunk offset (10 != 11)"
    );
}

#[test]
fn closing_a_dynamic_index_compares_count_size_and_checksum() {
    let good = claim(1, 10, dynamic_csum(&[(10, 1)]));
    let cases = [
        (
            CloseClaim {
                chunk_count: 2,
                ..good
            },
            "dynamic writer 'a.didx' close failed - unexpected chunk count (1 != 2)",
        ),
        (
            CloseClaim { size: 11, ..good },
            "dynamic writer 'a.didx' close failed - unexpected file size (10 != 11)",
        ),
        (
            CloseClaim {
                csum: digest(9),
                ..good
            },
            "dynamic writer 'a.didx' close failed - got unexpected checksum",
        ),
    ];
    for (bad, text) in cases {
        let mut state = session();
        let wid = state.create_dynamic("a.didx").unwrap();
        upload(&mut state, IndexKind::Dynamic, wid, 1, 10);
        append(&mut state, IndexKind::Dynamic, wid, &[(0, 1)]).unwrap();
        assert_eq!(
            close(&mut state, IndexKind::Dynamic, wid, &bad)
                .unwrap_err()
                .to_string(),
            text
        );
        // the writer is unusable and the session cannot be finished
        assert_eq!(
            close(&mut state, IndexKind::Dynamic, wid, &good)
                .unwrap_err()
                .to_string(),
            "dynamic writer 'a.didx' close failed - already closed"
        );
        assert_eq!(
            append(&mut state, IndexKind::Dynamic, wid, &[(10, 1)])
                .unwrap_err()
                .to_string(),
            "dynamic writer 'a.didx' append chunk failed - already closed"
        );
        assert_eq!(
            state.begin_finish(|| Ok(())).unwrap_err().to_string(),
            "found open index writer - unable to finish backup"
        );
    }
}

#[test]
fn a_fixed_index_takes_its_slots_in_any_order() {
    let mut state = session();
    let wid = state
        .create_fixed("d.img.fidx", Some(2 * MIB4 + 7))
        .unwrap();
    upload(&mut state, IndexKind::Fixed, wid, 1, MIB4);
    upload(&mut state, IndexKind::Fixed, wid, 2, 7);
    append(
        &mut state,
        IndexKind::Fixed,
        wid,
        &[(2 * MIB4, 2), (MIB4, 1), (0, 1)],
    )
    .unwrap();
    let size = 2 * MIB4 + 7;
    let index = close(
        &mut state,
        IndexKind::Fixed,
        wid,
        &claim(3, size, fixed_csum(&[1, 1, 2])),
    )
    .unwrap();
    assert_eq!(index.size, size);
    assert!(FixedIndex::parse(index.bytes).is_ok());
}

#[test]
fn a_fixed_index_refuses_chunks_that_do_not_fit() {
    let mut state = session();
    let wid = state.create_fixed("d.img.fidx", Some(2 * MIB4)).unwrap();
    upload(&mut state, IndexKind::Fixed, wid, 1, MIB4);
    upload(&mut state, IndexKind::Fixed, wid, 2, 7);
    for entry in [(1, 1), (2 * MIB4, 1), (0, 2), (MIB4, 2), (u64::MAX, 1)] {
        assert!(
            append(&mut state, IndexKind::Fixed, wid, &[entry]).is_err(),
            "{entry:?}"
        );
    }
    append(&mut state, IndexKind::Fixed, wid, &[(2 * MIB4 - 7, 2)]).unwrap_err();
}

#[test]
fn a_fixed_writer_refuses_large_chunks_and_a_second_short_one() {
    let mut state = session();
    let wid = state.create_fixed("d.img.fidx", Some(2 * MIB4)).unwrap();
    assert_eq!(
        state
            .check_upload(IndexKind::Fixed, wid, MIB4 + 1)
            .unwrap_err()
            .to_string(),
        "fixed writer 'd.img.fidx' - got large chunk (4194305 > 4194304)"
    );
    upload(&mut state, IndexKind::Fixed, wid, 1, 5);
    assert_eq!(
        state
            .register_upload(IndexKind::Fixed, wid, &chunk(2, 6))
            .unwrap_err()
            .to_string(),
        "fixed writer 'd.img.fidx' - detected multiple end chunks (chunk size too small)"
    );
}

#[test]
fn closing_a_fixed_index_compares_count_slots_size_and_checksum() {
    let good = claim(2, 2 * MIB4, fixed_csum(&[1, 1]));
    let both: &[(u64, u8)] = &[(0, 1), (MIB4, 1)];
    type Case<'a> = (&'a [(u64, u8)], CloseClaim, &'a str);
    let cases: [Case<'_>; 4] = [
        (
            both,
            CloseClaim {
                chunk_count: 3,
                ..good
            },
            "fixed writer 'd.fidx' close failed - received wrong number of chunk (2 != 3)",
        ),
        (
            &[(0, 1)],
            CloseClaim {
                chunk_count: 1,
                ..good
            },
            "fixed writer 'd.fidx' close failed - unexpected chunk count (2 != 1)",
        ),
        (
            both,
            CloseClaim { size: 5, ..good },
            "fixed writer 'd.fidx' close failed - unexpected file size (8388608 != 5)",
        ),
        (
            both,
            CloseClaim {
                csum: digest(9),
                ..good
            },
            "fixed writer 'd.fidx' close failed - got unexpected checksum",
        ),
    ];
    for (entries, bad, text) in cases {
        let mut state = session();
        let wid = state.create_fixed("d.fidx", Some(2 * MIB4)).unwrap();
        upload(&mut state, IndexKind::Fixed, wid, 1, MIB4);
        append(&mut state, IndexKind::Fixed, wid, entries).unwrap();
        assert_eq!(
            close(&mut state, IndexKind::Fixed, wid, &bad)
                .unwrap_err()
                .to_string(),
            text
        );
    }
}

#[test]
fn a_fixed_index_with_a_hole_is_refused_even_if_the_counts_agree() {
    let mut state = session();
    let wid = state.create_fixed("d.fidx", Some(2 * MIB4)).unwrap();
    upload(&mut state, IndexKind::Fixed, wid, 1, MIB4);
    append(&mut state, IndexKind::Fixed, wid, &[(0, 1), (0, 1)]).unwrap();
    let mut hole = [0u8; 64];
    hole[..32].fill(1);
    assert!(
        close(
            &mut state,
            IndexKind::Fixed,
            wid,
            &claim(2, 2 * MIB4, Digest::of(&hole))
        )
        .is_err()
    );
}

#[test]
fn an_index_of_unknown_size_grows_until_a_short_chunk_ends_it() {
    let mut state = session();
    let wid = state.create_fixed("pipe.img.fidx", None).unwrap();
    upload(&mut state, IndexKind::Fixed, wid, 1, MIB4);
    upload(&mut state, IndexKind::Fixed, wid, 2, 9);
    for slot in 0..300 {
        append(&mut state, IndexKind::Fixed, wid, &[(slot * MIB4, 1)]).unwrap();
    }
    append(&mut state, IndexKind::Fixed, wid, &[(300 * MIB4, 2)]).unwrap();
    assert!(append(&mut state, IndexKind::Fixed, wid, &[(301 * MIB4, 1)]).is_err());
    let mut tags = vec![1; 300];
    tags.push(2);
    let size = 300 * MIB4 + 9;
    let index = close(
        &mut state,
        IndexKind::Fixed,
        wid,
        &claim(301, size, fixed_csum(&tags)),
    )
    .unwrap();
    assert_eq!(index.size, size);
}

#[test]
fn an_index_of_unknown_size_needs_a_chunk() {
    let mut state = session();
    let wid = state.create_fixed("pipe.img.fidx", None).unwrap();
    assert_eq!(
        close(
            &mut state,
            IndexKind::Fixed,
            wid,
            &claim(0, 0, fixed_csum(&[]))
        )
        .unwrap_err()
        .to_string(),
        "fidx file must have at least one chunk"
    );
}

#[test]
fn a_fixed_index_of_absurd_size_is_refused() {
    let mut state = session();
    assert!(state.create_fixed("d.fidx", Some(u64::MAX)).is_err());
    let wid = state.create_fixed("e.fidx", None).unwrap();
    upload(&mut state, IndexKind::Fixed, wid, 1, MIB4);
    assert!(append(&mut state, IndexKind::Fixed, wid, &[(MIB4 << 40, 1)]).is_err());
}

fn previous_index(tags: &[u8], size: u64) -> FixedIndex {
    let mut state = session();
    let wid = state.create_fixed("d.fidx", Some(size)).unwrap();
    let mut entries = Vec::new();
    for (slot, tag) in tags.iter().enumerate() {
        let offset = slot as u64 * MIB4;
        upload(
            &mut state,
            IndexKind::Fixed,
            wid,
            *tag,
            MIB4.min(size - offset),
        );
        entries.push((offset, *tag));
    }
    append(&mut state, IndexKind::Fixed, wid, &entries).unwrap();
    let claim = claim(tags.len() as u64, size, fixed_csum(tags));
    FixedIndex::parse(
        close(&mut state, IndexKind::Fixed, wid, &claim)
            .unwrap()
            .bytes,
    )
    .unwrap()
}

#[test]
fn an_incremental_index_keeps_the_slots_that_were_not_written() {
    let previous = previous_index(&[1, 2, 3], 3 * MIB4);
    let mut state = session();
    let wid = state
        .create_incremental("d.fidx", 3 * MIB4, &previous, &fixed_csum(&[1, 2, 3]))
        .unwrap();
    upload(&mut state, IndexKind::Fixed, wid, 9, MIB4);
    append(&mut state, IndexKind::Fixed, wid, &[(MIB4, 9)]).unwrap();
    // the size of an incremental close is whatever the client wrote, and is not compared
    let index = close(
        &mut state,
        IndexKind::Fixed,
        wid,
        &claim(1, MIB4, fixed_csum(&[1, 9, 3])),
    )
    .unwrap();
    assert_eq!(index.size, 3 * MIB4);
}

#[test]
fn the_chunks_of_a_reused_index_are_not_thereby_known() {
    let previous = previous_index(&[1, 2], 2 * MIB4);
    let mut state = session();
    let wid = state
        .create_incremental("d.fidx", 2 * MIB4, &previous, &fixed_csum(&[1, 2]))
        .unwrap();
    assert!(append(&mut state, IndexKind::Fixed, wid, &[(0, 2)]).is_err());
    state.register_previous(&previous, 0..9).unwrap();
    append(&mut state, IndexKind::Fixed, wid, &[(0, 2)]).unwrap();
}

#[test]
fn an_incremental_index_needs_the_remembered_checksum_and_as_many_chunks() {
    let previous = previous_index(&[1, 2], 2 * MIB4);
    let mut state = session();
    let (expected, found) = (digest(7), fixed_csum(&[1, 2]));
    assert_eq!(
        state
            .create_incremental("d.fidx", 2 * MIB4, &previous, &expected)
            .unwrap_err()
            .to_string(),
        format!(
            "expected csum ({expected}) doesn't match last backup's ({found}), cannot do incremental backup"
        )
    );
    assert_eq!(
        state
            .create_incremental("d.fidx", 3 * MIB4, &previous, &found)
            .unwrap_err()
            .to_string(),
        "cannot reuse index - index sizes not equal (2 != 3)"
    );
}

#[test]
fn chunks_of_the_previous_snapshot_count_with_their_size() {
    let previous = previous_index(&[1, 2], MIB4 + 5);
    let mut state = session();
    state.register_previous(&previous, 0..9).unwrap();
    let wid = state.create_dynamic("a.didx").unwrap();
    append(&mut state, IndexKind::Dynamic, wid, &[(0, 2), (5, 1)]).unwrap();
}

#[test]
fn an_incremental_index_of_a_resized_image_needs_its_last_chunk_anew() {
    let previous = previous_index(&[1, 2], MIB4 + 5);
    let csum = fixed_csum(&[1, 2]);
    let mut state = session();
    let wid = state
        .create_incremental("d.fidx", MIB4 + 7, &previous, &csum)
        .unwrap();
    assert!(close(&mut state, IndexKind::Fixed, wid, &claim(0, 0, csum)).is_err());

    let mut state = session();
    let wid = state
        .create_incremental("d.fidx", MIB4 + 7, &previous, &csum)
        .unwrap();
    upload(&mut state, IndexKind::Fixed, wid, 3, 7);
    append(&mut state, IndexKind::Fixed, wid, &[(MIB4, 3)]).unwrap();
    let index = close(
        &mut state,
        IndexKind::Fixed,
        wid,
        &claim(1, 7, fixed_csum(&[1, 3])),
    )
    .unwrap();
    assert_eq!(index.size, MIB4 + 7);
}
