//! What is wrong with a configuration, where, and what to do about it.
//!
//! Every source of settings reports in this one shape, so that a slip in the file, in a variable and
//! in a flag read alike: `nearcache.toml:5:1: unknown key `lisen` in [http]; did you mean `listen`?`

use std::fmt;
use std::path::PathBuf;

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// A position in the configuration file; line and column count from 1, columns in characters.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// How many characters the explanation underlines.
        width: usize,
    },
    /// An environment variable, by name.
    Variable(String),
    /// A flag of the command line, by name.
    Flag(String),
    /// Not set anywhere: a default, or the configuration as a whole.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                path, line, column, ..
            } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
            Self::Default => f.write_str("configuration"),
        }
    }
}

/// One thing that is wrong, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong; lower case, no full stop.
    pub message: String,
    /// What to write or do instead.
    pub suggestion: Option<String>,
}

impl Problem {
    /// A problem without a suggestion.
    pub(crate) fn new(place: Place, message: impl Into<String>) -> Self {
        Self {
            place,
            message: message.into(),
            suggestion: None,
        }
    }

    /// Adds what to do instead.
    #[must_use]
    pub(crate) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// The line of `source` the problem is on, underlined; empty if it is not in the file.
    #[must_use]
    pub fn excerpt(&self, source: &str) -> String {
        let Place::File {
            line,
            column,
            width,
            ..
        } = &self.place
        else {
            return String::new();
        };
        let Some(text) = source.lines().nth(line - 1) else {
            return String::new();
        };
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(column - 1);
        let rest = text.chars().count().saturating_sub(column - 1).max(1);
        let marks = "^".repeat((*width).clamp(1, rest));
        format!("  {number} | {text}\n  {margin} | {indent}{marks}\n")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}
