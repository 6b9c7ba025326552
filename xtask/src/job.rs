//! Runs one child process for a step: its output goes to a log file, its progress to the reader.
//!
//! Output and errors share one pipe, so that the log keeps their order. While the child is silent or
//! busy, a line with the elapsed seconds appears every [`PROGRESS_EVERY`].

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// How often a running job says that it still runs.
const PROGRESS_EVERY: Duration = Duration::from_secs(15);

/// Longest part of an output line that is repeated as progress, in characters.
const PROGRESS_CHARS: usize = 60;

/// Lines of a failed job that are repeated on the terminal.
const TAIL_LINES: usize = 60;

/// What a finished child left.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Whether it ended with exit code 0.
    pub(crate) success: bool,
    /// Everything it printed.
    pub(crate) lines: Vec<String>,
    /// Where that is kept.
    pub(crate) log: PathBuf,
}

impl Finished {
    /// The last lines, for a message about a failure.
    pub(crate) fn tail(&self) -> String {
        let from = self.lines.len().saturating_sub(TAIL_LINES);
        self.lines
            .iter()
            .skip(from)
            .fold(String::new(), |text, line| text + "    " + line + "\n")
    }
}

/// Runs `command` to its end, logging to `folder/name.log`.
///
/// # Errors
/// When the program cannot be started or the log not be written; a child that fails is no error.
pub(crate) fn run(folder: &Path, name: &str, command: &mut Command) -> anyhow::Result<Finished> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join(format!("{name}.log"));
    let mut log = File::create(&path).with_context(|| format!("writing {}", path.display()))?;
    writeln!(log, "$ {}", describe(command))?;

    let started = Instant::now();
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("sharing a pipe")?)
        .stderr(writer);
    let mut child = command
        .spawn()
        .with_context(|| format!("starting {}", describe(command)))?;
    // The command keeps its ends of the pipe open until they are replaced; without this the reader
    // would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut lines = Vec::new();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let (send, received) = mpsc::channel();
        scope.spawn(move || {
            for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                if send
                    .send(String::from_utf8_lossy(&line).into_owned())
                    .is_err()
                {
                    return;
                }
            }
        });
        let mut next_progress = started + PROGRESS_EVERY;
        loop {
            match received.recv_timeout(next_progress.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    writeln!(log, "{line}")?;
                    lines.push(line);
                }
                Err(RecvTimeoutError::Timeout) => {
                    next_progress += PROGRESS_EVERY;
                    let latest = lines.last().map_or("", |line| line.trim());
                    let latest: String = latest.chars().take(PROGRESS_CHARS).collect();
                    println!(
                        "      {name}: {:.0} s … {latest}",
                        started.elapsed().as_secs_f64()
                    );
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    })?;
    let status = child.wait().context("waiting for the child")?;
    Ok(Finished {
        success: status.success(),
        lines,
        log: path,
    })
}

/// What the command prints, trimmed, or `None` when it cannot be started or fails.
pub(crate) fn output_of(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as one would type it, environment left out.
pub(crate) fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Where `program` lies on the search path.
pub(crate) fn find_on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_errors_are_kept_in_order_and_a_failure_is_told() -> anyhow::Result<()> {
        let folder = std::env::temp_dir().join(format!("xtask-job-{}", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three; exit 3"]);
        let finished = run(&folder, "order", &mut command)?;
        assert!(!finished.success);
        assert_eq!(finished.lines, ["one", "two", "three"]);
        assert!(std::fs::read_to_string(&finished.log)?.ends_with("one\ntwo\nthree\n"));
        std::fs::remove_dir_all(folder)?;
        Ok(())
    }
}
