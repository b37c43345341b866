//! Any bytes as a chain of certificates: refused, or read and written back as they were; and never believed.
#![no_main]

use backstop_client::connection::continuity;
use backstop_format::continuity::{Chain, MAX_BYTES, MAX_LINKS};
use backstop_format::{Digest, Fingerprint};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(chain) = Chain::from_bytes(data) else { return };
    assert!(data.len() <= MAX_BYTES && chain.links().len() <= MAX_LINKS);
    assert_eq!(chain.to_bytes(), data);
    // The only keys here are those of the seeds, whose certificates nobody knows.
    let shown = Fingerprint(Digest::of(b"shown").0);
    for link in chain.links() {
        let _ = link.statement();
        assert!(continuity::vouches(&chain, &link.from(), 0, &shown, link.issued).is_err());
    }
});
