//! The commands: one table, and what runs each of them.
//!
//! [`dispatch`] finds the command's line in [`COMMANDS`], checks what the line says (arguments,
//! identity, pressure) and calls the handler named there. A handler reads its arguments where they
//! arrived and writes its reply into the output buffer; only one that must ask another node returns a
//! future, which owns what it needs.
//!
//! ```text
//! Args ── dispatch ── table line ── handler ──┬── reply written
//!                                             ├── Waiting: awaited by the connection, then written
//!                                             └── CommandError: written by dispatch
//! ```

use std::{future::Future, pin::Pin};

use crate::caches::RawCache;

use super::{
    error::CommandError, metrics::CloseReason, parser::Args, session::Session, writer::Writer,
};

mod client;
mod command;
mod config;
mod connection;
mod counters;
mod expiry;
mod fresh;
mod info;
mod keys;
mod options;
mod reply;
mod scan;
mod server;
mod set;
mod strings;
mod table;
mod unsupported;

pub(crate) use reply::Reply;
pub(crate) use table::{COMMANDS, Command, CommandId, Flag};

/// What a handler is given.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) args: Args<'a>,
    pub(crate) session: &'a mut Session,
    pub(crate) reply: &'a mut Writer,
    pub(crate) command: &'static Command,
}

/// A reply that takes an answer from another node, or more than one turn.
pub(crate) type Waiting = Pin<Box<dyn Future<Output = Result<Reply, CommandError>> + Send>>;

/// How far a command got.
pub(crate) enum Outcome {
    /// Its reply is written.
    Done,
    /// Its reply is what this future gives.
    Wait(Waiting),
    /// Its reply is written, and is the last of this connection.
    Close(CloseReason),
}

pub(crate) type Handler = fn(&mut Call<'_>) -> Result<Outcome, CommandError>;

impl<'a> Call<'a> {
    /// The argument at `index`, which must be an integer.
    pub(crate) fn integer(&self, index: usize) -> Result<i64, CommandError> {
        super::parser::parse_i64(self.args.at(index)).ok_or(CommandError::NotInteger)
    }

    /// The argument at `index` as a key.
    pub(crate) fn key(&self, index: usize) -> Result<&'a [u8], CommandError> {
        let key = self.args.at(index);
        let limit_bytes = self.session.context().limits.key_bytes;
        if key.len() > limit_bytes {
            return Err(CommandError::KeyTooLong {
                got_bytes: key.len(),
                limit_bytes,
            });
        }
        Ok(key)
    }

    /// The argument at `index` as a value.
    pub(crate) fn value(&self, index: usize) -> Result<&'a [u8], CommandError> {
        let value = self.args.at(index);
        let limit_bytes = self.session.context().limits.value_bytes;
        if value.len() > limit_bytes {
            return Err(CommandError::ValueTooLarge {
                got_bytes: value.len(),
                limit_bytes,
            });
        }
        Ok(value)
    }

    /// Cluster time in ms since the Unix epoch. Cost: one load.
    pub(crate) fn now_ms(&self) -> u64 {
        self.session.context().node.clock().now_ms()
    }

    pub(crate) fn database(&self) -> &RawCache {
        self.session.database()
    }

    /// Fails once the reply has outgrown the output buffer, so that one command cannot.
    pub(crate) fn check_output(&self) -> Result<(), CommandError> {
        if self.reply.len() > self.session.context().limits.output_hard_bytes {
            return Err(CommandError::ReplyTooLarge);
        }
        Ok(())
    }
}

/// Waits for `future` and replies with what it gives.
pub(crate) fn wait(
    future: impl Future<Output = Result<Reply, CommandError>> + Send + 'static,
) -> Result<Outcome, CommandError> {
    Ok(Outcome::Wait(Box::pin(future)))
}

/// Runs the command that `args` spell. `is_shedding`: the process holds too many requests.
///
/// Refusals are written as replies. Cost beside the handler's: one look-up without allocation.
pub(crate) fn dispatch(
    args: Args<'_>,
    session: &mut Session,
    reply: &mut Writer,
    is_shedding: bool,
) -> Outcome {
    let Some(id) = table::find(args.at(0)) else {
        return refuse_unknown(args, session, reply);
    };
    let command = id.command();
    session.client.set_command(id);
    session.counters.count_command(id);
    let mut call = Call {
        args,
        session,
        reply,
        command,
    };
    match run(&mut call, is_shedding) {
        Ok(outcome) => outcome,
        Err(error) => refuse(&error, call.session, call.reply),
    }
}

fn run(call: &mut Call<'_>, is_shedding: bool) -> Result<Outcome, CommandError> {
    let command = call.command;
    if !command.accepts(call.args.len()) {
        return Err(CommandError::Arity {
            name: command.full_name,
        });
    }
    if !call.session.is_authenticated() && !command.has(Flag::NoAuth) {
        return Err(CommandError::AuthenticationRequired);
    }
    if is_shedding && command.has(Flag::ReadOnly) && command.takes_keys() {
        return Err(CommandError::Busy);
    }
    (command.run)(call)
}

/// Writes a refusal and counts it.
pub(crate) fn refuse(error: &CommandError, session: &Session, reply: &mut Writer) -> Outcome {
    if *error == CommandError::ReplyTooLarge {
        return Outcome::Close(CloseReason::OutputBuffer);
    }
    session.context().metrics.count_error(error.kind());
    reply.error(&error.to_string());
    if session.has_failed_too_often() {
        return Outcome::Close(CloseReason::Unauthenticated);
    }
    Outcome::Done
}

/// Answers a name that is not in the table: HTTP, a command of Redis that we lack, or nonsense.
fn refuse_unknown(args: Args<'_>, session: &Session, reply: &mut Writer) -> Outcome {
    let name = args.at(0);
    if unsupported::is_http(name) {
        let text = match session.context().http_address {
            Some(address) => format!(
                "ERR this port speaks the Redis protocol, not HTTP; HTTP is served on http://{address}/"
            ),
            None => "ERR this port speaks the Redis protocol, not HTTP, and HTTP is not served"
                .to_owned(),
        };
        reply.error(&text);
        session.server.log_http_on_resp_port(&session.client.peer());
        return Outcome::Close(CloseReason::Http);
    }
    let error = if !session.is_authenticated() {
        CommandError::AuthenticationRequired
    } else if unsupported::is_command_of_redis(name) {
        CommandError::not_supported(name)
    } else {
        CommandError::unknown_command(args)
    };
    refuse(&error, session, reply)
}
