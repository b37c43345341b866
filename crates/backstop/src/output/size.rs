//! Sizes and durations for people, and sizes as people write them.

use std::fmt::Write as _;

use backstop_types::ByteSize;

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// A size in binary units with at most three decimals: `48.231 GiB`, `2 GiB`, `0 B`.
pub fn bytes(size: f64) -> String {
    let mut value = size;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} {}", UNITS.get(unit).copied().unwrap_or("B"))
}

/// The same for a whole number of bytes.
pub fn whole_bytes(size: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three decimals are shown")]
    bytes(size as f64)
}

/// A duration in the largest units that are not zero: `1h 2m 3.4s`, `<0.1s`.
pub fn duration(seconds: f64) -> String {
    if seconds.is_nan() || seconds < 0.1 {
        return "<0.1s".to_string();
    }
    const PARTS: [(&str, f64); 6] = [
        ("y", 365.25 * 86400.0),
        ("M", 30.44 * 86400.0),
        ("w", 7.0 * 86400.0),
        ("d", 86400.0),
        ("h", 3600.0),
        ("m", 60.0),
    ];
    let mut rest = (seconds * 10.0).round() / 10.0;
    let mut text = String::new();
    for (unit, length) in PARTS {
        let count = (rest / length).floor();
        if count >= 1.0 {
            rest -= count * length;
            let _ = write!(text, "{count}{unit} ");
        }
    }
    let tenths = (rest * 10.0).round();
    if tenths >= 1.0 {
        let shown = tenths / 10.0;
        let _ = write!(text, "{shown}s");
    }
    text.trim_end().to_string()
}

/// Reads a size such as `20MiB`, `1.5k` or `4096`; decimal and binary units, in any case.
///
/// # Errors
/// If the text is no such size.
pub fn parse_bytes(text: &str) -> anyhow::Result<u64> {
    Ok(text.parse::<ByteSize>()?.bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn sizes_are_shown_with_three_decimals_at_most() {
        assert_eq!(whole_bytes(0), "0 B");
        assert_eq!(whole_bytes(1023), "1023 B");
        assert_eq!(whole_bytes(60506), "59.088 KiB");
        assert_eq!(whole_bytes(38_268_302), "36.495 MiB");
        assert_eq!(whole_bytes(2 << 30), "2 GiB");
        assert_eq!(whole_bytes(u64::MAX), "16384 PiB");
    }

    #[test]
    fn durations_leave_out_what_is_zero() {
        assert_eq!(duration(0.03), "<0.1s");
        assert_eq!(duration(0.14), "0.1s");
        assert_eq!(duration(60.0), "1m");
        assert_eq!(duration(3723.4), "1h 2m 3.4s");
        assert_eq!(duration(86400.0 + 0.2), "1d 0.2s");
    }

    #[test]
    fn sizes_are_read_with_decimal_and_binary_units() {
        assert_eq!(parse_bytes("20MiB").unwrap(), 20 << 20);
        assert_eq!(parse_bytes("1.5k").unwrap(), 1500);
        assert_eq!(parse_bytes("1 gb").unwrap(), 1_000_000_000);
        assert_eq!(parse_bytes("4096").unwrap(), 4096);
        for bad in ["", "-1", "MiB", "1.2.3", "5 zb"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
