//! Any bytes as a catalog: refused, or walked to its end.
#![no_main]

use backstop_format::catalog::{CatalogError, CatalogReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(reader) = CatalogReader::new(data.to_vec()) else { return };
    let mut entries = 0usize;
    let _ = reader.walk::<CatalogError>(reader.root(), |path, _| {
        assert!(!path.is_empty());
        entries += 1;
        Ok(true)
    });
    assert!(entries <= data.len(), "a catalog cannot name more than it holds");
    let _ = reader.lookup(b"/root.pxar.didx/a/b");
});
