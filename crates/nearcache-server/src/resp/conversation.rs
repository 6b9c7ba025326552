//! One client's requests turned into replies: what a connection does between reading and writing.
//!
//! No socket, no clock and no task: bytes in, bytes out, and a [`Step`] that says what the connection
//! must do next. Tests and the fuzz target drive it directly.

use crate::limits::{Limits, Pressure};

use super::{
    buffers::Input,
    commands::{self, Outcome, Waiting},
    error::CommandError,
    metrics::CloseReason,
    parser::{Bounds, Parser, Progress},
    session::Session,
    writer::Writer,
};

/// Replies are handed to the socket once they are this long, even within a batch of requests.
const FLUSH_BYTES: usize = 64 << 10;
/// What may be said to a client before it has authenticated.
const UNAUTHENTICATED_OUTPUT_BYTES: usize = 4 << 10;

/// What a connection must do next.
pub(crate) enum Step {
    /// Write the replies, then read: every request there was is answered.
    NeedInput,
    /// Write the replies, then go on: there are more requests.
    Flush,
    /// Wait for the reply of a command, see it written, and go on.
    Wait(Waiting),
    /// Write the replies, then close.
    Close(CloseReason),
}

/// The requests and replies of one connection.
#[derive(Debug)]
pub(crate) struct Conversation {
    parser: Parser,
    session: Session,
    bounds: Bounds,
    has_begun: bool,
    /// Requests whose replies are not handed to the socket yet.
    in_flight: usize,
    /// Whether a request was completed since [`Self::take_completed`].
    has_completed: bool,
}

impl Conversation {
    pub(crate) fn new(session: Session) -> Self {
        let bounds = bounds_of(&session);
        Self {
            parser: Parser::default(),
            session,
            bounds,
            has_begun: false,
            in_flight: 0,
            has_completed: false,
        }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Whether a request has begun that is not complete; `input` is what is left of the bytes.
    pub(crate) fn is_within_request(&self, input: &Input) -> bool {
        self.parser.is_within_request() || !input.is_empty()
    }

    /// Whether a request was completed since this was asked before.
    pub(crate) fn take_completed(&mut self) -> bool {
        std::mem::take(&mut self.has_completed)
    }

    /// Notes that the replies written so far were handed to the socket.
    pub(crate) fn flushed(&mut self) {
        self.in_flight = 0;
    }

    /// Answers requests from `input` until something else must happen first.
    ///
    /// Never blocks. At most the limit of requests in flight are answered between two calls of
    /// [`Self::flushed`].
    pub(crate) fn advance(&mut self, input: &mut Input, reply: &mut Writer) -> Step {
        if !self.has_begun && !input.is_empty() {
            if is_tls(input.unread()) {
                return Step::Close(CloseReason::Tls);
            }
            self.has_begun = true;
        }
        let is_shedding = self.session.context().memory.pressure() >= Pressure::Shed;
        loop {
            if self.in_flight >= self.limits().requests_in_flight || reply.len() >= FLUSH_BYTES {
                return Step::Flush;
            }
            let outcome = match self.parser.parse(input.unread(), &self.bounds) {
                Ok(Progress::Incomplete { discard }) => {
                    input.consume(discard);
                    return Step::NeedInput;
                }
                Ok(Progress::Request { len }) => {
                    let args = self.parser.args(input.unread());
                    let outcome = if args.len() == 0 {
                        Outcome::Done
                    } else {
                        commands::dispatch(args, &mut self.session, reply, is_shedding)
                    };
                    input.consume(len);
                    outcome
                }
                Ok(Progress::Oversized { len, longest }) => {
                    input.consume(len);
                    let limit_bytes = self.limits().value_bytes;
                    let error = CommandError::ValueTooLarge {
                        got_bytes: longest,
                        limit_bytes,
                    };
                    commands::refuse(&error, &self.session, reply)
                }
                Err(error) => {
                    reply.error(&format!("ERR {error}"));
                    return Step::Close(CloseReason::Protocol);
                }
            };
            self.in_flight += 1;
            self.has_completed = true;
            if reply.len() > self.limits().output_hard_bytes {
                return Step::Close(CloseReason::OutputBuffer);
            }
            match outcome {
                Outcome::Done => {}
                Outcome::Wait(waiting) => return Step::Wait(waiting),
                Outcome::Close(reason) => return Step::Close(reason),
            }
            if !self.bounds.authenticated && !self.may_go_on_unauthenticated(reply) {
                return Step::Close(CloseReason::Unauthenticated);
            }
        }
    }

    /// Writes what a waiting command came to.
    pub(crate) fn answer(
        &mut self,
        answer: Result<commands::Reply, CommandError>,
        reply: &mut Writer,
    ) -> Option<CloseReason> {
        match answer {
            Ok(answer) => answer.write(reply),
            Err(error) => match commands::refuse(&error, &self.session, reply) {
                Outcome::Close(reason) => return Some(reason),
                Outcome::Done | Outcome::Wait(_) => {}
            },
        }
        (reply.len() > self.limits().output_hard_bytes).then_some(CloseReason::OutputBuffer)
    }

    fn limits(&self) -> &Limits {
        &self.session.context().limits
    }

    /// Takes note of an identity just given; without one, little may be said.
    fn may_go_on_unauthenticated(&mut self, reply: &Writer) -> bool {
        if self.session.is_authenticated() {
            self.bounds = bounds_of(&self.session);
            return true;
        }
        reply.len() <= UNAUTHENTICATED_OUTPUT_BYTES
    }
}

fn bounds_of(session: &Session) -> Bounds {
    let limits = &session.context().limits;
    if session.is_authenticated() {
        Bounds::authenticated(limits)
    } else {
        Bounds::unauthenticated(limits)
    }
}

/// Whether a connection begins like TLS: a handshake record of version 3.x.
fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x16, 0x03, ..])
}
