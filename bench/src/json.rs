//! Writes a [`Table`] as JSON beside its printed form.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde::Serialize;

use crate::table::Table;

/// The JSON document: the table and where and when it was measured.
#[derive(Debug, Serialize)]
struct Report<'a> {
    measured_unix_s: u64,
    kernel: String,
    cpus: usize,
    #[serde(flatten)]
    table: &'a Table,
}

/// Writes `folder/NAME.json` and returns its path. The folder is made when it is missing.
///
/// # Errors
/// When the folder or file cannot be written.
pub(crate) fn write(folder: &Path, table: &Table) -> anyhow::Result<PathBuf> {
    let report = Report {
        measured_unix_s: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        table,
    };
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join(format!("{}.json", table.name));
    let text = serde_json::to_string_pretty(&report).context("encoding the table")?;
    std::fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
