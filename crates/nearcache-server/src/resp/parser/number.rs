//! Decimal integers as Redis accepts them: digits only, no sign but `-`, no leading zero, no blanks.

/// Reads all of `text` as an integer. Cost: one pass, at most 20 bytes.
pub(crate) fn parse_i64(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        None => i64::try_from(parse_u64(text)?).ok(),
        // "-0" is not a number: it has a shorter spelling.
        Some(digits) => match parse_u64(digits)? {
            0 => None,
            magnitude => 0_i64.checked_sub_unsigned(magnitude),
        },
    }
}

/// Reads all of `text` as an integer without a sign. Cost: one pass, at most 20 bytes.
pub(crate) fn parse_u64(text: &[u8]) -> Option<u64> {
    match text {
        [digit @ b'0'..=b'9'] => Some(u64::from(digit - b'0')),
        [b'1'..=b'9', ..] if text.len() <= 20 => text.iter().try_fold(0_u64, |value, byte| {
            let digit = byte.checked_sub(b'0').filter(|&digit| digit <= 9)?;
            value.checked_mul(10)?.checked_add(u64::from(digit))
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_range_are_read_and_what_lies_beyond_is_not() {
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_i64(b"9223372036854775808"), None);
        assert_eq!(parse_i64(b"-9223372036854775809"), None);
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
    }

    #[test]
    fn only_the_one_canonical_spelling_is_a_number() {
        for text in [
            "", "-", "-0", "+1", " 1", "1 ", "01", "1.0", "0x1", "1e3", "--1",
        ] {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
    }
}
