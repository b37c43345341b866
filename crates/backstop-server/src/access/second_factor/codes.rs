//! Codes of one-time password generators (RFC 4226 and 6238).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use backstop_types::second_factor::{OtpAlgorithm, Otpauth};
use zeroize::Zeroizing;

/// Steps before and after the present one whose codes are accepted: clocks differ and people are slow.
const SKEW: std::ops::RangeInclusive<i64> = -1..=1;

/// The code of a step.
pub(super) fn code(generator: &Otpauth, step: i64) -> Zeroizing<String> {
    let algorithm = match generator.algorithm {
        OtpAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        OtpAlgorithm::Sha256 => hmac::HMAC_SHA256,
        OtpAlgorithm::Sha512 => hmac::HMAC_SHA512,
    };
    let tag = hmac::sign(
        &hmac::Key::new(algorithm, &generator.secret),
        &step.to_be_bytes(),
    );
    let bytes = tag.as_ref();
    let offset = usize::from(bytes.last().copied().unwrap_or_default() & 0xf);
    let number = bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map_or(0, |four| u32::from_be_bytes(*four) & 0x7fff_ffff);
    let digits = generator.digits.min(9);
    let number = number % 10_u32.pow(digits);
    Zeroizing::new(format!("{number:0width$}", width = digits as usize))
}

/// The newest acceptable step that has this code at `now` (seconds since the epoch).
pub(super) fn matching_step(generator: &Otpauth, value: &str, now: i64) -> Option<i64> {
    let present = generator.step(now);
    // All are compared, so that the time tells nothing.
    SKEW.map(|skew| present.saturating_add(skew))
        .filter(|step| {
            verify_slices_are_equal(code(generator, *step).as_bytes(), value.as_bytes()).is_ok()
        })
        .max()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn generator(secret: &[u8], digits: u32, algorithm: OtpAlgorithm) -> Otpauth {
        Otpauth {
            secret: secret.to_vec(),
            digits,
            algorithm,
            period: 30,
            issuer: None,
            account: "a".to_owned(),
        }
    }

    /// The values of RFC 6238, appendix B.
    #[test]
    fn codes_are_those_of_the_standard() {
        let sha1 = b"12345678901234567890".as_slice();
        let sha256 = b"12345678901234567890123456789012".as_slice();
        let sha512 = b"1234567890123456789012345678901234567890123456789012345678901234".as_slice();
        for (time, first, second, third) in [
            (59, "94287082", "46119246", "90693936"),
            (1_111_111_109, "07081804", "68084774", "25091201"),
            (1_111_111_111, "14050471", "67062674", "99943326"),
            (1_234_567_890, "89005924", "91819424", "93441116"),
            (2_000_000_000, "69279037", "90698825", "38618901"),
            (20_000_000_000, "65353130", "77737706", "47863826"),
        ] {
            for (secret, algorithm, expected) in [
                (sha1, OtpAlgorithm::Sha1, first),
                (sha256, OtpAlgorithm::Sha256, second),
                (sha512, OtpAlgorithm::Sha512, third),
            ] {
                let generator = generator(secret, 8, algorithm);
                assert_eq!(*code(&generator, generator.step(time)), expected);
            }
        }
    }

    #[test]
    fn a_code_is_accepted_one_step_early_and_late_but_not_two() {
        let generator = generator(b"12345678901234567890", 6, OtpAlgorithm::Sha1);
        let now = 1_700_000_015;
        let step = generator.step(now);
        for skew in -3..=3 {
            let expected = (-1..=1).contains(&skew).then_some(step + skew);
            let value = code(&generator, step + skew);
            assert_eq!(matching_step(&generator, &value, now), expected, "{skew}");
        }
        let value = code(&generator, step);
        assert_eq!(matching_step(&generator, &value[..5], now), None);
        assert_eq!(
            matching_step(&generator, &format!("0{}", *value), now),
            None
        );
        assert_eq!(matching_step(&generator, "", now), None);
    }
}
