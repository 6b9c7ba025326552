//! Cargo as every step calls it.

use std::process::Command;

use crate::workspace::Workspace;

/// `cargo` in the workspace, with plain output.
pub(crate) fn cargo(workspace: &Workspace) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command
        .current_dir(workspace.root())
        .env("CARGO_TERM_COLOR", "never");
    // Set for this program by the `cargo run` that started it; not meant for its children.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        command.env_remove(name);
    }
    command
}

/// `cargo` with the words of `args`, which must not contain spaces themselves.
pub(crate) fn cargo_with(workspace: &Workspace, args: &str) -> Command {
    let mut command = cargo(workspace);
    command.args(args.split_whitespace());
    command
}
