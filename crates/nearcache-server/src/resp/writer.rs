//! Encodes replies, in RESP2 or RESP3 as the client chose, straight into the output buffer.
//!
//! One [`Writer`] lives as long as a batch of pipelined requests; its buffer goes to the socket in
//! one call. Values are copied once, from the shared entry into the buffer.

/// The revision of the protocol that a client speaks; changed by `HELLO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Protocol {
    /// What a client speaks that never said otherwise.
    #[default]
    Resp2,
    /// Has maps, sets, nulls and verbatim text.
    Resp3,
}

impl Protocol {
    /// Its number, as `HELLO` and `CLIENT INFO` show it.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}

/// An output buffer that knows how to encode replies.
///
/// Aggregates are announced by their length; the caller then writes as many elements.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    out: Vec<u8>,
    protocol: Protocol,
}

impl Writer {
    /// Writes behind what `out` holds.
    pub(crate) fn new(out: Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// Gives the buffer back.
    pub(crate) fn into_inner(self) -> Vec<u8> {
        self.out
    }

    /// What has been written and not taken by the socket.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// What the buffer occupies.
    pub(crate) fn capacity(&self) -> usize {
        self.out.capacity()
    }

    /// Forgets what the socket took.
    pub(crate) fn clear(&mut self) {
        self.out.clear();
    }

    /// The number of bytes written and not taken by the socket.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// Where the next reply begins; see [`Self::take_back`].
    pub(crate) fn mark(&self) -> usize {
        self.out.len()
    }

    /// Forgets what was written since `mark`.
    pub(crate) fn take_back(&mut self, mark: usize) {
        self.out.truncate(mark);
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(crate) fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// `+text`: a short constant.
    pub(crate) fn simple(&mut self, text: &str) {
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.end_line();
    }

    pub(crate) fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// `-text`. What a client sent may be part of `text`: line ends in it become blanks.
    pub(crate) fn error(&mut self, text: &str) {
        self.out.push(b'-');
        self.out.extend(text.bytes().map(|byte| {
            if matches!(byte, b'\r' | b'\n') {
                b' '
            } else {
                byte
            }
        }));
        self.end_line();
    }

    pub(crate) fn integer(&mut self, value: i64) {
        self.out.push(b':');
        self.out
            .extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        self.end_line();
    }

    /// A count as an integer.
    pub(crate) fn count(&mut self, count: usize) {
        self.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// `$`: a string of any bytes.
    pub(crate) fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 32);
        self.header(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.end_line();
    }

    /// No value.
    pub(crate) fn null(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// A list of `len` elements.
    pub(crate) fn array(&mut self, len: usize) {
        self.header(b'*', len);
    }

    /// `len` pairs of key and value; in RESP2 a list of twice as many elements.
    pub(crate) fn map(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', len.saturating_mul(2)),
            Protocol::Resp3 => self.header(b'%', len),
        }
    }

    /// `len` elements whose order means nothing; in RESP2 a list.
    pub(crate) fn set(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', len),
            Protocol::Resp3 => self.header(b'~', len),
        }
    }

    /// Text to be shown to a person as it is; in RESP2 a string.
    pub(crate) fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.header(b'=', text.len() + 4);
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text.as_bytes());
                self.end_line();
            }
        }
    }

    fn header(&mut self, kind: u8, len: usize) {
        self.out.push(kind);
        self.out
            .extend_from_slice(itoa::Buffer::new().format(len).as_bytes());
        self.end_line();
    }

    fn end_line(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(protocol: Protocol, write: impl FnOnce(&mut Writer)) -> String {
        let mut writer = Writer::new(Vec::new(), protocol);
        write(&mut writer);
        String::from_utf8(writer.into_inner()).unwrap()
    }

    #[test]
    fn both_revisions_spell_what_they_have_in_common_alike() {
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let text = written(protocol, |writer| {
                writer.ok();
                writer.simple("PONG");
                writer.error("ERR no\r\nnot so");
                writer.integer(i64::MIN);
                writer.array(1);
                writer.bulk(b"");
            });
            assert_eq!(
                text,
                "+OK\r\n+PONG\r\n-ERR no  not so\r\n:-9223372036854775808\r\n*1\r\n$0\r\n\r\n"
            );
        }
    }

    #[test]
    fn only_the_third_revision_has_types_for_maps_sets_nulls_and_text() {
        let write = |writer: &mut Writer| {
            writer.null();
            writer.map(2);
            writer.set(2);
            writer.verbatim("hi");
        };
        assert_eq!(
            written(Protocol::Resp2, write),
            "$-1\r\n*4\r\n*2\r\n$2\r\nhi\r\n"
        );
        assert_eq!(
            written(Protocol::Resp3, write),
            "_\r\n%2\r\n~2\r\n=6\r\ntxt:hi\r\n"
        );
    }
}
