//! A Python environment below `target/tools` that holds the Python Redis client.

use std::path::PathBuf;
use std::process::Command;

use anyhow::ensure;

use crate::job;
use crate::workspace::Workspace;

/// The Python Redis client the tests are run with.
const REDIS_PY: &str = "redis==8.1.0";

/// The environment's interpreter, if it is there and can import the client.
pub(crate) fn ready(workspace: &Workspace) -> Option<PathBuf> {
    let python = interpreter(workspace);
    let wanted = REDIS_PY.rsplit('=').next().unwrap_or_default();
    let version = job::output_of(
        Command::new(&python).args(["-c", "import redis; print(redis.__version__)"]),
    )?;
    (version == wanted).then_some(python)
}

/// What [`install`] will install, for the announcement.
pub(crate) fn announcement(workspace: &Workspace) -> String {
    format!(
        "{REDIS_PY} from the Python package index into {}",
        folder(workspace).display()
    )
}

/// Makes the environment and installs the client into it; returns the interpreter.
///
/// # Errors
/// When Python cannot make environments or the package index cannot be reached.
pub(crate) fn install(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(folder(workspace));
    let python = interpreter(workspace);
    let mut install = Command::new(&python);
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        REDIS_PY,
    ]);
    for (name, mut command) in [("python-venv", make), ("python-redis", install)] {
        let finished = job::run(&workspace.logs(), name, &mut command)?;
        ensure!(
            finished.success,
            "{} failed:\n{}",
            job::describe(&command),
            finished.tail()
        );
    }
    Ok(python)
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("venv")
}

fn interpreter(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("bin/python")
}
