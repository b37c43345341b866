//! Promises of the blob format.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn counting_key() -> CryptKey {
    CryptKey::new(std::array::from_fn(|i| u8::try_from(i).unwrap()))
}

fn noise(length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    crate::crypt::random(&mut data).unwrap();
    data
}

#[test]
fn published_examples_are_written_and_read() {
    let blob = DataBlob::encode(b"hello pbs", None, false).unwrap();
    let expected = [
        &[
            0x42, 0xab, 0x38, 0x07, 0xbe, 0x83, 0x70, 0xa1, 0x2c, 0x7e, 0xff, 0xdb,
        ][..],
        b"hello pbs",
    ]
    .concat();
    assert_eq!(blob.raw(), expected);
    assert_eq!(
        DataBlob::encode(b"", None, true).unwrap().raw(),
        [&MAGIC_PLAIN[..], &[0; 4]].concat()
    );

    let key = counting_key();
    let mut cipher = [0; 9];
    let iv = std::array::from_fn(|i| 0xa0 + u8::try_from(i).unwrap());
    let seal = key.encrypt_with_iv(iv, b"hello pbs", &mut cipher).unwrap();
    assert_eq!(
        cipher,
        [0x42, 0xc6, 0x4f, 0xd0, 0x77, 0xed, 0xbd, 0x14, 0xb0]
    );
    let blob = DataBlob::assemble(BlobKind::Encrypted, Some(seal), &cipher);
    assert_eq!(blob.raw().get(8..12).unwrap(), [0x80, 0xc4, 0x77, 0x4d]);
    let digest = "a6210f50d015ceb25a084ea336b94c20f4711ff4d5b3a0ba31df8500243143dd"
        .parse()
        .unwrap();
    assert_eq!(
        blob.decode_chunk(Some(&key), &digest, 9).unwrap(),
        b"hello pbs"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_encoded_is_decoded(
        seed in proptest::collection::vec(any::<u8>(), 0..300), repeat in 1usize..50, encrypt: bool, compress: bool,
    ) {
        let data = seed.repeat(repeat);
        let key = encrypt.then(counting_key);
        let blob = DataBlob::encode(&data, key.as_ref(), compress).unwrap();
        prop_assert_eq!(blob.is_encrypted(), encrypt);
        prop_assert!(blob.raw().len() <= data.len() + blob.kind().header_size());
        let loaded = DataBlob::load(blob.clone().into_raw()).unwrap();
        prop_assert_eq!(loaded.decode(key.as_ref(), data.len()).unwrap(), data.clone());
        let digest = key.as_ref().map_or_else(|| Digest::of(&data), |key| key.chunk_digest(&data));
        let size = data.len() as u64;
        prop_assert_eq!(loaded.decode_chunk(key.as_ref(), &digest, size).unwrap(), data.clone());
        prop_assert!(loaded.decode_chunk(key.as_ref(), &digest, size + 1).is_err());
        if encrypt {
            prop_assert!(loaded.verify_plain_chunk(&digest, size).is_err());
            prop_assert!(loaded.decode(None, size as usize).is_err());
        } else {
            loaded.verify_plain_chunk(&digest, size).unwrap();
            prop_assert!(loaded.verify_plain_chunk(&digest, size + 1).is_err());
        }
        if size > 0 {
            prop_assert!(loaded.decode(key.as_ref(), data.len() - 1).is_err());
            prop_assert!(loaded.decode_chunk(key.as_ref(), &digest, size - 1).is_err());
        }
    }

    #[test]
    fn a_changed_payload_is_refused(at: proptest::sample::Index, encrypt: bool, compress: bool) {
        let key = encrypt.then(counting_key);
        let mut raw = DataBlob::encode(&b"some text, some text, some text".repeat(9), key.as_ref(), compress).unwrap().into_raw();
        let header = DataBlob::parse(raw.clone()).unwrap().kind().header_size();
        let at = header + at.index(raw.len() - header);
        raw[at] ^= 0x10;
        let wrong_crc = matches!(DataBlob::load(raw.clone()), Err(FormatError::WrongCrc { .. }));
        prop_assert!(wrong_crc);
        // Even with a CRC that fits, other content is not accepted. (A frame can hold the same content in other bytes.)
        let mut blob = DataBlob::parse(raw).unwrap();
        blob.refresh_crc();
        blob.verify_crc().unwrap();
        let data = b"some text, some text, some text".repeat(9);
        let digest = key.as_ref().map_or_else(|| Digest::of(&data), |key| key.chunk_digest(&data));
        if let Ok(found) = blob.decode_chunk(key.as_ref(), &digest, data.len() as u64) {
            prop_assert!(!encrypt);
            prop_assert_eq!(found, data);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut raw in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..5) {
        let kinds = [BlobKind::Plain, BlobKind::Zstd, BlobKind::Encrypted, BlobKind::EncryptedZstd];
        if let (Some(kind), Some(head)) = (kinds.get(kind), raw.first_chunk_mut::<8>()) {
            *head = kind.magic();
        }
        if let Ok(mut blob) = DataBlob::parse(raw) {
            blob.refresh_crc();
            let _ = blob.decode(Some(&counting_key()), 1 << 16);
            let _ = blob.verify_plain_chunk(&Digest([0; 32]), 100);
        }
    }
}

#[test]
fn a_truncated_blob_is_refused() {
    for length in 0..HEADER_SIZE {
        assert!(
            DataBlob::parse(
                MAGIC_PLAIN
                    .iter()
                    .copied()
                    .chain([0; 4])
                    .take(length)
                    .collect()
            )
            .is_err()
        );
    }
    let raw = DataBlob::encode(b"x", Some(&counting_key()), false)
        .unwrap()
        .into_raw();
    assert!(DataBlob::parse(raw.get(..43).unwrap().to_vec()).is_err());
    assert!(DataBlob::parse(vec![0; 100]).is_err());
}

#[test]
fn a_frame_that_unpacks_to_more_than_allowed_is_refused() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let blob = DataBlob::assemble(BlobKind::Zstd, None, &bomb);
    assert!(matches!(
        blob.decode(None, MAX_CHUNK_SIZE),
        Err(FormatError::TooLarge { .. })
    ));
    assert!(blob.verify_plain_chunk(&Digest([0; 32]), 1 << 20).is_err());
    let unstated = zstd::stream::encode_all(&vec![0; 64 << 20][..], 1).unwrap();
    let blob = DataBlob::assemble(BlobKind::Zstd, None, &unstated);
    assert!(matches!(
        blob.decode(None, MAX_CHUNK_SIZE),
        Err(FormatError::TooLarge { .. })
    ));
}

#[test]
fn frames_without_a_stated_length_are_read() {
    let data = b"streamed ".repeat(1000);
    let frame = zstd::stream::encode_all(&data[..], 1).unwrap();
    assert!(!matches!(
        zstd::zstd_safe::get_frame_content_size(&frame),
        Ok(Some(_))
    ));
    let blob = DataBlob::assemble(BlobKind::Zstd, None, &frame);
    assert_eq!(blob.decode(None, data.len()).unwrap(), data);
    blob.verify_plain_chunk(&Digest::of(&data), data.len() as u64)
        .unwrap();
}

#[test]
fn incompressible_data_is_stored_as_it_is() {
    for length in [1000, PROBED] {
        assert_eq!(
            DataBlob::encode(&noise(length), None, true).unwrap().kind(),
            BlobKind::Plain
        );
    }
}

const PROBED: usize = 1 << 20;

#[test]
fn data_that_is_compressible_only_here_and_there_is_compressed() {
    let mut data = noise(PROBED);
    data.get_mut(PROBED / 2..).unwrap().fill(7);
    let blob = DataBlob::encode(&data, None, true).unwrap();
    assert_eq!(blob.kind(), BlobKind::Zstd);
    assert!(blob.raw().len() < PROBED * 6 / 10);
}

#[test]
fn an_encoder_is_reusable_for_blobs_of_all_sizes() {
    let mut encoder = BlobEncoder::new(Some(Arc::new(counting_key())), true);
    for data in [
        vec![1; 3_000_000],
        vec![],
        b"abc".repeat(100),
        noise(700_000),
        vec![0; 4 << 20],
    ] {
        let blob = encoder.encode(&data).unwrap();
        assert_eq!(
            blob.decode(Some(&counting_key()), data.len()).unwrap(),
            data
        );
    }
    assert!(encoder.encode(&vec![0; MAX_BLOB_SIZE + 1]).is_err());
}

#[test]
fn zeros_are_recognised_whatever_their_number() {
    for length in [0, 1, 255, 256, 257, 4096, 100_001] {
        let mut data = vec![0; length];
        assert!(is_zero(&data));
        if let Some(last) = data.last_mut() {
            *last = 1;
            assert!(!is_zero(&data));
        }
    }
}
