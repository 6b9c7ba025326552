//! Keeps what the documentation tells to run equal to what is run.

use anyhow::{Context as _, ensure};

use crate::counts::Counts;
use crate::steps::Outcome;
use crate::workspace::Workspace;

/// The two commands a reader meets first: see it work, then test it.
const FIRST_COMMANDS: [&str; 2] = ["cargo run --release", "cargo xtask test"];

/// Checks that the README begins with those commands and that `.ci/run` runs the second one.
///
/// # Errors
/// When a file cannot be read or says something else.
pub(crate) fn check_commands(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let read = |name: &str| {
        std::fs::read_to_string(workspace.root().join(name)).with_context(|| name.to_owned())
    };
    let readme = read("README.md")?;
    let commands = shell_commands(&readme);
    let first: Vec<&str> = commands.iter().take(2).map(String::as_str).collect();
    ensure!(
        first == FIRST_COMMANDS,
        "README.md begins with {first:?}, not {FIRST_COMMANDS:?}"
    );
    let ci = read(".ci/run")?;
    let runs_it = ci
        .lines()
        .any(|line| line.trim() == format!("exec {}", FIRST_COMMANDS[1]));
    ensure!(runs_it, ".ci/run does not run {:?}", FIRST_COMMANDS[1]);
    Ok(Outcome::counted(Counts::ONE_PASSED))
}

/// Commands in the shell blocks of a Markdown text, without comments and prompts.
fn shell_commands(markdown: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut in_shell = false;
    for line in markdown.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            in_shell = matches!(language.trim(), "sh" | "bash" | "console" | "shell");
        } else if in_shell {
            let command = line.trim().trim_start_matches("$ ");
            let command = command.split('#').next().unwrap_or_default().trim();
            if !command.is_empty() {
                commands.push(command.to_owned());
            }
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_without_comments_and_from_shell_blocks_only() {
        let text =
            "# A\n```rust\nlet x;\n```\n```sh\n# see it\ncargo run   # now\n$ cargo test\n```";
        assert_eq!(shell_commands(text), ["cargo run", "cargo test"]);
    }
}
