//! Any bytes as the file of a retention lock: refused, or brought to any moment and changed without a panic, and what was
//! written can be read again.
#![no_main]

use backstop_datastore::Locks;
use backstop_types::Namespace;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (i64, u32, &[u8])| {
    let (now, days, bytes) = input;
    let Ok(mut locks) = serde_json::from_slice::<Locks>(bytes) else {
        return;
    };
    let text = serde_json::to_vec(&locks).unwrap_or_default();
    assert_eq!(serde_json::from_slice::<Locks>(&text).ok().as_ref(), Some(&locks));
    let places: Vec<Namespace> = locks.locks.keys().cloned().collect();
    for place in places {
        let held = locks.governing(&place, now).map_or(0, |found| found.days);
        // whatever the file says, setting never loosens, and a request opens nothing at once
        let _ = locks.set(&place, days, None, "root@pam", now);
        let _ = locks.request(&place, days / 2, "root@pam", now);
        let after = locks.governing(&place, now);
        if let Some(found) = &after {
            let _ = found.until(now);
        }
        if now < i64::MAX / 2 {
            let grace = locks.locks.get(&place).map_or(0, |lock| lock.grace_hours);
            assert!(grace == 0 || after.map_or(0, |found| found.days) >= held);
        }
    }
    let _ = locks.request_clock(now, "root@pam", now);
    locks.settle(now);
});
