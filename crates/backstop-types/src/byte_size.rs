//! Byte sizes with units, as users write and read them.

use std::fmt;
use std::str::FromStr;

use crate::name::NameError;

/// A unit of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SizeUnit {
    exponent: u8,
    binary: bool,
}

impl SizeUnit {
    const BYTE: Self = Self {
        exponent: 0,
        binary: false,
    };

    /// How many bytes one of it is.
    fn factor(self) -> f64 {
        let base: f64 = if self.binary { 1024.0 } else { 1000.0 };
        base.powi(i32::from(self.exponent))
    }

    const fn name(self) -> &'static str {
        match (self.exponent, self.binary) {
            (1, false) => "KB",
            (2, false) => "MB",
            (3, false) => "GB",
            (4, false) => "TB",
            (5, false) => "PB",
            (1, true) => "KiB",
            (2, true) => "MiB",
            (3, true) => "GiB",
            (4, true) => "TiB",
            (5, true) => "PiB",
            _ => "B",
        }
    }
}

/// A number of bytes with the unit in which it was given. Finite and not negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ByteSize {
    size: f64,
    unit: SizeUnit,
}

impl ByteSize {
    /// `bytes` in the largest binary unit of which there is at least one.
    #[must_use]
    pub fn binary(bytes: u64) -> Self {
        Self::scaled(bytes, true)
    }

    /// `bytes` in the largest decimal unit of which there is at least one.
    #[must_use]
    pub fn decimal(bytes: u64) -> Self {
        Self::scaled(bytes, false)
    }

    fn scaled(bytes: u64, binary: bool) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "shown with three decimals only")]
        let size = bytes as f64;
        let unit = (1..=5)
            .rev()
            .map(|exponent| SizeUnit { exponent, binary })
            .find(|unit| size >= unit.factor())
            .unwrap_or(SizeUnit::BYTE);
        Self {
            size: size / unit.factor(),
            unit,
        }
    }

    /// Whole bytes, cut off, at most `u64::MAX`.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; saturates"
        )]
        let bytes = (self.size * self.unit.factor()) as u64;
        bytes
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounded = (self.size * 1000.0).round() / 1000.0;
        let rounded = if rounded.is_finite() {
            rounded
        } else {
            self.size
        };
        f.pad(&format!("{rounded} {}", self.unit.name()))
    }
}

impl FromStr for ByteSize {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason: &str| NameError::new("byte size", text, reason);
        if text.is_empty() || text.len() > 64 {
            return Err(error("expected 1 to 64 characters"));
        }
        let (number, unit) = split_unit(text);
        let form = "expected a number with an optional unit such as KiB, MB or G";
        if !number
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
        {
            return Err(error(form));
        }
        let size: f64 = number.parse().map_err(|_| error(form))?;
        if size.is_sign_negative() {
            return Err(error("byte size may not be negative"));
        }
        if !size.is_finite() {
            return Err(error(form));
        }
        Ok(Self { size, unit })
    }
}

/// Cuts the unit and the spaces before it off the end.
fn split_unit(text: &str) -> (&str, SizeUnit) {
    let rest = text.strip_suffix(['b', 'B']).unwrap_or(text);
    let (rest, binary) = match rest.strip_suffix('i') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let prefix = rest.bytes().last().map(|byte| byte.to_ascii_lowercase());
    let exponent = match prefix {
        Some(b'k') => 1,
        Some(b'm') => 2,
        Some(b'g') => 3,
        Some(b't') => 4,
        Some(b'p') => 5,
        _ => 0,
    };
    if exponent == 0 && binary {
        // An `i` without a prefix letter is no unit; the number parser refuses it.
        return (text, SizeUnit::BYTE);
    }
    let rest = if exponent == 0 {
        rest
    } else {
        rest.get(..rest.len() - 1).unwrap_or_default()
    };
    let number = if rest.len() == text.len() {
        rest
    } else {
        rest.trim_end_matches(' ')
    };
    (number, SizeUnit { exponent, binary })
}

crate::name::serde_text!(ByteSize);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn documented_sizes_are_read_and_stored_as_documented() {
        for (text, bytes, stored) in [
            ("20MiB", 20_971_520, "20 MiB"),
            ("1.5G", 1_500_000_000, "1.5 GB"),
            ("2Ki", 2048, "2 KiB"),
            ("2kib", 2048, "2 KiB"),
            ("1300 b", 1300, "1300 B"),
            ("2.3456MiB", 2_459_539, "2.346 MiB"),
            ("1.4567", 1, "1.457 B"),
            ("1e3", 1000, "1000 B"),
            (".5", 0, "0.5 B"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string(), stored, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in [
            "", "1 000", " 5", "5 MiB ", "1kb/s", "1_000", "-10", "-0", "nan", "inf", "5 ", "5i",
            "5iB", "M", "MiB", "1e999", "1x", "é",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn output_uses_the_largest_fitting_unit() {
        for (bytes, binary, decimal) in [
            (1022, "1022 B", "1.022 KB"),
            (9000, "8.789 KiB", "9 KB"),
            (1 << 30, "1 GiB", "1.074 GB"),
            (0, "0 B", "0 B"),
            (u64::MAX, "16384 PiB", "18446.744 PB"),
        ] {
            assert_eq!(ByteSize::binary(bytes).to_string(), binary);
            assert_eq!(ByteSize::decimal(bytes).to_string(), decimal);
        }
    }

    proptest! {
        #[test]
        fn the_display_form_is_read_back(bytes in any::<u64>()) {
            for size in [ByteSize::binary(bytes), ByteSize::decimal(bytes)] {
                let read: ByteSize = size.to_string().parse().unwrap();
                prop_assert_eq!(read.to_string(), size.to_string());
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,20}") { let _ = text.parse::<ByteSize>(); }
    }
}
