//! Text as systemd writes it into the names of units, which makes file names of anything.

use std::fmt::Write as _;

/// Escapes a text: `/` becomes `-`, and what is neither letter, digit, `_` nor `.` becomes `\xNN`.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            b'/' => escaped.push('-'),
            b'.' if position > 0 => escaped.push('.'),
            b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => escaped.push(char::from(byte)),
            _ => {
                let _ = write!(escaped, "\\x{byte:02x}");
            }
        }
    }
    escaped
}

/// The text that was escaped. What is no escape stays as it is.
pub(super) fn unescape(escaped: &str) -> String {
    let mut text = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after
            .strip_prefix(b"x")
            .and_then(|after| after.get(..2))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, hex) {
            (b'\\', Some(byte)) => {
                text.push(byte);
                rest = after.get(3..).unwrap_or_default();
                continue;
            }
            (b'-', _) => text.push(b'/'),
            (other, _) => text.push(*other),
        }
        rest = after;
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_look_as_systemd_writes_them() {
        let name = "admin@pbs@localhost:store1:host/a-b/drive.img";
        let escaped = r"admin\x40pbs\x40localhost\x3astore1\x3ahost-a\x2db-drive.img";
        assert_eq!(escape(name), escaped);
        assert_eq!(unescape(escaped), name);
        assert_eq!(escape(".hidden"), r"\x2ehidden");
        assert_eq!(unescape(r"\x4\"), r"\x4\");
    }

    proptest! {
        #[test]
        fn escaped_names_come_back(name in "\\PC{0,40}") {
            prop_assert_eq!(unescape(&escape(&name)), name);
        }
    }
}
