//! `otpauth://totp/…` URIs, in which one-time password secrets are stored and shown.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, Encoding, Specification};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::SecondFactorError;

/// The hash below the one-time passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtpAlgorithm {
    /// What nearly all use.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl OtpAlgorithm {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Sha1, "SHA1"),
        (Self::Sha256, "SHA256"),
        (Self::Sha512, "SHA512"),
    ];
}

/// A time-based one-time password generator. `Debug` does not show the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Otpauth {
    /// The shared secret, never empty.
    pub secret: Vec<u8>,
    /// Length of a code, 1 to 9.
    pub digits: u32,
    /// The hash.
    pub algorithm: OtpAlgorithm,
    /// How long a code lasts in seconds, never 0.
    pub period: u32,
    /// Who issued it.
    pub issuer: Option<String>,
    /// For which account.
    pub account: String,
}

impl fmt::Debug for Otpauth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Otpauth")
            .field("digits", &self.digits)
            .field("algorithm", &self.algorithm)
            .field("period", &self.period)
            .finish_non_exhaustive()
    }
}

const WHAT: &str = "otpauth URI";
const PREFIX: &str = "otpauth://totp/";

impl FromStr for Otpauth {
    type Err = SecondFactorError;

    /// Unknown parameters (such as the picture that some generators add) are passed over.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |reason| SecondFactorError::new(WHAT, reason);
        let rest = text
            .strip_prefix(PREFIX)
            .ok_or(wrong("it does not begin with otpauth://totp/"))?;
        let (label, query) = rest.split_once('?').ok_or(wrong("it has no parameters"))?;
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (issuer, account) = match label.split_once(':') {
            Some((issuer, account)) => (Some(decoded(issuer)), decoded(account)),
            None => (None, decoded(label)),
        };
        let mut uri = Self {
            secret: Vec::new(),
            digits: 6,
            algorithm: OtpAlgorithm::Sha1,
            period: 30,
            issuer,
            account,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or(wrong("a parameter has no value"))?;
            let value = decoded(value);
            match key {
                "secret" => {
                    uri.secret =
                        decode_secret(&value).ok_or(wrong("the secret is not base32 text"))?;
                }
                "digits" => {
                    uri.digits = value
                        .parse()
                        .ok()
                        .filter(|digits| (1..=9).contains(digits))
                        .ok_or(wrong("digits is not a number from 1 to 9"))?;
                }
                "algorithm" => {
                    uri.algorithm = OtpAlgorithm::ALL
                        .iter()
                        .find(|(_, name)| name.eq_ignore_ascii_case(&value))
                        .map(|(algorithm, _)| *algorithm)
                        .ok_or(wrong("the algorithm is none of SHA1, SHA256 and SHA512"))?;
                }
                "period" => {
                    uri.period = value
                        .parse()
                        .ok()
                        .filter(|period| *period > 0)
                        .ok_or(wrong("period is not a number of seconds"))?;
                }
                "issuer" => uri.issuer = Some(value),
                _ => {}
            }
        }
        if uri.secret.is_empty() {
            return Err(wrong("it has no secret"));
        }
        Ok(uri)
    }
}

impl Otpauth {
    /// The URI as stock servers write and read it. It holds the secret.
    #[must_use]
    pub fn to_uri(&self) -> String {
        let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let issuer = self.issuer.as_deref().map(escaped);
        let label = issuer
            .as_ref()
            .map_or_else(String::new, |issuer| format!("{issuer}:"));
        let algorithm = OtpAlgorithm::ALL
            .iter()
            .find(|(algorithm, _)| *algorithm == self.algorithm)
            .map_or("SHA1", |(_, name)| name);
        let mut uri = format!(
            "{PREFIX}{label}{}?secret={}&digits={}&algorithm={algorithm}&period={}",
            escaped(&self.account),
            BASE32_NOPAD.encode(&self.secret),
            self.digits,
            self.period,
        );
        if let Some(issuer) = issuer {
            uri.push_str("&issuer=");
            uri.push_str(&issuer);
        }
        uri
    }

    /// The time step of a moment (seconds since the epoch).
    #[must_use]
    pub fn step(&self, now: i64) -> i64 {
        now.div_euclid(i64::from(self.period))
    }
}

/// Base32 as people type it: either case, with or without padding and spaces.
fn decode_secret(text: &str) -> Option<Vec<u8>> {
    let mut specification = Specification::new();
    specification
        .symbols
        .push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567");
    specification
        .translate
        .from
        .push_str("abcdefghijklmnopqrstuvwxyz");
    specification
        .translate
        .to
        .push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    specification.ignore.push_str(" -");
    specification.check_trailing_bits = false;
    let encoding: Encoding = specification.encoding().ok()?;
    encoding.decode(text.trim_end_matches('=').as_bytes()).ok()
}
