//! Any bytes as a blob: refused, or decoded within the limit.
#![no_main]

use backstop_format::CryptKey;
use backstop_format::blob::DataBlob;
use libfuzzer_sys::fuzz_target;

/// Most bytes that this target lets a blob decode to.
const LIMIT: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Ok(mut blob) = DataBlob::parse(data.to_vec()) else { return };
    let _ = blob.verify_crc();
    blob.refresh_crc();
    let key = CryptKey::new([7; 32]);
    for key in [None, Some(&key)] {
        if let Ok(plain) = blob.decode(key, LIMIT) {
            assert!(plain.len() <= LIMIT);
        }
    }
    assert_eq!(DataBlob::load(blob.raw().to_vec()).expect("a fresh checksum is right").raw(), blob.raw());
});
