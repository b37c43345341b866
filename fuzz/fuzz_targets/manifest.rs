//! Any bytes as a manifest: refused, or written again without loss.
#![no_main]

use backstop_format::CryptKey;
use backstop_format::manifest::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(manifest) = Manifest::from_json(data) else { return };
    let key = CryptKey::new([7; 32]);
    let _ = manifest.verify(&key);
    let _ = manifest.check_key(&key);
    let _ = manifest.fingerprint();
    let _ = (manifest.notes(), manifest.verify_state(), manifest.chunk_upload_stats());
    let text = manifest.to_json().expect("what was read can be written");
    let again = Manifest::from_json(&text).expect("what was written can be read");
    assert_eq!(again.to_json().expect("what was read can be written"), text);
});
