//! Why a command is refused, in the words of Redis 7 where Redis has words for it.
//!
//! A refusal leaves the connection open and the cache as it was. Errors that name a rule of our own
//! begin with `ERR` and the rule, so that every client library files them under "response error".

use std::fmt::Write as _;

use nearcache::{KeyError, ModifyError, ReadError, WriteError};

use super::parser::Args;

/// Bytes of a client's words repeated in an error.
const QUOTED_BYTES_MAX: usize = 128;

/// The refusal of one command; what the client reads is its `Display`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("ERR unknown command '{name}', with args beginning with: {arguments}")]
    UnknownCommand { name: String, arguments: String },
    #[error("ERR unknown subcommand '{name}'. Try {command} HELP.")]
    UnknownSubcommand { name: String, command: String },
    #[error("ERR wrong number of arguments for '{name}' command")]
    Arity { name: &'static str },
    #[error("ERR command '{name}' is not supported")]
    NotSupported { name: String },
    #[error("ERR syntax error")]
    Syntax,
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    #[error("ERR increment or decrement would overflow")]
    WouldOverflow,
    #[error("ERR decrement would overflow")]
    DecrementWouldOverflow,
    #[error("ERR invalid expire time in '{command}' command")]
    ExpireTime { command: &'static str },
    #[error("ERR NX and XX, GT or LT options at the same time are not compatible")]
    NxWithOthers,
    #[error("ERR GT and LT options at the same time are not compatible")]
    GtWithLt,
    #[error("ERR Unsupported option {option}")]
    UnsupportedOption { option: String },
    #[error("ERR Syntax error in HELLO option '{option}'")]
    HelloOption { option: String },
    #[error("ERR Unrecognized option '{option}'")]
    UnrecognizedOption { option: String },
    #[error("ERR Unknown client type '{kind}'")]
    UnknownClientType { kind: String },
    #[error("ERR DB index is out of range")]
    DatabaseIndex,
    #[error("ERR invalid cursor")]
    Cursor,
    #[error("ERR {0}")]
    Other(&'static str),
    #[error("ERR KeyTooLong: key of {got_bytes} bytes exceeds the limit of {limit_bytes} bytes")]
    KeyTooLong {
        got_bytes: usize,
        limit_bytes: usize,
    },
    #[error(
        "ERR ValueTooLarge: value of {got_bytes} bytes exceeds the limit of {limit_bytes} bytes"
    )]
    ValueTooLarge {
        got_bytes: usize,
        limit_bytes: usize,
    },
    #[error(
        "ERR PatternTooLong: pattern of {got_bytes} bytes exceeds the limit of {limit_bytes} bytes"
    )]
    PatternTooLong {
        got_bytes: usize,
        limit_bytes: usize,
    },
    #[error("NOTFRESH this node could not make sure in time that it has what its peers have")]
    NotFresh,
    #[error("ERR InvalidFillToken: the token is not one that NC.GETFILL gave")]
    FillToken,
    #[error("BUSY too many requests are in flight in this process, try again")]
    Busy,
    #[error("NOAUTH Authentication required.")]
    AuthenticationRequired,
    #[error(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time"
    )]
    HelloAuthenticationRequired,
    #[error("WRONGPASS invalid username-password pair or user is disabled.")]
    WrongPassword,
    #[error("NOPROTO unsupported protocol version")]
    ProtocolVersion,
    /// The reply outgrew the output buffer; the connection is closed, nobody reads this.
    #[error("ERR reply exceeds the output buffer")]
    ReplyTooLarge,
    /// In Redis's word, so that client libraries take it for what it is.
    #[error("READONLY {0}")]
    ReadOnly(String),
    /// The cache refused or failed; begins with the name of its rule.
    #[error("ERR {rule}: {text}")]
    Cache { rule: &'static str, text: String },
}

impl CommandError {
    /// The refusal of a command that is not in the table.
    pub(crate) fn unknown_command(args: Args<'_>) -> Self {
        let mut arguments = String::new();
        for argument in args.from(1) {
            if arguments.len() >= QUOTED_BYTES_MAX {
                break;
            }
            let room = QUOTED_BYTES_MAX - arguments.len();
            // Writing to a string cannot fail.
            let _ = write!(arguments, "'{}' ", quoted(argument, room));
        }
        Self::UnknownCommand {
            name: quoted(args.at(0), QUOTED_BYTES_MAX),
            arguments,
        }
    }

    /// The refusal of a second word that the command does not have.
    pub(crate) fn unknown_subcommand(args: Args<'_>) -> Self {
        Self::UnknownSubcommand {
            name: quoted(args.at(1), QUOTED_BYTES_MAX),
            command: quoted(args.at(0), QUOTED_BYTES_MAX).to_ascii_uppercase(),
        }
    }

    /// The refusal of something Redis has and Nearcache has not.
    pub(crate) fn not_supported(name: &[u8]) -> Self {
        Self::NotSupported {
            name: quoted(name, QUOTED_BYTES_MAX),
        }
    }

    /// What kind of error this is, as a metric's label: few values, none made by a client.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownCommand { .. } | Self::UnknownSubcommand { .. } => {
                ErrorKind::UnknownCommand
            }
            Self::Arity { .. } => ErrorKind::Arity,
            Self::NotSupported { .. } => ErrorKind::NotSupported,
            Self::KeyTooLong { .. } => ErrorKind::KeyTooLong,
            Self::ValueTooLarge { .. } => ErrorKind::ValueTooLarge,
            Self::PatternTooLong { .. } => ErrorKind::PatternTooLong,
            Self::Busy => ErrorKind::Busy,
            Self::NotFresh => ErrorKind::NotFresh,
            Self::AuthenticationRequired | Self::HelloAuthenticationRequired => ErrorKind::NoAuth,
            Self::WrongPassword => ErrorKind::WrongPassword,
            Self::Cache { .. } | Self::ReadOnly(_) => ErrorKind::Cache,
            Self::Syntax
            | Self::NotInteger
            | Self::WouldOverflow
            | Self::DecrementWouldOverflow
            | Self::ExpireTime { .. }
            | Self::NxWithOthers
            | Self::GtWithLt
            | Self::UnsupportedOption { .. }
            | Self::HelloOption { .. }
            | Self::UnrecognizedOption { .. }
            | Self::UnknownClientType { .. }
            | Self::DatabaseIndex
            | Self::Cursor
            | Self::FillToken
            | Self::ProtocolVersion
            | Self::ReplyTooLarge
            | Self::Other(_) => ErrorKind::Argument,
        }
    }
}

impl From<ReadError> for CommandError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Key(error) => error.into(),
            other => Self::Cache {
                rule: "ReadFailed",
                text: other.to_string(),
            },
        }
    }
}

impl From<KeyError> for CommandError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::KeyTooLong {
                len_bytes,
                limit_bytes,
            } => Self::KeyTooLong {
                got_bytes: len_bytes,
                limit_bytes,
            },
            KeyError::Reserved => Self::Cache {
                rule: "ReservedKey",
                text: error.to_string(),
            },
            KeyError::EmptyKey => Self::Cache {
                rule: "EmptyKey",
                text: error.to_string(),
            },
            other => Self::Cache {
                rule: "InvalidKey",
                text: other.to_string(),
            },
        }
    }
}

impl From<WriteError> for CommandError {
    fn from(error: WriteError) -> Self {
        let rule = match error {
            WriteError::Key(error) => return error.into(),
            WriteError::ValueTooLarge {
                len_bytes,
                limit_bytes,
            } => {
                return Self::ValueTooLarge {
                    got_bytes: len_bytes,
                    limit_bytes,
                };
            }
            WriteError::ReadOnly => return Self::ReadOnly(error.to_string()),
            WriteError::InvalidTtl { .. } => "InvalidTtl",
            WriteError::TooLargeForCache { .. } => "TooLargeForCache",
            WriteError::TombstoneLimit => "TombstoneLimit",
            WriteError::Superseded { .. } => "Superseded",
            WriteError::AckTimeout { .. } => "AckTimeout",
            WriteError::AckAllBeyondMesh { .. } => "AckAllBeyondMesh",
            WriteError::ClockSkew => "ClockSkew",
            WriteError::NodeStopped => "NodeStopped",
            _ => "WriteFailed",
        };
        Self::Cache {
            rule,
            text: error.to_string(),
        }
    }
}

impl From<ModifyError> for CommandError {
    fn from(error: ModifyError) -> Self {
        let rule = match error {
            ModifyError::Write(error) => return error.into(),
            ModifyError::NotAnInteger => return Self::NotInteger,
            ModifyError::Overflow => return Self::WouldOverflow,
            ModifyError::Indeterminate => "Indeterminate",
            ModifyError::Busy => "HomeBusy",
            _ => "ModifyFailed",
        };
        Self::Cache {
            rule,
            text: error.to_string(),
        }
    }
}

/// The kinds of refusal that are counted apart.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelValue,
)]
pub(crate) enum ErrorKind {
    UnknownCommand,
    Arity,
    NotSupported,
    Argument,
    KeyTooLong,
    ValueTooLarge,
    PatternTooLong,
    Busy,
    NotFresh,
    NoAuth,
    WrongPassword,
    Cache,
}

/// At most `bytes_max` bytes of what a client said, fit to be shown.
pub(crate) fn quoted(bytes: &[u8], bytes_max: usize) -> String {
    let bytes = bytes.get(..bytes_max).unwrap_or(bytes);
    // As in C, where Redis's texts are made: a zero byte ends the text.
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_without_most_of_the_cluster_is_refused_in_the_word_of_redis() {
        let refusal = CommandError::from(WriteError::ReadOnly).to_string();
        assert!(
            refusal.starts_with("READONLY this node is apart"),
            "{refusal}"
        );
        assert!(refusal.contains("write through a node of the larger side"));
    }

    #[test]
    fn an_acknowledgement_by_all_beyond_the_mesh_is_refused_with_what_to_do() {
        let (members, mesh_max) = (70, 64);
        let refusal = CommandError::from(WriteError::AckAllBeyondMesh { members, mesh_max });
        let refusal = refusal.to_string();
        assert!(refusal.contains("AckAllBeyondMesh"), "{refusal}");
        assert!(refusal.contains("do not repeat it"), "{refusal}");
    }
}
