//! Public keys of credentials: as authenticators send them (COSE) and as stock servers store them (JSON).

use minicbor::Decoder;
use serde_json::{Value, json};

use super::{SecondFactorError, decode_bytes, encode_bytes};

/// Curves of ECDSA keys, each with its own hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EllipticCurve {
    /// P-256 with SHA-256.
    P256,
    /// P-384 with SHA-384.
    P384,
    /// P-521 with SHA-512.
    P521,
}

struct CurveNames {
    curve: EllipticCurve,
    /// COSE: the algorithm and the curve.
    numbers: (i64, i64),
    /// JSON: the algorithm, its older name, and the curve.
    words: (&'static str, &'static str, &'static str),
    /// Bytes of a coordinate.
    size: usize,
}

const CURVES: [CurveNames; 3] = [
    CurveNames {
        curve: EllipticCurve::P256,
        numbers: (-7, 1),
        words: ("ES256", "ECDSA_SHA256", "SECP256R1"),
        size: 32,
    },
    CurveNames {
        curve: EllipticCurve::P384,
        numbers: (-35, 2),
        words: ("ES384", "ECDSA_SHA384", "SECP384R1"),
        size: 48,
    },
    CurveNames {
        curve: EllipticCurve::P521,
        numbers: (-36, 3),
        words: ("ES512", "ECDSA_SHA512", "SECP521R1"),
        size: 66,
    },
];

/// Smallest and largest RSA modulus, in bytes.
const RSA_SIZES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A public key with its algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoseKey {
    /// ECDSA (ES256, ES384, ES512).
    Ecdsa {
        /// The curve.
        curve: EllipticCurve,
        /// First coordinate, as long as the curve asks for.
        x: Vec<u8>,
        /// Second coordinate.
        y: Vec<u8>,
    },
    /// EdDSA with Ed25519.
    Ed25519 {
        /// The key.
        x: [u8; 32],
    },
    /// RSA PKCS#1 v1.5 with SHA-256 (RS256).
    Rsa {
        /// The modulus, 2048 bits or more.
        n: Vec<u8>,
        /// The exponent, three bytes in the stored form.
        e: Vec<u8>,
    },
}

const WHAT: &str = "public key";

const fn wrong(reason: &'static str) -> SecondFactorError {
    SecondFactorError::new(WHAT, reason)
}

/// The members of a COSE key that matter here.
#[derive(Default)]
struct Members<'b> {
    kind: Option<i64>,
    algorithm: Option<i64>,
    curve: Option<i64>,
    /// Members -1, -2 and -3 where they are bytes.
    bytes: [Option<&'b [u8]>; 3],
}

impl<'b> Members<'b> {
    fn decode(decoder: &mut Decoder<'b>) -> Result<Self, minicbor::decode::Error> {
        let mut members = Self::default();
        let count = decoder
            .map()?
            .ok_or_else(|| minicbor::decode::Error::message("indefinite length"))?;
        for _ in 0..count {
            let label = decoder.i64()?;
            let is_bytes = decoder.datatype()? == minicbor::data::Type::Bytes;
            match (label, is_bytes) {
                (1, false) => members.kind = Some(decoder.i64()?),
                (3, false) => members.algorithm = Some(decoder.i64()?),
                (-1, false) => members.curve = Some(decoder.i64()?),
                (-1, true) => members.bytes[0] = Some(decoder.bytes()?),
                (-2, true) => members.bytes[1] = Some(decoder.bytes()?),
                (-3, true) => members.bytes[2] = Some(decoder.bytes()?),
                _ => decoder.skip()?,
            }
        }
        Ok(members)
    }
}

impl CoseKey {
    /// Algorithms that new credentials may use, best first, by their COSE numbers.
    pub const ALGORITHMS: [i64; 3] = [-7, -8, -257];

    /// Reads a key from CBOR.
    ///
    /// # Errors
    /// When it is no key, or one that stock servers could not use after this one.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, SecondFactorError> {
        let members = Members::decode(decoder).map_err(|_| wrong("it is not a COSE key"))?;
        let bytes = |index: usize| {
            members
                .bytes
                .get(index)
                .copied()
                .flatten()
                .ok_or(wrong("a part of it is missing"))
        };
        match (members.kind, members.algorithm, members.curve) {
            (Some(1), Some(-8), Some(6)) => Ok(Self::Ed25519 {
                x: bytes(1)?
                    .try_into()
                    .map_err(|_| wrong("it is not 32 bytes long"))?,
            }),
            (Some(2), Some(algorithm), Some(curve)) => {
                let names = CURVES
                    .iter()
                    .find(|names| names.numbers == (algorithm, curve))
                    .ok_or(wrong("curve and algorithm do not go together"))?;
                Self::ecdsa(names, bytes(1)?.to_vec(), bytes(2)?.to_vec())
            }
            (Some(3), Some(-257), None) => {
                let (n, e) = (bytes(0)?.to_vec(), bytes(1)?.to_vec());
                if n.len() != 256 || e.len() != 3 {
                    return Err(wrong("only RSA keys of 2048 bits can be stored"));
                }
                Ok(Self::Rsa { n, e })
            }
            _ => Err(wrong("its algorithm is none of ES256, EdDSA and RS256")),
        }
    }

    fn ecdsa(names: &CurveNames, x: Vec<u8>, y: Vec<u8>) -> Result<Self, SecondFactorError> {
        if x.len() != names.size || y.len() != names.size {
            return Err(wrong("a coordinate has the wrong length"));
        }
        Ok(Self::Ecdsa {
            curve: names.curve,
            x,
            y,
        })
    }

    /// Its COSE algorithm number.
    #[must_use]
    pub fn algorithm(&self) -> i64 {
        match self {
            Self::Ecdsa { curve, .. } => CURVES
                .iter()
                .find(|names| names.curve == *curve)
                .map_or(-7, |names| names.numbers.0),
            Self::Ed25519 { .. } => -8,
            Self::Rsa { .. } => -257,
        }
    }

    /// The form in which stock servers store it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Ecdsa { curve, x, y } => {
                let (algorithm, curve) = CURVES
                    .iter()
                    .find(|names| names.curve == *curve)
                    .map_or(("ES256", "SECP256R1"), |names| {
                        (names.words.0, names.words.2)
                    });
                let key = json!({ "curve": curve, "x": encode_bytes(x), "y": encode_bytes(y) });
                json!({ "type_": algorithm, "key": { "EC_EC2": key } })
            }
            Self::Ed25519 { x } => json!({
                "type_": "EDDSA",
                "key": { "EC_OKP": { "curve": "ED25519", "x": encode_bytes(x) } },
            }),
            Self::Rsa { n, e } => json!({
                "type_": "RS256",
                "key": { "RSA": { "n": encode_bytes(n), "e": e } },
            }),
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is not that of a key that can be used here.
    pub fn from_json(value: &Value) -> Result<Self, SecondFactorError> {
        let algorithm = value
            .get("type_")
            .and_then(Value::as_str)
            .ok_or(wrong("it has no algorithm"))?;
        let part = |kind: &str, name: &str| {
            value
                .get("key")
                .and_then(|key| key.get(kind))
                .and_then(|key| key.get(name))
        };
        let bytes = |kind: &str, name: &str| {
            part(kind, name)
                .and_then(decode_bytes)
                .ok_or(wrong("a part of it is missing"))
        };
        match algorithm {
            "EDDSA" => {
                if part("EC_OKP", "curve").and_then(Value::as_str) != Some("ED25519") {
                    return Err(wrong("its curve is not ED25519"));
                }
                Ok(Self::Ed25519 {
                    x: bytes("EC_OKP", "x")?
                        .try_into()
                        .map_err(|_| wrong("it is not 32 bytes long"))?,
                })
            }
            "RS256" => {
                let (n, e) = (bytes("RSA", "n")?, bytes("RSA", "e")?);
                if !RSA_SIZES.contains(&n.len()) || e.is_empty() || e.len() > 8 {
                    return Err(wrong("modulus or exponent has the wrong length"));
                }
                Ok(Self::Rsa { n, e })
            }
            algorithm => {
                let curve = part("EC_EC2", "curve")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                let names = CURVES
                    .iter()
                    .find(|names| {
                        (algorithm == names.words.0 || algorithm == names.words.1)
                            && curve == names.words.2
                    })
                    .ok_or(wrong("its algorithm is not known here"))?;
                Self::ecdsa(names, bytes("EC_EC2", "x")?, bytes("EC_EC2", "y")?)
            }
        }
    }
}
