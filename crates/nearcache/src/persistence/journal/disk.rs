//! What a journal does to its files: [`Disk`]. Here a test makes it fail, or slow (faults F13).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

/// Asked before each step, by its name and the file: nothing if the disk does as it is told; else how many bytes of a write it takes before
/// it fails, and with what. A slow disk takes its time to say so.
pub(crate) type DiskHook =
    Arc<dyn Fn(&'static str, &Path) -> Option<(usize, io::Error)> + Send + Sync>;

/// The disk, or what a test makes of it.
#[derive(Clone, Default)]
pub(crate) struct Disk(Option<DiskHook>);

impl Disk {
    pub(crate) const fn new(hook: Option<DiskHook>) -> Self {
        Self(hook)
    }

    fn ask(&self, step: &'static str, path: &Path) -> Result<(), (usize, io::Error)> {
        let fault = self.0.as_ref().and_then(|hook| hook(step, path));
        fault.map_or(Ok(()), Err)
    }

    fn step<T>(
        &self,
        step: &'static str,
        path: &Path,
        does: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.ask(step, path).map_err(|(_, error)| error)?;
        does()
    }

    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        self.step("create", path, || File::create(path))
    }

    pub(super) fn write(&self, file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let Err((taken, error)) = self.ask("write", path) else {
            return file.write_all(bytes);
        };
        file.write_all(bytes.get(..taken).unwrap_or(bytes))?;
        Err(error)
    }

    pub(super) fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        self.step("sync", path, || file.sync_data())
    }

    /// Leaves only so many bytes of it.
    pub(super) fn cut(&self, file: &File, path: &Path, bytes: u64) -> io::Result<()> {
        self.step("cut", path, || file.set_len(bytes))
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step("rename", to, || fs::rename(from, to))
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.step("remove", path, || fs::remove_file(path))
    }

    /// Puts the names of a folder's files on the disk.
    pub(super) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step("sync folder", path, || File::open(path)?.sync_all())
    }

    /// Cuts off a file that is not open, and puts what is left on the disk.
    pub(super) fn cut_at(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        self.cut(&file, path, bytes)?;
        self.step("sync", path, || file.sync_all())
    }
}
