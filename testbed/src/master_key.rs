//! A master key without a passphrase, as `openssl genrsa` makes one: commands can use it where nobody can be asked.

use anyhow::{Context as _, Result};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The private and the public half as PEM.
///
/// # Errors
///
/// When the crypto library fails.
pub fn unencrypted() -> Result<(String, String)> {
    let private = PrivateDecryptingKey::generate(KeySize::Rsa4096)
        .ok()
        .context("no RSA key")?;
    let secret = AsDer::<Pkcs8V1Der<'static>>::as_der(&private)
        .ok()
        .context("no private key")?;
    let public = AsDer::<PublicKeyX509Der<'static>>::as_der(&private.public_key())
        .ok()
        .context("no public key")?;
    Ok((
        pem("PRIVATE KEY", secret.as_ref()),
        pem("PUBLIC KEY", public.as_ref()),
    ))
}

fn pem(kind: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {kind}-----\n");
    for at in (0..text.len()).step_by(64) {
        pem.push_str(text.get(at..(at + 64).min(text.len())).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {kind}-----\n"));
    pem
}
