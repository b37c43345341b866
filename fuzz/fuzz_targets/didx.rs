//! Any bytes as a dynamic index: refused, or every question about it has an answer.
#![no_main]

use backstop_format::index::{ChunkIndex, DynamicIndex};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(index) = DynamicIndex::parse(data) else { return };
    let mut end = 0;
    for number in 0..index.chunk_count() {
        let span = index.chunk(number).expect("a counted chunk exists");
        assert_eq!(span.start, end);
        assert_eq!(index.locate(span.start), Some(number));
        end = span.end;
    }
    assert_eq!(end, index.size());
    assert_eq!(index.locate(end), None);
});
