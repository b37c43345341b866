//! Any bytes as a key file: refused, or opened or not, but never more.
#![no_main]

use backstop_format::key_file::KeyFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = KeyFile::from_json(data) else { return };
    // deriving a key from a passphrase is slow on purpose; only unprotected files are opened here
    let _ = file.open(|| Err(backstop_format::FormatError::Key { reason: "no passphrase".into() }));
    let text = file.to_json().expect("what was read can be written");
    KeyFile::from_json(&text).expect("what was written can be read");
});
