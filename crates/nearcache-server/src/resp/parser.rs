//! Cuts a client's bytes into requests, without copying them.
//!
//! The connection hands over what has arrived since the current request began, as often as it likes;
//! the parser remembers how far it got. A complete request is a list of ranges into those bytes
//! ([`Args`]). Every declared length is checked against the [`Bounds`] before anything is reserved
//! for it, and an argument longer than a value may be is skipped as it arrives, never held.
//!
//! ```text
//! *3 $3 SET $1 k $5 value ──┐
//! SET k value (one line) ───┴── Parser ── Args ── command table
//! ```
//!
//! The error texts are those of Redis 7, which clients recognise. Redis is laxer in three places: it
//! ignores a negative count and does not look at the bytes after an argument or after a `\r`; here
//! these are protocol errors, because what follows them cannot be trusted to be what the client meant.

use crate::limits::Limits;

mod args;
mod inline;
mod number;

use args::ArgRange;
pub(crate) use args::Args;
pub(crate) use number::{parse_i64, parse_u64};

/// Longest request of a client that has not authenticated: arguments, and bytes of each.
const UNAUTHENTICATED_ARGUMENTS: usize = 10;
const UNAUTHENTICATED_ARGUMENT_BYTES: usize = 16 << 10;

/// Ranges kept for the next request; a longer list is freed after its request.
const KEPT_RANGES: usize = 64;

/// What a request may declare. Follows from [`Limits`] and from whether the client authenticated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) arguments: usize,
    pub(crate) argument_bytes: usize,
    pub(crate) request_bytes: usize,
    pub(crate) line_bytes: usize,
    pub(crate) authenticated: bool,
}

impl Bounds {
    /// Bounds of a client that may run commands.
    pub(crate) fn authenticated(limits: &Limits) -> Self {
        Self {
            arguments: limits.request_arguments,
            argument_bytes: limits.value_bytes.max(limits.key_bytes),
            request_bytes: limits.request_bytes,
            line_bytes: limits.inline_bytes,
            authenticated: true,
        }
    }

    /// Bounds of a client that has yet to say who it is.
    pub(crate) fn unauthenticated(limits: &Limits) -> Self {
        Self {
            arguments: UNAUTHENTICATED_ARGUMENTS.min(limits.request_arguments),
            argument_bytes: UNAUTHENTICATED_ARGUMENT_BYTES,
            request_bytes: UNAUTHENTICATED_ARGUMENTS * UNAUTHENTICATED_ARGUMENT_BYTES,
            line_bytes: UNAUTHENTICATED_ARGUMENT_BYTES.min(limits.inline_bytes),
            authenticated: false,
        }
    }
}

/// Why a client's bytes are not a request. The connection is told and closed: where the next request
/// begins cannot be known any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("Protocol error: invalid multibulk length")]
    MultibulkLength,
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    #[error("Protocol error: expected CRLF after bulk")]
    BulkEnd,
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    #[error("Protocol error: too big mbulk count string")]
    MultibulkCountTooBig,
    #[error("Protocol error: too big bulk count string")]
    BulkCountTooBig,
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    #[error("Protocol error: request is larger than {limit_bytes} bytes")]
    RequestTooBig { limit_bytes: usize },
}

/// What the bytes seen so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The request goes on. The first `discard` bytes are of no further use: drop them and hand over
    /// the rest, with what arrives next, from its new beginning.
    Incomplete { discard: usize },
    /// The first `len` bytes are one request: read it with [`Parser::args`], then drop them. It has
    /// no arguments when the line was blank.
    Request { len: usize },
    /// The first `len` bytes end a request of which an argument was too long to be held. `longest`
    /// is the length of that argument.
    Oversized { len: usize, longest: usize },
}

/// The state between two calls of [`Parser::parse`]: one request, partly seen.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// Bytes of the request that need not be looked at again.
    taken: usize,
    /// Bytes behind `taken` already searched for the end of a line.
    searched: usize,
    /// Arguments still to come; zero between requests.
    missing: usize,
    /// Declared length of the argument whose bytes are being awaited.
    awaited: Option<usize>,
    /// Declared bytes of all arguments of this request.
    declared_bytes: usize,
    /// Longest argument, once one was too long; from then on nothing of the request is kept.
    oversized: Option<usize>,
    /// Bytes of such an argument still to be skipped; its line end is then awaited.
    skip: usize,
    ranges: Vec<ArgRange>,
    /// Arguments of a request in one line, unquoted; `ranges` point here when `is_inline`.
    unquoted: Vec<u8>,
    is_inline: bool,
}

impl Parser {
    /// Goes on with the request that `input` begins with.
    ///
    /// Cost: linear in the bytes not seen before; allocates only to hold more ranges than any
    /// request before had.
    ///
    /// # Errors
    /// The first rule of the protocol, or of `bounds`, that the bytes break. The parser must not be
    /// used again.
    pub(crate) fn parse(
        &mut self,
        input: &[u8],
        bounds: &Bounds,
    ) -> Result<Progress, ProtocolError> {
        if self.missing == 0 {
            self.forget_request();
            match input.first() {
                None => return Ok(Progress::Incomplete { discard: 0 }),
                Some(b'*') => {
                    let Some(count) = self.count(input, bounds)? else {
                        return Ok(Progress::Incomplete { discard: 0 });
                    };
                    if count == 0 {
                        return Ok(Progress::Request { len: self.taken });
                    }
                    self.missing = count;
                }
                Some(_) => return self.inline(input, bounds),
            }
        }
        self.arguments(input, bounds)
    }

    /// The arguments of the request that [`Self::parse`] just found in `input`.
    pub(crate) fn args<'a>(&'a self, input: &'a [u8]) -> Args<'a> {
        let bytes = if self.is_inline {
            &self.unquoted
        } else {
            input
        };
        Args::new(bytes, &self.ranges)
    }

    /// Whether a request has begun and not ended.
    pub(crate) fn is_within_request(&self) -> bool {
        self.missing > 0
    }

    fn forget_request(&mut self) {
        self.taken = 0;
        self.declared_bytes = 0;
        self.oversized = None;
        self.is_inline = false;
        self.ranges.clear();
        if self.ranges.capacity() > KEPT_RANGES {
            self.ranges = Vec::new();
        }
        if self.unquoted.capacity() > 0 {
            self.unquoted = Vec::new();
        }
    }

    /// Reads `*<count>`; `None` if its line is not complete.
    fn count(&mut self, input: &[u8], bounds: &Bounds) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = self
            .line(input, bounds.line_bytes)
            .map_err(|TooLong| ProtocolError::MultibulkCountTooBig)?
        else {
            return Ok(None);
        };
        let count = line
            .and_then(parse_u64)
            .and_then(|count| usize::try_from(count).ok())
            .ok_or(ProtocolError::MultibulkLength)?;
        if count > bounds.arguments {
            return Err(if bounds.authenticated {
                ProtocolError::MultibulkLength
            } else {
                ProtocolError::UnauthenticatedMultibulkLength
            });
        }
        Ok(Some(count))
    }

    /// Reads `$<length>` and the bytes it announces, for every argument that is missing.
    fn arguments(&mut self, input: &[u8], bounds: &Bounds) -> Result<Progress, ProtocolError> {
        while self.missing > 0 {
            if self.skip > 0 {
                let skipped = self.skip.min(input.len() - self.taken);
                self.skip -= skipped;
                self.taken += skipped;
                if self.skip > 0 {
                    return Ok(self.incomplete());
                }
            }
            let length = match self.awaited {
                Some(length) => length,
                None => {
                    let Some(length) = self.length(input, bounds)? else {
                        return Ok(self.incomplete());
                    };
                    if length > bounds.argument_bytes {
                        self.oversized = self.oversized.max(Some(length));
                        self.skip = length;
                        self.awaited = Some(0);
                        continue;
                    }
                    self.awaited = Some(length);
                    length
                }
            };
            let end = self.taken + length;
            match input.get(end..end + 2) {
                Some(b"\r\n") => {}
                Some(_) => return Err(ProtocolError::BulkEnd),
                None => return Ok(self.incomplete()),
            }
            if self.oversized.is_none() {
                self.ranges.push(ArgRange::new(self.taken, end));
            }
            self.taken = end + 2;
            self.awaited = None;
            self.missing -= 1;
        }
        Ok(match self.oversized {
            None => Progress::Request { len: self.taken },
            Some(longest) => Progress::Oversized {
                len: self.taken,
                longest,
            },
        })
    }

    /// Reads `$<length>`; `None` if its line is not complete.
    fn length(&mut self, input: &[u8], bounds: &Bounds) -> Result<Option<usize>, ProtocolError> {
        match input.get(self.taken) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::ExpectedBulk(other)),
        }
        let Some(line) = self
            .line(input, bounds.line_bytes)
            .map_err(|TooLong| ProtocolError::BulkCountTooBig)?
        else {
            return Ok(None);
        };
        let length = line
            .and_then(parse_u64)
            .and_then(|length| usize::try_from(length).ok())
            .filter(|&length| !bounds.authenticated || length <= bounds.request_bytes)
            .ok_or(ProtocolError::BulkLength)?;
        if !bounds.authenticated && length > bounds.argument_bytes {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        self.declared_bytes = self.declared_bytes.saturating_add(length);
        if self.declared_bytes > bounds.request_bytes {
            return Err(ProtocolError::RequestTooBig {
                limit_bytes: bounds.request_bytes,
            });
        }
        Ok(Some(length))
    }

    /// Takes one line that begins at `taken`, without its first byte and its `\r\n`.
    /// `None`: it has no end yet. `Some(None)`: its `\r` is not followed by `\n`.
    fn line<'a>(
        &mut self,
        input: &'a [u8],
        line_bytes_max: usize,
    ) -> Result<Option<Option<&'a [u8]>>, TooLong> {
        let rest = input.get(self.taken..).unwrap_or_default();
        // Nearly every line is `$3\r\n` or so: look at the first bytes before calling the searcher.
        let unsearched = rest.get(self.searched..).unwrap_or_default();
        let found = match unsearched.iter().take(8).position(|&byte| byte == b'\r') {
            None if unsearched.len() > 8 => memchr::memchr(b'\r', unsearched),
            found => found,
        };
        let Some(end) = found.map(|at| at + self.searched) else {
            if rest.len() > line_bytes_max {
                return Err(TooLong);
            }
            self.searched = rest.len();
            return Ok(None);
        };
        if end > line_bytes_max {
            return Err(TooLong);
        }
        let Some(&after) = rest.get(end + 1) else {
            self.searched = end;
            return Ok(None);
        };
        self.searched = 0;
        self.taken += end + 2;
        Ok(Some(
            (after == b'\n').then(|| rest.get(1..end).unwrap_or_default()),
        ))
    }

    /// Reads a request that is one line of text, as a person types it.
    fn inline(&mut self, input: &[u8], bounds: &Bounds) -> Result<Progress, ProtocolError> {
        let unsearched = input.get(self.searched..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', unsearched).map(|at| at + self.searched) else {
            if input.len() > bounds.line_bytes {
                return Err(ProtocolError::InlineTooBig);
            }
            self.searched = input.len();
            return Ok(Progress::Incomplete { discard: 0 });
        };
        if end > bounds.line_bytes {
            return Err(ProtocolError::InlineTooBig);
        }
        self.searched = 0;
        self.is_inline = true;
        let line = input.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        inline::split(line, &mut self.unquoted, &mut self.ranges)
            .map_err(|inline::UnbalancedQuotes| ProtocolError::UnbalancedQuotes)?;
        if self.ranges.len() > bounds.arguments {
            return Err(ProtocolError::InlineTooBig);
        }
        Ok(Progress::Request { len: end + 1 })
    }

    /// The request goes on; once an argument was too long, nothing behind us is needed.
    fn incomplete(&mut self) -> Progress {
        if self.oversized.is_none() {
            return Progress::Incomplete { discard: 0 };
        }
        let discard = self.taken;
        self.taken = 0;
        self.ranges.clear();
        Progress::Incomplete { discard }
    }
}

/// A line does not end within the bound.
struct TooLong;

#[cfg(test)]
mod tests;
