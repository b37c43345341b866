//! Signatures of authenticators, checked with AWS-LC.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use backstop_types::second_factor::{CoseKey, EllipticCurve, SecondFactorError};

/// The key in the form in which it can verify.
///
/// # Errors
/// When it is no key: a point that is not on the curve, a modulus of the wrong size.
pub(super) fn usable(key: &CoseKey) -> Result<ParsedPublicKey, SecondFactorError> {
    let parsed = match key {
        CoseKey::Ecdsa { curve, x, y } => {
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            match curve {
                EllipticCurve::P256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point),
                EllipticCurve::P384 => ParsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, point),
                EllipticCurve::P521 => ParsedPublicKey::new(&ECDSA_P521_SHA512_ASN1, point),
            }
        }
        CoseKey::Ed25519 { x } => ParsedPublicKey::new(&ED25519, x),
        CoseKey::Rsa { n, e } => RsaPublicKeyComponents {
            n: without_zeros(n),
            e: without_zeros(e),
        }
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256),
    };
    parsed.map_err(|_| SecondFactorError {
        what: "public key",
        reason: "it is not a key of its algorithm",
    })
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}
