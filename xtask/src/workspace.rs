//! Where things lie: the repository, and the folders below `target/` that tasks may write to.

use std::path::{Path, PathBuf};

/// The repository this task was built in.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The repository that holds this package, wherever the command was started.
    pub(crate) fn locate() -> Self {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self {
            root: package.parent().unwrap_or(package).to_owned(),
        }
    }

    /// Top folder of the repository.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| self.root.join("target"), |folder| self.root.join(folder))
    }

    /// Where tools that only this repository uses are installed.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target().join("tools")
    }

    /// Where each step leaves its complete output.
    pub(crate) fn logs(&self) -> PathBuf {
        self.target().join("xtask")
    }

    /// Folders of all packages in the workspace, in the order of their names.
    ///
    /// # Errors
    /// When the `crates` folder cannot be read.
    pub(crate) fn packages(&self) -> std::io::Result<Vec<PathBuf>> {
        let mut folders = ["bench", "e2e", "xtask"]
            .map(|name| self.root.join(name))
            .to_vec();
        for entry in std::fs::read_dir(self.root.join("crates"))? {
            let folder = entry?.path();
            if folder.join("Cargo.toml").is_file() {
                folders.push(folder);
            }
        }
        folders.sort();
        Ok(folders)
    }
}
