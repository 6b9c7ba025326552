//! Why a command ends before its time: one clear line each, and an exit code.

use std::fmt;

/// Exit code of a mistake in how the command was called: flags, configuration, ports, files.
pub const EXIT_MISUSE: u8 = 2;
/// Exit code of everything else that goes wrong.
pub const EXIT_FAILED: u8 = 1;

/// What to tell the user, and the exit code to leave with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit_code: u8,
    /// One line per problem, each complete in itself.
    pub lines: Vec<String>,
}

impl Failure {
    /// The command was called wrongly, or what it was told to use is not there.
    #[must_use]
    pub fn misuse(line: impl fmt::Display) -> Self {
        Self {
            exit_code: EXIT_MISUSE,
            lines: vec![line.to_string()],
        }
    }

    /// The command was right and did not succeed.
    #[must_use]
    pub fn failed(line: impl fmt::Display) -> Self {
        Self {
            exit_code: EXIT_FAILED,
            lines: vec![line.to_string()],
        }
    }

    /// The system gave no threads.
    pub(crate) fn no_threads(error: &std::io::Error) -> Self {
        Self::failed(format_args!("cannot start threads: {error}"))
    }

    /// Writes the lines to standard error.
    pub fn report(&self) {
        for line in &self.lines {
            eprintln!("nearcache: {line}");
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for Failure {}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        source = cause.source();
    }
    line
}
