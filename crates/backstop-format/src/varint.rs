//! Variable-length integers of the catalog (`docs/formats/catalog.md`, section 2.3).
//!
//! Groups of seven bits, least significant first; bit 7 says that another byte follows. Negative
//! numbers set bit 7 in every group and end with a zero byte.

const MAX_U64_BYTES: usize = 10;
const MAX_I64_BYTES: usize = 11;

/// Appends `value` to `out`: 1 to 10 bytes.
pub fn write_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` to `out`: 1 to 11 bytes.
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    let mut magnitude = value.unsigned_abs();
    if value >= 0 {
        return write_u64(out, magnitude);
    }
    while magnitude > 0 {
        out.push((magnitude & 0x7f) as u8 | 0x80);
        magnitude >>= 7;
    }
    out.push(0);
}

/// Takes a number from the front of `input`; `None` when it is cut off or longer than 10 bytes.
/// Bits above the 64th are dropped.
pub fn read_u64(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for i in 0..MAX_U64_BYTES {
        let byte = *input.get(i)?;
        value |= u64::from(byte & 0x7f) << (7 * i as u32);
        if byte & 0x80 == 0 {
            *input = input.get(i + 1..)?;
            return Some(value);
        }
    }
    None
}

/// Takes a signed number from the front of `input`; `None` when it is cut off, longer than
/// 11 bytes or outside the range of `i64`.
pub fn read_i64(input: &mut &[u8]) -> Option<i64> {
    let mut magnitude = 0u64;
    for i in 0..MAX_I64_BYTES {
        let byte = *input.get(i)?;
        if byte & 0x80 == 0 {
            *input = input.get(i + 1..)?;
            if byte == 0 {
                return 0i64.checked_sub_unsigned(magnitude);
            }
            magnitude |= group(byte, i)?;
            return i64::try_from(magnitude).ok();
        }
        magnitude |= group(byte, i)?;
    }
    None
}

fn group(byte: u8, index: usize) -> Option<u64> {
    let bits = u64::from(byte & 0x7f);
    match index {
        0..9 => Some(bits << (7 * index as u32)),
        9 if bits <= 1 => Some(bits << 63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn signed(value: i64) -> Vec<u8> {
        let mut out = Vec::new();
        write_i64(&mut out, value);
        out
    }

    fn unsigned(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write_u64(&mut out, value);
        out
    }

    #[test]
    fn numbers_have_the_documented_bytes() {
        assert_eq!(unsigned(0), [0]);
        assert_eq!(unsigned(127), [0x7f]);
        assert_eq!(unsigned(128), [0x80, 1]);
        assert_eq!(unsigned(300), [0xac, 2]);
        assert_eq!(unsigned(u64::MAX), [[0xff; 9].as_slice(), &[1]].concat());
        assert_eq!(signed(1_700_000_000), [0x80, 0xe2, 0xcf, 0xaa, 6]);
        assert_eq!(signed(i64::MAX), [[0xff; 8].as_slice(), &[0x7f]].concat());
        assert_eq!(signed(-1), [0x81, 0]);
        assert_eq!(signed(-127), [0xff, 0]);
        assert_eq!(signed(-128), [0x80, 0x81, 0]);
        assert_eq!(signed(-129), [0x81, 0x81, 0]);
        assert_eq!(signed(-1_700_000_000), [0x80, 0xe2, 0xcf, 0xaa, 0x86, 0]);
        assert_eq!(
            signed(i64::MIN),
            [[0x80; 9].as_slice(), &[0x81, 0]].concat()
        );
    }

    #[test]
    fn endless_and_cut_numbers_are_refused() {
        assert_eq!(read_u64(&mut [0xff; 20].as_slice()), None);
        assert_eq!(read_i64(&mut [0xff; 20].as_slice()), None);
        assert_eq!(read_u64(&mut [0x80].as_slice()), None);
        assert_eq!(read_i64(&mut [0x81].as_slice()), None);
        assert_eq!(read_u64(&mut [].as_slice()), None);
    }

    proptest! {
        #[test]
        fn every_number_comes_back(a: u64, b: i64) {
            let bytes = unsigned(a);
            let mut input = bytes.as_slice();
            prop_assert_eq!(read_u64(&mut input), Some(a));
            prop_assert!(input.is_empty());
            let bytes = signed(b);
            let mut input = bytes.as_slice();
            prop_assert_eq!(read_i64(&mut input), Some(b));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            read_u64(&mut bytes.as_slice());
            read_i64(&mut bytes.as_slice());
        }
    }
}
