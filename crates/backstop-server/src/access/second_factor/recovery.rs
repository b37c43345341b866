//! Recovery codes: ten for each user, each good once, stored as keyed hashes.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use backstop_types::second_factor::RecoveryCodes;
use serde_json::Map;
use zeroize::Zeroizing;

/// How many codes a set has.
const CODES: usize = 10;

/// A new set and its codes, which are shown this once. `None` when the system gives no random numbers.
pub(super) fn generate(now: i64) -> Option<(RecoveryCodes, Vec<String>)> {
    let mut secret = [0; 8];
    aws_lc_rs::rand::fill(&mut secret).ok()?;
    let mut random = Zeroizing::new([[0_u8; 8]; CODES]);
    aws_lc_rs::rand::fill(random.as_flattened_mut()).ok()?;
    let mut set = RecoveryCodes {
        secret: hex(&secret),
        entries: Vec::with_capacity(CODES),
        created: now,
        other: Map::new(),
    };
    let mut codes = Vec::with_capacity(CODES);
    for bytes in random.iter() {
        let groups: Vec<String> = bytes.chunks(2).map(hex).collect();
        let code = groups.join("-");
        set.entries.push(Some(hash(&set, &code)));
        codes.push(code);
    }
    Some((set, codes))
}

/// Uses a code up; tells whether it was there.
pub(super) fn take(set: &mut RecoveryCodes, code: &str) -> bool {
    let own = hash(set, &code.trim().to_ascii_lowercase());
    let mut found = None;
    // All are compared, so that the time tells nothing.
    for (place, entry) in set.entries.iter().enumerate() {
        if let Some(entry) = entry
            && verify_slices_are_equal(entry.as_bytes(), own.as_bytes()).is_ok()
        {
            found = Some(place);
        }
    }
    match found.and_then(|place| set.entries.get_mut(place)) {
        Some(entry) => entry.take().is_some(),
        None => false,
    }
}

fn hash(set: &RecoveryCodes, code: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, set.secret.as_bytes());
    hex(hmac::sign(&key, code.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn each_of_ten_codes_is_good_once() {
        let (mut set, codes) = generate(7).unwrap();
        assert_eq!((set.entries.len(), codes.len(), set.created), (10, 10, 7));
        for code in &codes {
            assert_eq!(code.len(), 19);
            assert!(take(&mut set, &format!(" {} ", code.to_uppercase())));
            assert!(!take(&mut set, code));
        }
        assert_eq!(set.available(), Vec::<usize>::new());
        assert!(!take(&mut set, ""));
    }
}
