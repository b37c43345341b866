//! The scrypt key derivation of AWS-LC, with bounds on its cost.

use aws_lc_sys::EVP_PBE_scrypt;
use zeroize::Zeroizing;

use crate::error::{FormatError, Result};

/// Memory that a derivation may take, in bytes.
const MAX_MEMORY: usize = 1025 << 20;
/// Highest parallelism that is accepted; key files have 1.
const MAX_P: u64 = 64;

/// A 32-byte key from a passphrase.
///
/// # Errors
/// Parameters that are not allowed, or that need more than 1025 MiB.
pub(crate) fn derive(
    passphrase: &[u8],
    salt: &[u8],
    n: u64,
    r: u64,
    p: u64,
) -> Result<Zeroizing<[u8; 32]>> {
    let refused = || FormatError::Key {
        reason: format!("scrypt parameters n={n} r={r} p={p} are not possible"),
    };
    if p > MAX_P || p == 0 || r == 0 || n < 2 {
        return Err(refused());
    }
    let mut key = Zeroizing::new([0u8; 32]);
    // SAFETY: pointers and lengths come from slices that live through the call; the output has the 32 bytes stated. The
    // function checks all parameters and respects MAX_MEMORY.
    let code = unsafe {
        EVP_PBE_scrypt(
            passphrase.as_ptr().cast(),
            passphrase.len(),
            salt.as_ptr(),
            salt.len(),
            n,
            r,
            p,
            MAX_MEMORY,
            key.as_mut_ptr(),
            key.len(),
        )
    };
    if code == 1 { Ok(key) } else { Err(refused()) }
}
