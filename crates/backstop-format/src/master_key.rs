//! Master keys: an RSA pair whose public half escrows each backup's encryption key, so that the holder of the private half
//! can restore when the key is lost. See `docs/formats/keys.md`.

mod pem;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{
    KeySize, Pkcs1PrivateDecryptingKey, Pkcs1PublicEncryptingKey, PrivateDecryptingKey,
    PublicEncryptingKey,
};
use zeroize::Zeroizing;

use crate::crypt::CryptKey;
use crate::error::{FormatError, Result};
use crate::key_file::{KeyFile, KeyTime};

/// Largest PEM text that is read, in bytes.
pub const MAX_PEM_SIZE: usize = 64 << 10;

const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// The public half.
pub struct MasterPublicKey(PublicEncryptingKey);

/// The private half.
pub struct MasterPrivateKey(PrivateDecryptingKey);

impl MasterPublicKey {
    /// Reads `master-public.pem`.
    ///
    /// # Errors
    /// No RSA public key between 2048 and 8192 bits.
    pub fn from_pem(text: &[u8]) -> Result<Self> {
        let der = pem::decode(text, PUBLIC_LABEL)?;
        PublicEncryptingKey::from_der(&der)
            .map(MasterPublicKey)
            .map_err(|error| {
                unusable(format!(
                    "it is no RSA public key of 2048 to 8192 bits ({error})"
                ))
            })
    }

    /// Writes `master-public.pem`.
    ///
    /// # Errors
    /// The crypto library fails.
    pub fn to_pem(&self) -> Result<String> {
        let der = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'static>>::as_der(&self.0)
            .map_err(|_| FormatError::Crypto {
                operation: "encode the public key",
            })?;
        Ok(pem::encode(der.as_ref(), PUBLIC_LABEL))
    }

    /// Encrypts a key for the holder of the private half: the content of `rsa-encrypted.key.blob`. `created` is when the
    /// key was made.
    ///
    /// # Errors
    /// The RSA key is too small for a key file; it needs at least 2128 bits.
    pub fn escrow(&self, key: &CryptKey, created: KeyTime) -> Result<Vec<u8>> {
        let text = KeyFile::unprotected(key, created, KeyTime::now()).to_json()?;
        let rsa =
            Pkcs1PublicEncryptingKey::new(self.0.clone()).map_err(|_| FormatError::Crypto {
                operation: "use the public key",
            })?;
        if text.len() > rsa.max_plaintext_size() {
            return Err(unusable(format!(
                "an RSA key of {} bits has room for {} bytes, {} are needed; make one of 4096 bits",
                rsa.key_size_bits(),
                rsa.max_plaintext_size(),
                text.len()
            )));
        }
        let mut cipher = vec![0; rsa.ciphertext_size()];
        let length = rsa
            .encrypt(&text, &mut cipher)
            .map_err(|_| FormatError::Crypto {
                operation: "encrypt with the public key",
            })?
            .len();
        cipher.truncate(length);
        Ok(cipher)
    }
}

impl MasterPrivateKey {
    /// A new pair of 4096 bits. Takes up to some seconds.
    ///
    /// # Errors
    /// The crypto library fails.
    pub fn generate() -> Result<Self> {
        PrivateDecryptingKey::generate(KeySize::Rsa4096)
            .map(MasterPrivateKey)
            .map_err(|_| FormatError::Crypto {
                operation: "generate an RSA key",
            })
    }

    /// Reads `master-private.pem`; the passphrase is used only when the text is encrypted.
    ///
    /// # Errors
    /// No RSA private key between 2048 and 8192 bits, or the passphrase is wrong.
    pub fn from_pem(text: &[u8], passphrase: &[u8]) -> Result<Self> {
        let der = pem::read_private_key(text, passphrase)?;
        PrivateDecryptingKey::from_pkcs8(&der)
            .map(MasterPrivateKey)
            .map_err(|error| {
                unusable(format!(
                    "it is no RSA private key of 2048 to 8192 bits ({error})"
                ))
            })
    }

    /// Writes `master-private.pem`, encrypted with AES-256-CBC under the passphrase.
    ///
    /// # Errors
    /// The crypto library fails.
    pub fn to_pem(&self, passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let der =
            AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'static>>::as_der(&self.0).map_err(|_| {
                FormatError::Crypto {
                    operation: "encode the private key",
                }
            })?;
        pem::write_private_key(der.as_ref(), passphrase)
    }

    /// The public half.
    pub fn public_key(&self) -> MasterPublicKey {
        MasterPublicKey(self.0.public_key())
    }

    /// Opens the content of `rsa-encrypted.key.blob`.
    ///
    /// # Errors
    /// It was made for another key, or is no key file.
    pub fn recover(&self, cipher: &[u8]) -> Result<KeyFile> {
        let rsa =
            Pkcs1PrivateDecryptingKey::new(self.0.clone()).map_err(|_| FormatError::Crypto {
                operation: "use the private key",
            })?;
        let mut plain = Zeroizing::new(vec![0; rsa.min_output_size()]);
        let length = rsa
            .decrypt(cipher, &mut plain)
            .map_err(|_| {
                unusable("the escrowed key was made for another master key, or was changed".into())
            })?
            .len();
        KeyFile::from_json(plain.get(..length).unwrap_or(&[]))
    }
}

fn unusable(reason: String) -> FormatError {
    FormatError::MasterKey { reason }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn an_escrowed_key_comes_back() {
        let private = MasterPrivateKey::generate().unwrap();
        let text = private.to_pem(b"Master-Pw").unwrap();
        assert!(text.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
        assert!(MasterPrivateKey::from_pem(&text, b"other").is_err());
        let private = MasterPrivateKey::from_pem(&text, b"Master-Pw").unwrap();
        let public =
            MasterPublicKey::from_pem(private.public_key().to_pem().unwrap().as_bytes()).unwrap();

        let key = CryptKey::new([7; 32]);
        let created = "2024-01-01T00:00:00+01:00".parse().unwrap();
        let mut cipher = public.escrow(&key, created).unwrap();
        assert_eq!(cipher.len(), 512);
        let file = private.recover(&cipher).unwrap();
        assert_eq!((file.created, file.hint.as_deref()), (created, None));
        assert_eq!(
            file.open(|| panic!("asked")).unwrap().key_bytes(),
            key.key_bytes()
        );
        cipher[100] ^= 1;
        assert!(private.recover(&cipher).is_err());
        assert!(private.recover(&[]).is_err());
    }

    #[test]
    fn text_that_is_no_key_is_refused() {
        for text in [
            "",
            "x",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "-----BEGIN PUBLIC KEY-----",
        ] {
            assert!(MasterPublicKey::from_pem(text.as_bytes()).is_err());
            assert!(MasterPrivateKey::from_pem(text.as_bytes(), b"secret").is_err());
        }
    }
}
