//! The client's encryption key and everything derived from it: the id key, the fingerprint, chunk digests, signatures,
//! and the encryption of blob payloads. See `docs/formats/keys.md`.
//!
//! Key bytes are wiped when a key is dropped and never appear in debug output.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{hmac, pbkdf2, rand};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::digest::{Digest, DigestBuilder, DigestPair, Fingerprint};
use crate::error::{FormatError, Result};
use crate::gcm;

/// SHA-256 of the text "Proxmox Backup Encryption Key Fingerprint".
const FINGERPRINT_INPUT: [u8; 32] = [
    0x6e, 0xd0, 0xef, 0x77, 0x47, 0x1f, 0xff, 0x4d, 0x55, 0xc7, 0xa8, 0xfe, 0x4a, 0x9d, 0xb6, 0x21,
    0x61, 0x40, 0x7f, 0x13, 0x4c, 0x72, 0x5d, 0xdf, 0x30, 0x99, 0x2d, 0x25, 0xec, 0x45, 0xed, 0x26,
];
const ID_KEY_SALT: &[u8] = b"_id_key";
const ID_KEY_ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

/// How a file of a snapshot is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CryptMode {
    /// Neither encrypted nor signed.
    #[default]
    None,
    /// Chunks and blobs are encrypted; the manifest is signed.
    Encrypt,
    /// Content is plain; the manifest is signed.
    SignOnly,
}

impl CryptMode {
    /// The name used in manifests and on command lines.
    pub fn as_str(self) -> &'static str {
        match self {
            CryptMode::None => "none",
            CryptMode::Encrypt => "encrypt",
            CryptMode::SignOnly => "sign-only",
        }
    }
}

impl fmt::Display for CryptMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// IV and tag of an encrypted payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Random per blob.
    pub iv: [u8; 16],
    /// Authenticates the ciphertext.
    pub tag: [u8; 16],
}

/// A 256-bit client key, ready for use.
#[derive(Clone)]
pub struct CryptKey {
    key: Zeroizing<[u8; 32]>,
    id_key: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for CryptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CryptKey")
            .field("fingerprint", &self.fingerprint().short_id())
            .finish_non_exhaustive()
    }
}

impl CryptKey {
    /// Prepares a key from its 32 bytes.
    pub fn new(key: [u8; 32]) -> Self {
        let key = Zeroizing::new(key);
        let mut id_key = Zeroizing::new([0u8; 32]);
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            ID_KEY_ITERATIONS,
            ID_KEY_SALT,
            key.as_slice(),
            id_key.as_mut_slice(),
        );
        CryptKey { key, id_key }
    }

    /// A new random key.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn generate() -> Result<Self> {
        let mut key = Zeroizing::new([0u8; 32]);
        random(key.as_mut_slice())?;
        Ok(CryptKey::new(*key))
    }

    /// The 32 key bytes, for writing a key file.
    pub fn key_bytes(&self) -> &[u8; 32] {
        &self.key
    }

    /// The key derived from the encryption key that takes part in digests, signatures and the fingerprint.
    pub fn id_key(&self) -> &[u8; 32] {
        &self.id_key
    }

    /// What this key is known by.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut builder = DigestBuilder::new();
        builder.update(&FINGERPRINT_INPUT);
        builder.update(self.id_key.as_slice());
        Fingerprint(builder.finish().0)
    }

    /// The name of an encrypted chunk with this plaintext.
    pub fn chunk_digest(&self, plain: &[u8]) -> Digest {
        let mut builder = DigestBuilder::new();
        builder.update(plain);
        builder.update(self.id_key.as_slice());
        builder.finish()
    }

    /// The names of two chunks at a time; see [`DigestPair`].
    pub fn two_chunk_digests(&self, plain: [&[u8]; 2]) -> [Digest; 2] {
        let mut pair = DigestPair::new();
        pair.update(plain);
        pair.update([self.id_key.as_slice(); 2]);
        pair.finish()
    }

    /// HMAC-SHA256 under the id key: the signature of manifests.
    pub fn hmac(&self, message: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.id_key.as_slice());
        let tag = hmac::sign(&key, message);
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        bytes
    }

    /// Whether `tag` is the [`hmac`](Self::hmac) of `message`; takes the same time whatever the answer.
    pub fn verify_hmac(&self, message: &[u8], tag: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.id_key.as_slice());
        hmac::verify(&key, message, tag).is_ok()
    }

    /// Encrypts `plain` into `cipher`, which has the same length, under a fresh random IV.
    ///
    /// # Errors
    /// The lengths differ, more than 2 GiB, or the crypto library fails.
    pub fn encrypt(&self, plain: &[u8], cipher: &mut [u8]) -> Result<Seal> {
        let mut iv = [0u8; gcm::IV_LENGTH];
        random(&mut iv)?;
        self.encrypt_with_iv(iv, plain, cipher)
    }

    pub(crate) fn encrypt_with_iv(
        &self,
        iv: [u8; 16],
        plain: &[u8],
        cipher: &mut [u8],
    ) -> Result<Seal> {
        let tag = gcm::seal(&self.key, &iv, plain, cipher)?;
        Ok(Seal { iv, tag })
    }

    /// Decrypts `cipher` into `plain`, which has the same length.
    ///
    /// # Errors
    /// [`FormatError::Decrypt`] when the key does not fit or the data was changed; `plain` then holds zeros.
    pub fn decrypt(&self, seal: &Seal, cipher: &[u8], plain: &mut [u8]) -> Result<()> {
        gcm::open(&self.key, &seal.iv, &seal.tag, cipher, plain)
    }
}

/// Fills `buffer` with random bytes of the system.
pub(crate) fn random(buffer: &mut [u8]) -> Result<()> {
    rand::fill(buffer).map_err(|_| FormatError::Crypto {
        operation: "generate random bytes",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn counting_key() -> CryptKey {
        CryptKey::new(std::array::from_fn(|i| u8::try_from(i).unwrap()))
    }

    #[test]
    fn derived_values_equal_the_published_vectors() {
        let key = counting_key();
        assert_eq!(
            Digest(*key.id_key()).to_string(),
            "7c2c013efd07f3b25717a485263343cd4d292a4b65c200bb3b18ea227abe225c"
        );
        assert_eq!(
            key.fingerprint().to_string(),
            "0e:ab:d4:46:0b:6e:b9:ca:34:50:23:de:e2:b7:78:c7:90:e5:4a:16:83:b9:65:9c:0a:57:ae:19:90:90:15:9b"
        );
        assert_eq!(
            key.chunk_digest(&vec![0; 4 << 20]).to_string(),
            "348571e12bbbedb529def1f1394316e338a01945d871df9ef792617ceb13d636"
        );
    }

    #[test]
    fn debug_output_holds_no_key_bytes() {
        assert!(!format!("{:?}", CryptKey::new([0xab; 32])).contains("171, 171"));
    }

    proptest! {
        #[test]
        fn what_is_encrypted_is_decrypted(plain in proptest::collection::vec(any::<u8>(), 0..2000), flip: proptest::sample::Index) {
            let key = counting_key();
            let mut cipher = vec![0; plain.len()];
            let seal = key.encrypt(&plain, &mut cipher).unwrap();
            let mut back = vec![1; plain.len()];
            key.decrypt(&seal, &cipher, &mut back).unwrap();
            prop_assert_eq!(&back, &plain);
            if !cipher.is_empty() {
                let at = flip.index(cipher.len());
                cipher[at] ^= 1;
                prop_assert!(key.decrypt(&seal, &cipher, &mut back).is_err());
                prop_assert!(back.iter().all(|byte| *byte == 0));
            }
            let mut wrong = seal;
            wrong.tag[3] ^= 4;
            prop_assert!(key.decrypt(&wrong, &cipher, &mut back).is_err());
        }
    }
}
