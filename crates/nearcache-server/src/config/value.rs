//! A setting's value before it has a type: from TOML, or text from a variable or flag.
//!
//! The accessors turn it into what the setting needs, or into a [`Rejection`] that names what was
//! expected and, where that can be guessed, what to write.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::units::{self, UnitError};

/// A value on its way into a setting.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array.
    List(Vec<Self>),
    /// An inline table with one field, which some settings accept instead of a word.
    Field(String, Box<Self>),
    /// Text from a variable or flag, where everything is text and lists are separated by commas.
    Loose(String),
    /// Anything no setting accepts, by the name TOML gives it.
    Other(&'static str),
}

/// Why a setting does not take a value. State is unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

impl Rejection {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            suggestion: None,
        }
    }

    pub(crate) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

impl Value {
    pub(crate) fn text(&self) -> Result<String, Rejection> {
        match self {
            Self::Text(text) | Self::Loose(text) if text.is_empty() => {
                Err(Rejection::new("must not be empty"))
            }
            Self::Text(text) | Self::Loose(text) => Ok(text.clone()),
            _ => Err(self.expected("text").suggest("put it in quotes")),
        }
    }

    pub(crate) fn flag(&self) -> Result<bool, Rejection> {
        match self {
            Self::Bool(value) => Ok(*value),
            Self::Loose(text) if text == "true" => Ok(true),
            Self::Loose(text) if text == "false" => Ok(false),
            _ => Err(self.expected("true or false")),
        }
    }

    pub(crate) fn count(&self) -> Result<usize, Rejection> {
        let number = match self {
            Self::Integer(number) => usize::try_from(*number).ok(),
            Self::Loose(text) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| self.expected("a whole number"))
    }

    pub(crate) fn duration(&self) -> Result<Duration, Rejection> {
        let duration = match self {
            Self::Integer(number) => Err(UnitError::Missing {
                number: number.to_string(),
            }),
            Self::Text(text) | Self::Loose(text) => units::parse_duration(text),
            _ => {
                return Err(self
                    .expected("a duration")
                    .suggest("write for example \"500ms\""));
            }
        };
        let duration = duration.map_err(|error| unit_rejection(&error, "duration", "s", "ms"))?;
        if duration.is_zero() {
            Err(Rejection::new("must be more than zero"))
        } else {
            Ok(duration)
        }
    }

    pub(crate) fn size(&self) -> Result<u64, Rejection> {
        let size = match self {
            Self::Integer(number) => Err(UnitError::Missing {
                number: number.to_string(),
            }),
            Self::Text(text) | Self::Loose(text) => units::parse_size(text),
            _ => {
                return Err(self
                    .expected("a size")
                    .suggest("write for example \"64MiB\""));
            }
        };
        let size = size.map_err(|error| unit_rejection(&error, "size", "MiB", "B"))?;
        if size == 0 {
            Err(Rejection::new("must be more than zero"))
        } else {
            Ok(size)
        }
    }

    pub(crate) fn size_usize(&self) -> Result<usize, Rejection> {
        usize::try_from(self.size()?).map_err(|_| Rejection::new("too large for this machine"))
    }

    pub(crate) fn address(&self) -> Result<SocketAddr, Rejection> {
        let text = self.text()?;
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
            None => text.clone(),
        };
        numeric.parse().map_err(|_| {
            let rejection = Rejection::new(format!("`{text}` is not an address with a port"));
            if text.parse::<std::net::IpAddr>().is_ok() || text == "localhost" {
                rejection.suggest(format!("add a port, for example \"{text}:7001\""))
            } else if let Ok(port) = text.trim_start_matches([':', '*']).parse::<u16>() {
                rejection.suggest(format!("write \"127.0.0.1:{port}\""))
            } else {
                rejection.suggest("write an IP address and a port, for example \"127.0.0.1:7001\"")
            }
        })
    }

    pub(crate) fn list(&self) -> Result<Vec<String>, Rejection> {
        match self {
            Self::List(items) => items.iter().map(Self::text).collect(),
            Self::Loose(text) => Ok(text
                .split(',')
                .map(str::trim)
                .filter(|s| !s.is_empty())
                .map(String::from)
                .collect()),
            Self::Text(text) => Err(self
                .expected("a list")
                .suggest(format!("write [\"{text}\"]"))),
            _ => Err(self.expected("a list of texts")),
        }
    }

    /// The value of the field `name`, if this is a table of that field alone; `name=value` in a variable or flag.
    pub(crate) fn only_field(&self, name: &str) -> Option<Self> {
        match self {
            Self::Field(field, value) if field == name => Some((**value).clone()),
            Self::Loose(text) => {
                let (field, value) = text.split_once('=')?;
                (field.trim() == name).then(|| Self::Loose(value.trim().to_owned()))
            }
            _ => None,
        }
    }

    fn expected(&self, what: &str) -> Rejection {
        let found = match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "an integer",
            Self::Bool(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Field(..) => "a table",
            Self::Loose(text) => return Rejection::new(format!("expected {what}, found `{text}`")),
            Self::Other(name) => name,
        };
        Rejection::new(format!("expected {what}, found {found}"))
    }
}

fn unit_rejection(error: &UnitError, what: &str, large: &str, small: &str) -> Rejection {
    match error {
        UnitError::Missing { number } => Rejection::new(format!("{what} without a unit"))
            .suggest(format!("write \"{number}{large}\" or \"{number}{small}\"")),
        UnitError::Unknown { unit } => {
            let known = if what == "size" {
                "B, KiB, MiB, GiB, kB, MB, GB"
            } else {
                "ms, s, m, h, d"
            };
            Rejection::new(format!("unknown unit `{unit}` in a {what}"))
                .suggest(format!("use {known}"))
        }
        UnitError::NotANumber => Rejection::new(format!("not a {what}")).suggest(format!(
            "write a number and a unit, for example \"5{large}\""
        )),
        UnitError::TooLarge => Rejection::new(format!("{what} too large")),
    }
}
