//! Requests typed by hand: words in one line, quoted where they hold blanks.
//!
//! Double quotes understand `\n \r \t \a \b \xHH` and `\` before any other byte; single quotes only
//! `\'`. A closing quote must be followed by a blank or the end of the line. (Redis documentation,
//! "Redis serialization protocol specification", section "Inline commands"; quoting as in its CLI.)

use super::args::ArgRange;

/// A quote was opened and not closed, or closed in the middle of a word.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnbalancedQuotes;

/// Splits `line` into words: their bytes go to `bytes`, their places to `ranges`.
///
/// Cost: one pass; `bytes` never outgrows `line`.
pub(super) fn split(
    line: &[u8],
    bytes: &mut Vec<u8>,
    ranges: &mut Vec<ArgRange>,
) -> Result<(), UnbalancedQuotes> {
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let start = bytes.len();
        rest = word(rest, bytes)?.trim_ascii_start();
        ranges.push(ArgRange::new(start, bytes.len()));
    }
    Ok(())
}

/// Takes one word off `rest` and returns what follows it.
fn word<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        rest = match rest {
            [] => return Ok(rest),
            [blank, ..] if is_blank(*blank) => return Ok(rest),
            [b'"', quoted @ ..] => closed(double_quoted(quoted, bytes)?)?,
            [b'\'', quoted @ ..] => closed(single_quoted(quoted, bytes)?)?,
            [byte, after @ ..] => {
                bytes.push(*byte);
                after
            }
        };
    }
}

/// Copies up to the closing `"` and returns what follows it.
fn double_quoted<'a>(
    mut rest: &'a [u8],
    bytes: &mut Vec<u8>,
) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        let (byte, after) = match rest {
            [] => return Err(UnbalancedQuotes),
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_digit(*high) << 4 | hex_digit(*low), after)
            }
            [b'\\', escaped, after @ ..] => (unescape(*escaped), after),
            [byte, after @ ..] => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
}

/// Copies up to the closing `'` and returns what follows it.
fn single_quoted<'a>(
    mut rest: &'a [u8],
    bytes: &mut Vec<u8>,
) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        let (byte, after) = match rest {
            [] => return Err(UnbalancedQuotes),
            [b'\'', after @ ..] => return Ok(after),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [byte, after @ ..] => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
}

/// A closing quote must end its word.
fn closed(after: &[u8]) -> Result<&[u8], UnbalancedQuotes> {
    match after {
        [] => Ok(after),
        [blank, ..] if is_blank(*blank) => Ok(after),
        _ => Err(UnbalancedQuotes),
    }
}

fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace()
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::parser::Args;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, UnbalancedQuotes> {
        let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
        split(line, &mut bytes, &mut ranges)?;
        Ok(Args::new(&bytes, &ranges)
            .from(0)
            .map(<[u8]>::to_vec)
            .collect())
    }

    #[test]
    fn words_are_cut_at_blanks_and_unquoted() {
        assert_eq!(
            words(b"  get   k ").unwrap(),
            [b"get".to_vec(), b"k".to_vec()]
        );
        assert_eq!(
            words(br#"set "a b" 'it\'s' "\x41\n\q" """#).unwrap(),
            [
                b"set".to_vec(),
                b"a b".to_vec(),
                b"it's".to_vec(),
                b"A\nq".to_vec(),
                b"".to_vec()
            ]
        );
    }

    #[test]
    fn a_quote_left_open_or_closed_within_a_word_is_unbalanced() {
        for line in [
            &b"get \"k"[..],
            b"get 'k",
            b"get \"k\"x",
            b"get 'k'x",
            b"\"\\",
        ] {
            assert_eq!(words(line), Err(UnbalancedQuotes));
        }
    }
}
