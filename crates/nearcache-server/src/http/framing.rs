//! Follows where requests begin and end in the bytes of one connection.
//!
//! hyper parses requests; this watches over its shoulder for two things it does not tell: whether a
//! request's head is on its way (for the header timeout) and whether a request gave its length twice,
//! by `Content-Length` and by `Transfer-Encoding`. hyper drops the first without a trace, and a proxy
//! that believed it would see other requests than we do (RFC 9112 section 6.1, request smuggling).
//!
//! Bytes are looked at once and not kept; a line longer than [`LINE_BYTES`] is cut, as no header that
//! matters here is.

/// As much of a line as is kept.
const LINE_BYTES: usize = 128;

/// Where in the stream of requests the connection is.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    line: Vec<u8>,
    length: Option<u64>,
    lengths_differ: bool,
    chunked: bool,
    encoded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between requests: nothing of the next has come.
    Idle,
    /// Within the request line or headers.
    Head,
    /// That many bytes of body are to come.
    Body(u64),
    /// At the line that gives the next chunk's size.
    ChunkSize,
    /// That many bytes of a chunk and its line end are to come.
    Chunk(u64),
    /// After the last chunk.
    Trailer,
    /// Not HTTP as far as this goes: hyper decides what to answer, nothing is followed any more.
    Lost,
}

/// A request that gives its length in two ways.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ambiguous {
    /// Index into the bytes just followed of the line end that completed the head.
    pub(super) at: usize,
}

impl Framing {
    pub(super) fn new() -> Self {
        Self {
            state: State::Idle,
            line: Vec::new(),
            length: None,
            lengths_differ: false,
            chunked: false,
            encoded: false,
        }
    }

    /// Whether the head of a request has begun and not ended.
    pub(super) fn in_head(&self) -> bool {
        self.state == State::Head
    }

    /// Whether the last request is complete and nothing of the next has come.
    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Follows the next bytes of the connection.
    ///
    /// # Errors
    /// [`Ambiguous`] at the end of a head that gives its length twice; nothing is followed after it.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<(), Ambiguous> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.state {
                State::Lost => return Ok(()),
                State::Body(left) => {
                    let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - taken as u64;
                    self.state = if left == 0 {
                        State::Idle
                    } else {
                        State::Body(left)
                    };
                    taken
                }
                State::Chunk(left) => {
                    let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - taken as u64;
                    self.state = if left == 0 {
                        State::ChunkSize
                    } else {
                        State::Chunk(left)
                    };
                    taken
                }
                State::Idle | State::Head | State::ChunkSize | State::Trailer => {
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    let taken = end.map_or(rest.len(), |end| end + 1);
                    self.keep(rest.get(..taken).unwrap_or_default());
                    if end.is_some() && self.line_ended() {
                        return Err(Ambiguous { at: at + taken - 1 });
                    }
                    taken
                }
            };
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.state == State::Idle {
            self.state = State::Head;
        }
        let room = LINE_BYTES.saturating_sub(self.line.len());
        self.line.extend(bytes.iter().take(room));
    }

    /// Acts on a complete line; true if it ended an ambiguous head.
    fn line_ended(&mut self) -> bool {
        let line = std::mem::take(&mut self.line);
        let text = line.trim_ascii();
        match self.state {
            State::Head if text.is_empty() => return self.head_ended(),
            State::Head => self.header(text),
            State::ChunkSize => {
                let digits = text.split(|byte| *byte == b';').next().unwrap_or_default();
                let size = std::str::from_utf8(digits.trim_ascii())
                    .ok()
                    .and_then(|digits| u64::from_str_radix(digits, 16).ok());
                self.state = match size {
                    Some(0) => State::Trailer,
                    Some(size) => State::Chunk(size.saturating_add(2)),
                    None => State::Lost,
                };
            }
            State::Trailer if text.is_empty() => self.state = State::Idle,
            State::Trailer | State::Idle | State::Body(_) | State::Chunk(_) | State::Lost => {}
        }
        self.line = line;
        self.line.clear();
        false
    }

    fn header(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return;
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok());
            self.lengths_differ |= self.length.is_some() && self.length != length;
            self.length = length.or(Some(0));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encoded = true;
            self.chunked = value.to_ascii_lowercase().ends_with(b"chunked");
        }
    }

    fn head_ended(&mut self) -> bool {
        let length = self.length.take();
        let (encoded, chunked) = (self.encoded, self.chunked);
        let ambiguous = (encoded && length.is_some()) || self.lengths_differ;
        (self.encoded, self.chunked, self.lengths_differ) = (false, false, false);
        self.state = match (encoded, chunked, length) {
            _ if ambiguous => State::Lost,
            (true, true, _) => State::ChunkSize,
            (true, false, _) => State::Lost,
            (false, _, Some(length)) if length > 0 => State::Body(length),
            (false, _, _) => State::Idle,
        };
        ambiguous
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows `bytes` whole and byte by byte; both must agree.
    fn follow(bytes: &[u8]) -> (Framing, Result<(), usize>) {
        let mut whole = Framing::new();
        let outcome = whole.follow(bytes).map_err(|ambiguous| ambiguous.at);
        let mut pieces = Framing::new();
        let bytewise = bytes.iter().enumerate().find_map(|(index, byte)| {
            pieces
                .follow(std::slice::from_ref(byte))
                .err()
                .map(|_| index)
        });
        assert_eq!(outcome.err(), bytewise);
        assert_eq!(whole.state, pieces.state);
        (whole, outcome)
    }

    #[test]
    fn requests_with_and_without_bodies_end_where_they_end() {
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\n\r\n",
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n",
        ] {
            let twice = format!("{request}{request}");
            let (framing, outcome) = follow(twice.as_bytes());
            assert_eq!(outcome, Ok(()));
            assert!(framing.is_idle(), "{request}: {:?}", framing.state);
            let (framing, _) = follow(format!("{request}G").as_bytes());
            assert!(framing.in_head(), "{request}");
        }
    }

    #[test]
    fn row_27_a_length_given_twice_is_seen_in_any_order_and_case() {
        for head in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "transfer-encoding: chunked\r\nCONTENT-LENGTH: 3\r\n",
            "Content-Length: 0\r\nA: b\r\nTransfer-Encoding: gzip, chunked\r\n",
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
        ] {
            let request = format!("PUT / HTTP/1.1\r\n{head}\r\n");
            assert_eq!(
                follow(request.as_bytes()).1,
                Err(request.len() - 1),
                "{head}"
            );
        }
    }

    #[test]
    fn a_body_that_looks_like_a_request_is_not_one() {
        let body = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        let request = format!(
            "PUT / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (framing, outcome) = follow(request.as_bytes());
        assert_eq!(outcome, Ok(()));
        assert!(framing.is_idle());
    }

    #[test]
    fn a_long_line_is_cut_and_the_state_bounded() {
        let mut framing = Framing::new();
        framing.follow(&[b'a'; 100_000]).unwrap();
        assert!(framing.line.len() <= LINE_BYTES && framing.in_head());
    }
}
