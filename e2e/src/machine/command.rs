//! Runs the machine's tools, never for longer than [`LIMIT_S`].

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// Seconds after which a tool is ended; none of them waits for anything.
const LIMIT_S: &str = "20";

/// Runs `words` and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails; the message holds what it said.
pub(crate) fn run(words: &[&str]) -> anyhow::Result<String> {
    run_with_input(words, "")
}

/// As [`run`], with `input` on standard input.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_with_input(words: &[&str], input: &str) -> anyhow::Result<String> {
    let described = words.join(" ");
    let mut child = Command::new("timeout")
        .arg(LIMIT_S)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {described}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input is no failure.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{described}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `line`, split at spaces.
///
/// # Errors
/// As [`run`].
pub(crate) fn line(line: &str) -> anyhow::Result<String> {
    run(&line.split_whitespace().collect::<Vec<_>>())
}

/// Sends a signal, by name, to a process this program started.
///
/// # Errors
/// When there is no such process.
pub(crate) fn signal(name: &str, process: u32) -> anyhow::Result<()> {
    run(&["sh", "-c", &format!("kill -{name} {process}")]).map(|_| ())
}
