//! Rules about the source text that no lint holds.

use anyhow::{Context as _, ensure};

use crate::counts::Counts;
use crate::job;
use crate::steps::Outcome;
use crate::workspace::Workspace;

/// Line every crate root must have.
const FORBID_UNSAFE: &str = "#![forbid(unsafe_code)]";

/// Checks that every crate root forbids unsafe code.
///
/// # Errors
/// When one does not, naming the file.
pub(crate) fn check_forbid_unsafe(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut roots = 0;
    for package in workspace.packages().context("listing the packages")? {
        for root in ["src/lib.rs", "src/main.rs"] {
            let path = package.join(root);
            let Ok(text) = std::fs::read_to_string(&path) else {
                continue;
            };
            let holds = text.lines().any(|line| line.trim() == FORBID_UNSAFE);
            ensure!(holds, "{} lacks {FORBID_UNSAFE}", path.display());
            roots += 1;
        }
    }
    let detail = format!("{roots} crate roots");
    Ok(Outcome {
        detail,
        ..Outcome::counted(Counts::ONE_PASSED)
    })
}

/// What git says differs from the commit, for a comparison before and after a run. `None` without
/// git or outside a clone.
pub(crate) fn changed_files(workspace: &Workspace) -> Option<String> {
    let mut command = std::process::Command::new("git");
    command.current_dir(workspace.root()).args(["diff", "HEAD"]);
    job::output_of(&mut command)
}
