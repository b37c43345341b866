//! PEM texts. Encrypted private keys go through AWS-LC, which knows the old and the new form.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use aws_lc_sys::{
    BIO, BIO_free, BIO_mem_contents, BIO_new, BIO_new_mem_buf, BIO_s_mem, CBB, CBB_cleanup,
    CBB_finish, CBB_init, CBS, EVP_PKEY, EVP_PKEY_free, EVP_aes_256_cbc, EVP_marshal_private_key,
    EVP_parse_private_key, OPENSSL_free, PEM_read_bio_PrivateKey, PEM_write_bio_PKCS8PrivateKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::{MAX_PEM_SIZE, unusable};
use crate::error::{FormatError, Result};

/// The bytes between the markers of the given label.
pub(super) fn decode(text: &[u8], label: &str) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(text).map_err(|_| unusable("it is no PEM text".into()))?;
    if text.len() > MAX_PEM_SIZE {
        return Err(FormatError::TooLarge {
            what: "PEM text",
            limit: MAX_PEM_SIZE as u64,
        });
    }
    let body = text
        .split_once(&format!("-----BEGIN {label}-----"))
        .and_then(|(_, rest)| rest.split_once(&format!("-----END {label}-----")))
        .map(|(body, _)| body)
        .ok_or_else(|| unusable(format!("it holds no {label}")))?;
    let body: String = body.split_ascii_whitespace().collect();
    BASE64
        .decode(body)
        .map_err(|error| unusable(format!("{label} is no base64: {error}")))
}

/// Puts markers around the bytes.
pub(super) fn encode(der: &[u8], label: &str) -> String {
    let body = BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII, so every position is a boundary.
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

struct Bio(*mut BIO);

impl Drop for Bio {
    fn drop(&mut self) {
        // SAFETY: the pointer came from BIO_new or BIO_new_mem_buf and is freed once.
        unsafe {
            BIO_free(self.0);
        }
    }
}

struct Key(*mut EVP_PKEY);

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: the pointer is owned and freed once.
        unsafe { EVP_PKEY_free(self.0) }
    }
}

/// Hands the passphrase to the PEM reader.
///
/// # Safety
/// `user` must point at a `&[u8]`, and `buffer` at `size` writable bytes.
unsafe extern "C" fn give_passphrase(
    buffer: *mut c_char,
    size: c_int,
    _writing: c_int,
    user: *mut c_void,
) -> c_int {
    // SAFETY: the contract above; the reader passes `user` through unchanged.
    let passphrase = unsafe { *user.cast::<&[u8]>() };
    match c_int::try_from(passphrase.len()) {
        Ok(length) if length <= size => {
            // SAFETY: `buffer` has room for `size` bytes and does not overlap the passphrase.
            unsafe {
                ptr::copy_nonoverlapping(passphrase.as_ptr(), buffer.cast(), passphrase.len())
            };
            length
        }
        _ => -1,
    }
}

/// The PKCS#8 form of a private key in PEM.
pub(super) fn read_private_key(text: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    if text.len() > MAX_PEM_SIZE {
        return Err(FormatError::TooLarge {
            what: "PEM text",
            limit: MAX_PEM_SIZE as u64,
        });
    }
    let length = isize::try_from(text.len()).map_err(|_| unusable("it is too long".into()))?;
    let mut passphrase = passphrase;
    // SAFETY: `text` outlives the BIO, which only reads it. The callback gets a pointer at the slice `passphrase`, as its
    // contract demands, and runs only during the call. Null results are checked; the key is owned by `Key`.
    let key = unsafe {
        let bio = BIO_new_mem_buf(text.as_ptr().cast(), length);
        if bio.is_null() {
            return Err(FormatError::Crypto {
                operation: "allocate a buffer",
            });
        }
        let bio = Bio(bio);
        let user: *mut &[u8] = &mut passphrase;
        Key(PEM_read_bio_PrivateKey(
            bio.0,
            ptr::null_mut(),
            Some(give_passphrase),
            user.cast(),
        ))
    };
    if key.0.is_null() {
        return Err(unusable(
            "the passphrase is wrong, or the text is no private key".into(),
        ));
    }
    // SAFETY: `builder` is initialised by CBB_init and either finished, which hands over its bytes, or cleaned up; the
    // bytes are copied, wiped and freed once.
    unsafe {
        let mut builder = CBB::default();
        if CBB_init(&mut builder, 4096) != 1 {
            return Err(FormatError::Crypto {
                operation: "allocate a buffer",
            });
        }
        let (mut data, mut size) = (ptr::null_mut(), 0);
        if EVP_marshal_private_key(&mut builder, key.0) != 1
            || CBB_finish(&mut builder, &mut data, &mut size) != 1
        {
            CBB_cleanup(&mut builder);
            return Err(FormatError::Crypto {
                operation: "encode the private key",
            });
        }
        let der = Zeroizing::new(std::slice::from_raw_parts(data, size).to_vec());
        // OPENSSL_free wipes what it frees.
        OPENSSL_free(data.cast());
        Ok(der)
    }
}

/// A PKCS#8 key as PEM, encrypted with AES-256-CBC.
pub(super) fn write_private_key(der: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let failed = || FormatError::Crypto {
        operation: "encrypt the private key",
    };
    let length = c_int::try_from(passphrase.len()).map_err(|_| failed())?;
    let mut input = CBS {
        data: der.as_ptr(),
        len: der.len(),
    };
    // SAFETY: `input` describes `der`, which outlives the calls. All results are checked and owned. The contents of the
    // memory BIO are copied before it is freed.
    unsafe {
        let key = EVP_parse_private_key(&mut input);
        if key.is_null() {
            return Err(failed());
        }
        let key = Key(key);
        let bio = BIO_new(BIO_s_mem());
        if bio.is_null() {
            return Err(failed());
        }
        let bio = Bio(bio);
        let code = PEM_write_bio_PKCS8PrivateKey(
            bio.0,
            key.0,
            EVP_aes_256_cbc(),
            passphrase.as_ptr().cast(),
            length,
            None,
            ptr::null_mut(),
        );
        let (mut data, mut size) = (ptr::null(), 0);
        if code != 1 || BIO_mem_contents(bio.0, &mut data, &mut size) != 1 || data.is_null() {
            return Err(failed());
        }
        Ok(Zeroizing::new(
            std::slice::from_raw_parts(data, size).to_vec(),
        ))
    }
}
