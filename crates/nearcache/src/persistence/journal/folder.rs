//! The folder of a journal: its lock and its files, of which the names are their numbers.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::JournalError;
use super::disk::Disk;

const LOCK: &str = "lock";
const SUFFIX: &str = ".journal";
/// A segment whose header may not be there yet.
const UNFINISHED: &str = ".new";

/// A folder that nobody else uses.
pub(super) struct Folder {
    path: PathBuf,
    disk: Disk,
    /// Held as long as the folder is; the system gives it back when the process ends, however that happens.
    _lock: File,
}

impl Folder {
    /// Makes the folder if there is none, and locks it.
    pub(super) fn open(path: &Path, disk: Disk) -> Result<Self, JournalError> {
        make(path, &disk)?;
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(JournalError::io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = path.to_path_buf();
                return Err(JournalError::InUse { path });
            }
            Err(TryLockError::Error(source)) => {
                return Err(JournalError::io("lock", lock_path)(source));
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            disk,
            _lock: lock,
        })
    }

    /// The numbers of its segments, in order. Removes what was never finished.
    pub(super) fn segments(&self) -> Result<Vec<u64>, JournalError> {
        let entries = fs::read_dir(&self.path).map_err(JournalError::io("read", &self.path))?;
        let mut numbers = Vec::new();
        for entry in entries {
            let entry = entry.map_err(JournalError::io("read", &self.path))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(UNFINISHED) {
                let path = entry.path();
                self.disk
                    .remove(&path)
                    .map_err(JournalError::io("remove", path))?;
            } else if let Some(number) = name.strip_suffix(SUFFIX)
                && let Ok(number) = number.parse()
            {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Where a segment is.
    pub(super) fn path_of(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:012}{SUFFIX}"))
    }

    /// Makes a segment that begins with `header`: it is there as a whole or not at all.
    pub(super) fn create(
        &self,
        number: u64,
        header: &[u8],
    ) -> Result<(File, PathBuf), JournalError> {
        let path = self.path_of(number);
        let unfinished = path.with_extension(UNFINISHED.trim_start_matches('.'));
        let disk = &self.disk;
        let mut file = disk
            .create(&unfinished)
            .map_err(JournalError::io("make", &unfinished))?;
        let written = disk.write(&mut file, &unfinished, header);
        written
            .and_then(|()| disk.sync(&file, &unfinished))
            .map_err(JournalError::io("write", &unfinished))?;
        disk.rename(&unfinished, &path)
            .map_err(JournalError::io("rename", &unfinished))?;
        self.sync()?;
        Ok((file, path))
    }

    /// Removes a segment. It stays removed before another is: whatever happens, those that are there follow each other. To be called
    /// again if it fails; that the file is gone already is no failure.
    pub(super) fn remove(&self, number: u64) -> Result<(), JournalError> {
        let path = self.path_of(number);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(JournalError::io("remove", path)(error))
            }
            Ok(()) | Err(_) => self.sync(),
        }
    }

    /// Puts the names of its files on the disk.
    fn sync(&self) -> Result<(), JournalError> {
        sync(&self.path, &self.disk)
    }
}

/// Makes a folder, and those that it is in, if there are none; the names of all that were made are on the disk then.
fn make(path: &Path, disk: &Disk) -> Result<(), JournalError> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<_> = path.ancestors().take_while(is_missing).collect();
    fs::create_dir_all(path).map_err(JournalError::io("make", path))?;
    for made in missing {
        match made.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync(parent, disk)?,
            _ => sync(Path::new("."), disk)?,
        }
    }
    Ok(())
}

/// Puts the names of a folder's files on the disk.
fn sync(path: &Path, disk: &Disk) -> Result<(), JournalError> {
    disk.sync_folder(path)
        .map_err(JournalError::io("sync", path))
}
