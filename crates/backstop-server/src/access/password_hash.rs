//! Hashes of passwords and token secrets in crypt(3) form: writes yescrypt (`$y$`), also checks
//! the older `$5$` and `$6$`.

use sha_crypt::ShaCrypt;
use yescrypt::{CustomizedPasswordHasher, Params, PasswordVerifier, Yescrypt};
use zeroize::Zeroizing;

/// Bytes of salt in new hashes.
const SALT_SIZE: usize = 16;
/// Most memory that checking a hash may take, in bytes; hashes of stock servers need 16 MiB.
const MAX_MEMORY: u64 = 256 << 20;
/// Characters of the hash itself in yescrypt's form.
const YESCRYPT_LENGTH: usize = 43;
/// Most rounds of an older hash.
const MAX_ROUNDS: u32 = 1_000_000;

/// Hashes a password. Takes some milliseconds and 16 MiB.
///
/// # Errors
/// When the system gives no random numbers.
pub(super) fn hash(password: &str) -> Result<String, HashError> {
    let mut salt = Zeroizing::new([0u8; SALT_SIZE]);
    aws_lc_rs::rand::fill(salt.as_mut()).map_err(|_| HashError)?;
    Yescrypt::default()
        .hash_password_customized(
            password.as_bytes(),
            salt.as_ref(),
            None,
            None,
            Params::default(),
        )
        .map(|hash| hash.to_string())
        .map_err(|_| HashError)
}

/// A password cannot be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unable to hash the password - the system gives no random numbers or no memory")]
pub struct HashError;

/// Whether `password` belongs to `hash`, in time that does not depend on where they differ. A
/// hash of unknown form belongs to no password.
pub(super) fn verify(password: &str, hash: &str) -> bool {
    if let Some(rest) = hash.strip_prefix("$y$") {
        let parameters = rest
            .split('$')
            .next()
            .and_then(|text| text.parse::<Params>().ok());
        let memory = parameters.map(|p| p.n().saturating_mul(u64::from(p.r())).saturating_mul(128));
        // One that was cut off would be compared as far as it goes, an empty one not at all.
        let is_whole = rest.rsplit('$').next().map(str::len) == Some(YESCRYPT_LENGTH);
        is_whole
            && memory.is_some_and(|memory| memory <= MAX_MEMORY)
            && Yescrypt::default()
                .verify_password(password.as_bytes(), hash)
                .is_ok()
    } else if hash.starts_with("$5$") || hash.starts_with("$6$") {
        let rounds = hash
            .split('$')
            .nth(2)
            .and_then(|field| field.strip_prefix("rounds="));
        let bounded = rounds
            .is_none_or(|rounds| rounds.parse().is_ok_and(|rounds: u32| rounds <= MAX_ROUNDS));
        bounded
            && ShaCrypt::default()
                .verify_password(password.as_bytes(), hash)
                .is_ok()
    } else {
        false
    }
}

/// Whether a hash has the form that new ones get.
pub(super) fn is_current(hash: &str) -> bool {
    hash.starts_with("$y$")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_password_belongs_to_its_hash_only() {
        let hash = hash("correct horse").unwrap();
        assert!(hash.starts_with("$y$j9T$"), "{hash}");
        assert!(verify("correct horse", &hash));
        assert!(!verify("correct horsf", &hash));
        assert!(!verify("", &hash));
        assert_ne!(super::hash("correct horse").unwrap(), hash);
    }

    #[test]
    fn hashes_of_stock_servers_are_understood() {
        let shadow = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/pbs-4.2.3/etc-proxmox-backup/shadow.json"
        );
        let shadow: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(shadow).unwrap()).unwrap();
        assert!(verify("Fixture-Pw-42", shadow["fixture"].as_str().unwrap()));
        assert!(verify("Reader-Pw-42", shadow["reader"].as_str().unwrap()));
        assert!(!verify("Reader-Pw-42", shadow["fixture"].as_str().unwrap()));
    }

    #[test]
    fn a_hash_that_was_cut_off_lets_nobody_in() {
        let whole = hash("correct horse").unwrap();
        for length in 0..whole.len() {
            assert!(!verify("correct horse", &whole[..length]), "{length}");
        }
        for older in [
            "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
        ] {
            for length in 0..older.len() {
                assert!(!verify("Hello world!", &older[..length]), "{length}");
            }
        }
    }

    #[test]
    fn older_hashes_are_understood() {
        for hash in [
            "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
            "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
        ] {
            assert!(verify("Hello world!", hash), "{hash}");
            assert!(!verify("hello world!", hash), "{hash}");
        }
        assert!(!is_current("$5$x") && is_current("$y$x"));
    }

    #[test]
    fn a_hash_that_asks_for_too_much_is_refused_at_once() {
        for hash in [
            "",
            "x",
            "$1$a$b",
            "$y$",
            "$y$j9T$",
            "$y$jZZ$salt$hash",
            "$y$jFT$aaaa$bbbb",
            "$6$rounds=999999999$salt$hash",
            "$6$",
        ] {
            assert!(!verify("password", hash), "{hash}");
        }
    }
}
