//! Takes everything away again, also when the harness is interrupted, fails or is killed.
//!
//! A child in a process group of its own (so that Ctrl-C does not reach it) waits for the end of its standard input.
//! The harness holds the other end of that pipe and nobody else does: however the harness ends, the child then ends the
//! processes in the namespaces it was told of and removes them.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use super::command;

/// Looks for processes that started while others were ended.
const ROUNDS: usize = 20;

/// The running child; dropping it has everything removed and waits for that.
#[derive(Debug)]
pub(crate) struct Reaper {
    child: Child,
}

impl Reaper {
    /// Starts it for namespaces that need not exist yet, and a folder.
    ///
    /// # Errors
    /// When the program cannot start itself again.
    pub(crate) fn start(namespaces: &[String], folder: &std::path::Path) -> anyhow::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg("reap")
            .arg(folder)
            .args(namespaces)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("starting the process that cleans up")?;
        Ok(Self { child })
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The child: waits for the end of the harness, then removes what it made.
///
/// # Errors
/// When a namespace that exists cannot be removed.
pub(crate) fn reap(folder: &PathBuf, namespaces: &[String]) -> anyhow::Result<()> {
    let mut rest = Vec::new();
    // Nothing is ever written; this returns when the last holder of the other end is gone.
    let _ = std::io::stdin().read_to_end(&mut rest);
    let existing = command::line("ip netns list").unwrap_or_default();
    for name in namespaces {
        let exists = existing
            .lines()
            .any(|line| line.split(' ').next() == Some(name));
        if !exists {
            continue;
        }
        for _ in 0..ROUNDS {
            let inside = command::run(&["ip", "netns", "pids", name]).unwrap_or_default();
            if inside.trim().is_empty() {
                break;
            }
            for process in inside.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                // It may have ended by itself.
                let _ = command::signal("KILL", process);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        command::run(&["ip", "netns", "del", name])?;
    }
    if folder.is_dir() {
        std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}
