//! Patterns of `KEYS`, `SCAN MATCH` and `CONFIG GET`, matched in time linear in the text.
//!
//! `*` any bytes, `?` one byte, `[abc]`, `[a-c]`, `[^a]` one byte of (or not of) a set, `\` takes the
//! next byte as it is: the rules of Redis, an unclosed set included. A pattern is cut at its stars;
//! each piece is then found from left to right by a bit-parallel automaton, so no pattern makes the
//! matcher step back (the recursion behind CVE-2022-36021 and CVE-2024-31228 has no place here).
//!
//! Source: R. Baeza-Yates, G. Gonnet, "A New Approach to Text Searching", CACM 35(10), 1992 (the
//! Shift-And form, over as many 64-bit words as the piece is long).

/// A compiled pattern.
///
/// Memory: 32 bytes per byte set and about 1 byte per plain byte, plus 2 KiB per 64 elements between
/// two stars where the piece is not plain text.
#[derive(Debug)]
pub(crate) struct Glob {
    /// What the text must begin with.
    head: Piece,
    /// What must follow in this order, with anything between. Empty without a star.
    middle: Vec<Searcher>,
    /// What the text must end with; `None` without a star, when `head` is all there is.
    tail: Option<Piece>,
}

impl Glob {
    /// Compiles `pattern`. Cost: linear in its length, which the caller bounds.
    pub(crate) fn new(pattern: &[u8]) -> Self {
        let mut pieces = cut_at_stars(pattern).into_iter();
        let head = pieces.next().unwrap_or_default();
        let mut rest: Vec<Piece> = pieces.collect();
        let tail = rest.pop();
        rest.retain(|piece| !piece.0.is_empty());
        Self {
            head,
            middle: rest.into_iter().map(Searcher::new).collect(),
            tail,
        }
    }

    /// Whether all of `text` matches. Cost: linear in `text` times the words of the longest piece
    /// (16 for the longest pattern allowed); allocates nothing for pieces of up to 1,024 elements.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        let Some(mut rest) = self.head.prefix_of(text) else {
            return false;
        };
        let Some(tail) = &self.tail else {
            return rest.is_empty();
        };
        for piece in &self.middle {
            match piece.first_end_in(rest) {
                Some(end) => rest = rest.get(end..).unwrap_or_default(),
                None => return false,
            }
        }
        tail.is_suffix_of(rest)
    }
}

/// One element of a pattern; each matches exactly one byte.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Element {
    Byte(u8),
    AnyByte,
    Set(ByteSet),
}

impl Element {
    fn matches(&self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => *own == byte,
            Self::AnyByte => true,
            Self::Set(set) => set.contains(byte),
        }
    }
}

/// A set of byte values, one bit each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ByteSet([u64; 4]);

impl ByteSet {
    fn insert(&mut self, byte: u8) {
        if let Some(word) = self.0.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }

    fn contains(&self, byte: u8) -> bool {
        self.0
            .get(usize::from(byte >> 6))
            .is_some_and(|word| word >> (byte & 63) & 1 == 1)
    }

    fn invert(&mut self) {
        for word in &mut self.0 {
            *word = !*word;
        }
    }
}

/// The elements between two stars.
#[derive(Debug, Default)]
struct Piece(Vec<Element>);

impl Piece {
    /// What follows this piece in `text`, if `text` begins with it.
    fn prefix_of<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        let (start, rest) = text.split_at_checked(self.0.len())?;
        self.matches_all(start).then_some(rest)
    }

    fn is_suffix_of(&self, text: &[u8]) -> bool {
        let start = text.len().checked_sub(self.0.len());
        start
            .and_then(|start| text.get(start..))
            .is_some_and(|end| self.matches_all(end))
    }

    fn matches_all(&self, text: &[u8]) -> bool {
        self.0
            .iter()
            .zip(text)
            .all(|(element, &byte)| element.matches(byte))
    }
}

/// Finds a piece that may begin anywhere.
#[derive(Debug)]
enum Searcher {
    /// Plain bytes.
    Text(Box<memchr::memmem::Finder<'static>>),
    /// `masks[byte * words + i]` has a bit for each element that matches `byte`.
    Automaton {
        masks: Vec<u64>,
        words: usize,
        elements: usize,
    },
}

/// Words of automaton state held on the stack: enough for the longest pattern allowed.
const STACK_WORDS: usize = 16;

impl Searcher {
    fn new(piece: Piece) -> Self {
        let plain: Option<Vec<u8>> = piece
            .0
            .iter()
            .map(|element| match element {
                Element::Byte(byte) => Some(*byte),
                Element::AnyByte | Element::Set(_) => None,
            })
            .collect();
        if let Some(plain) = plain {
            return Self::Text(Box::new(memchr::memmem::Finder::new(&plain).into_owned()));
        }
        let words = piece.0.len().div_ceil(64);
        let mut masks = vec![0; words * 256];
        for (byte, masks) in (0..=u8::MAX).zip(masks.chunks_exact_mut(words)) {
            for (elements, mask) in piece.0.chunks(64).zip(masks) {
                for (bit, element) in elements.iter().enumerate() {
                    *mask |= u64::from(element.matches(byte)) << bit;
                }
            }
        }
        Self::Automaton {
            masks,
            words,
            elements: piece.0.len(),
        }
    }

    /// Where the leftmost occurrence in `text` ends.
    fn first_end_in(&self, text: &[u8]) -> Option<usize> {
        match self {
            Self::Text(finder) => finder.find(text).map(|start| start + finder.needle().len()),
            Self::Automaton {
                masks,
                words,
                elements,
            } => {
                let mut on_stack = [0; STACK_WORDS];
                let mut on_heap;
                let state = match on_stack.get_mut(..*words) {
                    Some(state) => state,
                    None => {
                        on_heap = vec![0; *words];
                        &mut on_heap[..]
                    }
                };
                run(masks, state, *elements, text)
            }
        }
    }
}

/// Advances `state`, one bit per element of the piece, over `text` until its last bit is reached.
fn run(masks: &[u64], state: &mut [u64], elements: usize, text: &[u8]) -> Option<usize> {
    let last_bit = (elements - 1) % 64;
    for (at, &byte) in text.iter().enumerate() {
        let masks = masks.chunks_exact(state.len()).nth(usize::from(byte))?;
        let mut carry = 1;
        for (word, mask) in state.iter_mut().zip(masks) {
            let carried = *word >> 63;
            *word = (*word << 1 | carry) & mask;
            carry = carried;
        }
        if state.last()? >> last_bit & 1 == 1 {
            return Some(at + 1);
        }
    }
    None
}

/// Reads a pattern into pieces: one more than it has runs of stars.
fn cut_at_stars(mut pattern: &[u8]) -> Vec<Piece> {
    let mut pieces = vec![Piece::default()];
    loop {
        let element = match pattern {
            [] => return pieces,
            [b'*', rest @ ..] => {
                pattern = rest;
                pieces.push(Piece::default());
                continue;
            }
            [b'?', rest @ ..] => {
                pattern = rest;
                Element::AnyByte
            }
            [b'[', rest @ ..] => {
                let (set, rest) = byte_set(rest);
                pattern = rest;
                Element::Set(set)
            }
            [b'\\', byte, rest @ ..] | [byte, rest @ ..] => {
                pattern = rest;
                Element::Byte(*byte)
            }
        };
        if let Some(piece) = pieces.last_mut() {
            piece.0.push(element);
        }
    }
}

/// Reads a set behind its `[`, and returns what follows its `]`. An unclosed set ends with the
/// pattern; a range may be written backwards.
fn byte_set(mut pattern: &[u8]) -> (ByteSet, &[u8]) {
    let mut set = ByteSet::default();
    let is_inverted = pattern.first() == Some(&b'^');
    if is_inverted {
        pattern = pattern.get(1..).unwrap_or_default();
    }
    let rest = loop {
        pattern = match pattern {
            [b'\\', byte, rest @ ..] => {
                set.insert(*byte);
                rest
            }
            [] => break pattern,
            [b']', rest @ ..] => break rest,
            [from, b'-', to, rest @ ..] => {
                for byte in *from.min(to)..=*from.max(to) {
                    set.insert(byte);
                }
                rest
            }
            [byte, rest @ ..] => {
                set.insert(*byte);
                rest
            }
        };
    };
    if is_inverted {
        set.invert();
    }
    (set, rest)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::new(pattern.as_bytes()).matches(text.as_bytes())
    }

    #[test]
    fn stars_marks_sets_and_escapes_mean_what_they_mean_in_redis() {
        let matching = [
            ("*", ""),
            ("", ""),
            ("h?llo", "hello"),
            ("h*llo", "heeeello"),
            ("h*llo", "hllo"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hallo"),
            ("a\\*b", "a*b"),
            ("[\\]]", "]"),
            ("a*b*c", "aXbYbZc"),
            ("**a**", "xay"),
            ("*?c*", "bc"),
            ("[abc", "b"),
            ("\\", "\\"),
            ("user:*:name", "user:12:name"),
            ("*[0-9]x", "aa1x"),
        ];
        for (pattern, text) in matching {
            assert!(matches(pattern, text), "{pattern:?} should match {text:?}");
        }
        let different = [
            ("h?llo", "hllo"),
            ("h[^e]llo", "hello"),
            ("a*b", "acbx"),
            ("", "a"),
            ("?", ""),
            ("[]", "]"),
            ("a*a", "a"),
            ("a\\*b", "aXb"),
            ("*[0-9]x", "aaax"),
            ("HELLO", "hello"),
        ];
        for (pattern, text) in different {
            assert!(
                !matches(pattern, text),
                "{pattern:?} should not match {text:?}"
            );
        }
    }

    /// The definition of a match, followed literally: exponential, for short inputs only.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
            ([], _) | (_, []) => false,
            ([b'?', rest @ ..], [_, text @ ..]) => naive(rest, text),
            ([b'[', rest @ ..], [byte, text @ ..]) => {
                let (set, rest) = byte_set(rest);
                set.contains(*byte) && naive(rest, text)
            }
            ([b'\\', own, rest @ ..] | [own, rest @ ..], [byte, text @ ..]) => {
                own == byte && naive(rest, text)
            }
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(
            pattern in r"[ab*?\[\]^\\-]{0,12}",
            text in "[ab^-]{0,12}",
        ) {
            let expected = naive(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(&pattern, &text), expected, "{} {}", pattern, text);
        }

        #[test]
        fn long_pieces_span_words(padding in 0_usize..200, len in 1_usize..200) {
            let pattern = format!("*{}?*", "a".repeat(len));
            let text = format!("{}{}", "b".repeat(padding), "a".repeat(len));
            let one_more = format!("{text}c");
            prop_assert!(!matches(&pattern, &text));
            prop_assert!(matches(&pattern, &one_more));
        }
    }

    #[test]
    fn bad_input_26_no_pattern_takes_more_than_linear_time() {
        let text = vec![b'a'; 4_096];
        let many_stars = "*a".repeat(511) + "b";
        let long_piece = format!("*{}?b*", "a".repeat(1_000));
        for pattern in [many_stars, long_piece] {
            let glob = Glob::new(pattern.as_bytes());
            let start = Instant::now();
            for _ in 0..10 {
                assert!(!glob.matches(&text));
            }
            // Stepping back would take 4 million steps per match and more; this takes 65 thousand.
            assert!(
                start.elapsed() < Duration::from_secs(1),
                "{:?}",
                start.elapsed()
            );
        }
    }
}
