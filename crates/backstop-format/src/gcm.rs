//! AES-256-GCM with the 16-byte IV that the blob format uses. The usual AEAD interfaces accept 12-byte IVs only, so this
//! calls the cipher layer of AWS-LC. It is the only place of the crate that does so for ciphers.
//!
//! It must never return plaintext whose tag was not checked.

use std::ptr;

use aws_lc_sys::{
    EVP_CIPHER_CTX, EVP_CIPHER_CTX_ctrl, EVP_CIPHER_CTX_free, EVP_CIPHER_CTX_new,
    EVP_CTRL_AEAD_GET_TAG, EVP_CTRL_AEAD_SET_IVLEN, EVP_CTRL_AEAD_SET_TAG, EVP_DecryptFinal_ex,
    EVP_DecryptInit_ex, EVP_DecryptUpdate, EVP_EncryptFinal_ex, EVP_EncryptInit_ex,
    EVP_EncryptUpdate, EVP_aes_256_gcm,
};

use crate::error::{FormatError, Result};

/// Length of IV and of tag, in bytes.
pub(crate) const IV_LENGTH: usize = 16;
const TAG_LENGTH: i32 = 16;

struct Context(*mut EVP_CIPHER_CTX);

impl Context {
    fn new() -> Result<Self> {
        // SAFETY: no preconditions; a null result is checked.
        let context = unsafe { EVP_CIPHER_CTX_new() };
        if context.is_null() {
            Err(refused("allocate a cipher context"))
        } else {
            Ok(Context(context))
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the pointer came from EVP_CIPHER_CTX_new and is freed once; freeing wipes the key schedule.
        unsafe { EVP_CIPHER_CTX_free(self.0) }
    }
}

fn refused(operation: &'static str) -> FormatError {
    FormatError::Crypto { operation }
}

fn check(code: i32, operation: &'static str) -> Result<()> {
    if code == 1 {
        Ok(())
    } else {
        Err(refused(operation))
    }
}

fn checked_length(input: &[u8], output: &[u8]) -> Result<i32> {
    if input.len() != output.len() {
        return Err(refused("use buffers of different lengths"));
    }
    i32::try_from(input.len()).map_err(|_| refused("process more than 2 GiB at once"))
}

/// Encrypts `plain` into `cipher` (of the same length) and returns the tag.
pub(crate) fn seal(
    key: &[u8; 32],
    iv: &[u8; IV_LENGTH],
    plain: &[u8],
    cipher: &mut [u8],
) -> Result<[u8; 16]> {
    let length = checked_length(plain, cipher)?;
    let context = Context::new()?;
    let mut tag = [0u8; 16];
    let mut written = 0;
    let mut rest = [0u8; 32];
    // SAFETY: the context is valid for the whole block. Key and IV have the lengths that the cipher was told (32; 16 set
    // through SET_IVLEN before the IV is given). `cipher` has room for `length` bytes, which is all that GCM, a stream
    // mode, writes; Final writes nothing, but is given a whole block. The tag buffer has the 16 bytes asked for.
    unsafe {
        let iv_length = 16;
        check(
            EVP_EncryptInit_ex(
                context.0,
                EVP_aes_256_gcm(),
                ptr::null_mut(),
                ptr::null(),
                ptr::null(),
            ),
            "select AES-256-GCM",
        )?;
        check(
            EVP_CIPHER_CTX_ctrl(
                context.0,
                EVP_CTRL_AEAD_SET_IVLEN,
                iv_length,
                ptr::null_mut(),
            ),
            "set a 16-byte IV",
        )?;
        check(
            EVP_EncryptInit_ex(
                context.0,
                ptr::null(),
                ptr::null_mut(),
                key.as_ptr(),
                iv.as_ptr(),
            ),
            "set key and IV",
        )?;
        if length > 0 {
            check(
                EVP_EncryptUpdate(
                    context.0,
                    cipher.as_mut_ptr(),
                    &mut written,
                    plain.as_ptr(),
                    length,
                ),
                "encrypt",
            )?;
        }
        let mut finished = 0;
        check(
            EVP_EncryptFinal_ex(context.0, rest.as_mut_ptr(), &mut finished),
            "finish encryption",
        )?;
        check(
            EVP_CIPHER_CTX_ctrl(
                context.0,
                EVP_CTRL_AEAD_GET_TAG,
                TAG_LENGTH,
                tag.as_mut_ptr().cast(),
            ),
            "read the tag",
        )?;
    }
    if written == length {
        Ok(tag)
    } else {
        Err(refused("encrypt all bytes"))
    }
}

/// Decrypts `cipher` into `plain` (of the same length). When the tag does not fit, `plain` is wiped.
pub(crate) fn open(
    key: &[u8; 32],
    iv: &[u8; IV_LENGTH],
    tag: &[u8; 16],
    cipher: &[u8],
    plain: &mut [u8],
) -> Result<()> {
    let length = checked_length(cipher, plain)?;
    let context = Context::new()?;
    let mut written = 0;
    let mut rest = [0u8; 32];
    let mut tag = *tag;
    // SAFETY: as in `seal`; SET_TAG reads the 16 bytes of `tag`, a local copy that it may not change but takes as mutable.
    let verdict = unsafe {
        let iv_length = 16;
        check(
            EVP_DecryptInit_ex(
                context.0,
                EVP_aes_256_gcm(),
                ptr::null_mut(),
                ptr::null(),
                ptr::null(),
            ),
            "select AES-256-GCM",
        )?;
        check(
            EVP_CIPHER_CTX_ctrl(
                context.0,
                EVP_CTRL_AEAD_SET_IVLEN,
                iv_length,
                ptr::null_mut(),
            ),
            "set a 16-byte IV",
        )?;
        check(
            EVP_DecryptInit_ex(
                context.0,
                ptr::null(),
                ptr::null_mut(),
                key.as_ptr(),
                iv.as_ptr(),
            ),
            "set key and IV",
        )?;
        check(
            EVP_CIPHER_CTX_ctrl(
                context.0,
                EVP_CTRL_AEAD_SET_TAG,
                TAG_LENGTH,
                tag.as_mut_ptr().cast(),
            ),
            "set the tag",
        )?;
        if length > 0 {
            check(
                EVP_DecryptUpdate(
                    context.0,
                    plain.as_mut_ptr(),
                    &mut written,
                    cipher.as_ptr(),
                    length,
                ),
                "decrypt",
            )?;
        }
        let mut finished = 0;
        EVP_DecryptFinal_ex(context.0, rest.as_mut_ptr(), &mut finished)
    };
    if verdict == 1 && written == length {
        Ok(())
    } else {
        plain.fill(0);
        Err(FormatError::Decrypt)
    }
}
