//! The journal of one cache that writes behind: [`Journal`].
//!
//! ```text
//! open ─▶ lock ─▶ read all segments ─▶ what is still to be written
//! commit: records ─▶ one frame at the end of the last segment ─▶ sync ─▶ they may be acknowledged
//! settled ─▶ a mark in the next frame ─▶ segments that nothing in is needed of are removed
//! ```
//!
//! `disk` is what it does to files, and where a test makes that fail; `folder` their names and their lock.
//!
//! Blocks: call it where blocking is allowed. One at a time uses it; several writes share a frame, and so a sync.
//!
//! When the disk refuses a frame it is cut off again, and the next may do better (a full disk). When it fails to sync, nobody knows what is
//! on it, and trying again may be told that all is well (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC
//! 2020): the journal takes nothing more until it is opened again.

mod disk;
mod error;
mod folder;

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use nearcache_protocol::write::ledger::{Ledger, Place, Replay};
use nearcache_protocol::write::queue::WriteSeq;
use nearcache_protocol::write::record::{
    FRAME_HEADER_BYTES, Record, SegmentHeader, WriteRecord, encode_beginning, encode_frame,
    encode_record, read_segment,
};
use nearcache_store::Timestamp;

pub(crate) use disk::{Disk, DiskHook};
pub use error::JournalError;
use folder::Folder;

use crate::random::random;

/// A new segment is begun when the last one is that long (a guess: read in a blink at the start, and not many files).
const SEGMENT_BYTES: u64 = 8 << 20;

/// Called with the name of each step, so that a test can stop the process there.
pub(crate) type StepHook = Arc<dyn Fn(&'static str) + Send + Sync>;

/// Where a journal is and how much it may take.
#[derive(Clone)]
pub(crate) struct JournalConfig {
    pub(crate) path: PathBuf,
    /// Names of cluster, cache and node.
    pub(crate) owner: String,
    /// Beyond it nothing is taken until something is settled.
    pub(crate) bytes_max: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) hook: Option<StepHook>,
    pub(crate) disk: Disk,
}

impl JournalConfig {
    pub(crate) fn new(path: PathBuf, owner: String, bytes_max: u64) -> Self {
        Self {
            path,
            owner,
            bytes_max,
            // The one that grows is never removed: it must not be most of the journal.
            segment_bytes: SEGMENT_BYTES.min(bytes_max / 4),
            hook: None,
            disk: Disk::default(),
        }
    }

    fn step(&self, name: &'static str) {
        if let Some(hook) = &self.hook {
            hook(name);
        }
    }
}

/// An open journal. Its lock goes with it.
pub(crate) struct Journal {
    config: JournalConfig,
    folder: Folder,
    ledger: Ledger,
    last: Tail,
    /// No version that was ever recorded is later.
    newest: Timestamp,
    /// Settled since the last frame.
    marks: Vec<WriteSeq>,
    has_failed: bool,
}

/// The segment that grows.
struct Tail {
    number: u64,
    salt: u64,
    file: File,
    path: PathBuf,
    bytes: u64,
    /// What of it is known to be on the disk.
    durable: u64,
}

/// What a journal says is still to be written, in the order in which it was accepted, and the last number that was given.
pub(crate) type Unwritten = (Vec<WriteRecord>, WriteSeq);

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.config.path)
            .field("bytes", &self.ledger.bytes())
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal in a folder, or makes one there. Reads all of it.
    ///
    /// # Errors
    ///
    /// [`JournalError`]; nothing that is needed was changed.
    pub(crate) fn open(config: JournalConfig) -> Result<(Self, Unwritten), JournalError> {
        let folder = Folder::open(&config.path, config.disk.clone())?;
        let numbers = folder.segments()?;
        if let Some(number) = gap(&numbers) {
            let path = config.path.clone();
            return Err(JournalError::Missing { path, number });
        }
        let mut replay = Replay::default();
        let mut last = None;
        for (at, number) in numbers.iter().enumerate() {
            let path = folder.path_of(*number);
            let bytes = std::fs::read(&path).map_err(JournalError::io("read", &path))?;
            let is_last = at + 1 == numbers.len();
            let segment = read_segment(&bytes, is_last).map_err(|source| {
                let path = path.clone();
                JournalError::Damaged { path, source }
            })?;
            if segment.header.owner != config.owner {
                return Err(JournalError::OtherOwner {
                    path,
                    found: segment.header.owner,
                    wanted: config.owner,
                });
            }
            if segment.valid_bytes < bytes.len() as u64 {
                let at = segment.valid_bytes;
                tracing::warn!(
                    ?path,
                    at,
                    "cut off what was being written when the process stopped"
                );
            }
            // The last one is followed by another from now on, and so must be on the disk as it was read.
            last = is_last.then_some((path, segment.valid_bytes));
            replay.read(*number, segment.valid_bytes, segment.records);
        }
        if let Some((path, bytes)) = last {
            let cut = config.disk.cut_at(&path, bytes);
            cut.map_err(JournalError::io("cut", path))?;
        }
        let replayed = replay.finish();
        let (newest, mut ledger) = (replayed.newest, replayed.ledger);
        // First of all: it may be what a full disk needs for the next.
        remove_useless(&folder, &mut ledger, &config)?;
        let number = numbers.last().map_or(1, |last| last + 1);
        let last = Tail::new(&folder, &config, number, newest)?;
        ledger.grew(number, last.bytes);
        let mut journal = Self {
            config,
            folder,
            ledger,
            last,
            newest,
            marks: Vec::new(),
            has_failed: false,
        };
        journal.remove_useless()?;
        Ok((journal, (replayed.open, replayed.last)))
    }

    /// No version that was ever recorded here is later, also where its segment is gone.
    pub(crate) const fn newest(&self) -> Timestamp {
        self.newest
    }

    /// Whether a record of so many bytes, and what surrounds it, may be taken.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let most = self.ledger.needed_bytes() == 0;
        most || self.ledger.bytes() + bytes <= self.config.bytes_max
    }

    /// Writes these down. When it returns they survive whatever happens to the process and to the machine. The marks of what was
    /// settled before go with them.
    ///
    /// # Errors
    ///
    /// [`JournalError`]. After [`JournalError::Failed`] they may be there or not; after any other they are not.
    pub(crate) fn commit(&mut self, writes: &[WriteRecord]) -> Result<(), JournalError> {
        self.step("before append");
        let appended = self.append(writes);
        // On a full disk, what is of no use makes room.
        if appended.is_err() && !self.has_failed && self.ledger.useless().is_some() {
            self.remove_useless()?;
            self.append(writes)?;
        } else {
            appended?;
        }
        self.step("appended");
        self.sync()?;
        self.step("synced");
        Ok(())
    }

    /// These are in the system of record, or superseded by what was committed since. `is_marked`: what is read again later must know.
    pub(crate) fn settle(&mut self, seq: WriteSeq, is_marked: bool) {
        if self.ledger.settled(seq) && is_marked {
            self.marks.push(seq);
        }
    }

    /// Writes the marks down, without waiting for the disk, and gives back what is of no use: at most one segment is rewritten.
    ///
    /// # Errors
    ///
    /// [`JournalError`]; nothing that is needed is lost.
    pub(crate) fn tidy(&mut self) -> Result<(), JournalError> {
        // Before anything is written: on a full disk nothing is before this. Marks of what goes need not be there before. If it fails
        // it is tried again below.
        let _ = self.remove_useless();
        if !self.marks.is_empty() {
            self.step("before mark");
            self.append(&[])?;
            self.step("marked");
        }
        let moved = self.ledger.to_move(self.config.bytes_max / 2);
        if !moved.is_empty() {
            self.rewrite(&moved)?;
        }
        self.remove_useless()
    }

    /// Writes the marks down and waits for the disk: nothing is written again after the next start that need not be.
    pub(crate) fn close(mut self) {
        let closed = self.tidy().and_then(|()| self.sync());
        if let Err(error) = closed {
            tracing::warn!(%error, "the journal could not be closed in order");
        }
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.ledger.bytes()
    }

    fn step(&self, name: &'static str) {
        self.config.step(name);
    }

    /// Appends a frame of the marks and these.
    fn append(&mut self, writes: &[WriteRecord]) -> Result<(), JournalError> {
        if self.has_failed {
            return Err(JournalError::Failed);
        }
        self.rotate()?;
        let (mut records, mut places) = (Vec::new(), Vec::new());
        if !self.marks.is_empty() {
            encode_record(&Record::Settled(self.marks.clone()), &mut records);
        }
        for write in writes {
            let begin = records.len() as u64;
            encode_record(&Record::Write(write.clone()), &mut records);
            self.newest = self.newest.max(write.version.time);
            places.push((write.seq, begin, records.len() as u64 - begin));
        }
        let begin = self.last.bytes + FRAME_HEADER_BYTES as u64;
        self.write_frame(&records)?;
        self.marks.clear();
        self.recorded(begin, places);
        Ok(())
    }

    /// A frame whose records begin there holds these.
    fn recorded(&mut self, begin: u64, places: Vec<(WriteSeq, u64, u64)>) {
        for (seq, offset, bytes) in places {
            let place = Place {
                segment: self.last.number,
                offset: begin + offset,
                bytes,
            };
            self.ledger.recorded(seq, place);
        }
    }

    /// Appends a frame, or leaves the file as it was.
    fn write_frame(&mut self, records: &[u8]) -> Result<(), JournalError> {
        let (tail, disk) = (&mut self.last, &self.config.disk);
        let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + records.len());
        encode_frame(tail.salt, tail.bytes, tail.durable, records, &mut frame);
        if let Err(source) = disk.write(&mut tail.file, &tail.path, &frame) {
            let cut = disk.cut(&tail.file, &tail.path, tail.bytes);
            let back = cut.and_then(|()| tail.file.seek(SeekFrom::Start(tail.bytes)));
            if back.is_err() {
                self.has_failed = true;
                return Err(JournalError::Failed);
            }
            return Err(JournalError::io("write", &tail.path)(source));
        }
        tail.bytes += frame.len() as u64;
        self.ledger.grew(tail.number, tail.bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        if self.has_failed {
            return Err(JournalError::Failed);
        }
        let tail = &self.last;
        if let Err(error) = self.config.disk.sync(&tail.file, &tail.path) {
            tracing::error!(path = ?tail.path, %error, "the journal could not be synced");
            self.has_failed = true;
            return Err(JournalError::Failed);
        }
        self.last.durable = self.last.bytes;
        Ok(())
    }

    /// Begins a new segment if the last one is long enough. All of that is on the disk then.
    fn rotate(&mut self) -> Result<(), JournalError> {
        if self.last.bytes < self.config.segment_bytes {
            return Ok(());
        }
        self.sync()?;
        self.step("before rotation");
        self.last = Tail::new(
            &self.folder,
            &self.config,
            self.last.number + 1,
            self.newest,
        )?;
        self.ledger.grew(self.last.number, self.last.bytes);
        self.step("rotated");
        Ok(())
    }

    /// Writes the records of the oldest segment that are needed once more, at the end.
    fn rewrite(&mut self, moved: &[(WriteSeq, Place)]) -> Result<(), JournalError> {
        let Some((_, Place { segment, .. })) = moved.first() else {
            return Ok(());
        };
        self.rotate()?;
        let path = self.folder.path_of(*segment);
        let mut file = File::open(&path).map_err(JournalError::io("open", &path))?;
        let (mut records, mut places) = (Vec::new(), Vec::new());
        for (seq, place) in moved {
            let (begin, bytes) = (records.len(), usize::try_from(place.bytes).unwrap_or(0));
            records.resize(begin + bytes, 0);
            let into = records.get_mut(begin..).unwrap_or_default();
            let read = file.seek(SeekFrom::Start(place.offset));
            read.and_then(|_| file.read_exact(into))
                .map_err(JournalError::io("read", &path))?;
            places.push((*seq, begin as u64, place.bytes));
        }
        let begin = self.last.bytes + FRAME_HEADER_BYTES as u64;
        self.step("before rewriting");
        self.write_frame(&records)?;
        self.step("rewritten");
        // The old ones go only when the new ones are on the disk.
        self.sync()?;
        self.recorded(begin, places);
        Ok(())
    }

    fn remove_useless(&mut self) -> Result<(), JournalError> {
        remove_useless(&self.folder, &mut self.ledger, &self.config)
    }
}

/// Removes the segments that nothing is needed of, the oldest first.
fn remove_useless(
    folder: &Folder,
    ledger: &mut Ledger,
    config: &JournalConfig,
) -> Result<(), JournalError> {
    // Each counts until its file is gone: a later one must not go before it.
    while let Some(number) = ledger.useless() {
        config.step("before removal");
        folder.remove(number)?;
        ledger.take_useless();
        config.step("removed");
    }
    Ok(())
}

impl Tail {
    fn new(
        folder: &Folder,
        config: &JournalConfig,
        number: u64,
        newest: Timestamp,
    ) -> Result<Self, JournalError> {
        let header = SegmentHeader {
            number,
            salt: random(),
            owner: config.owner.clone(),
        };
        let bytes = encode_beginning(&header, newest);
        let (file, path) = folder.create(number, &bytes)?;
        Ok(Self {
            number,
            salt: header.salt,
            file,
            path,
            bytes: bytes.len() as u64,
            durable: bytes.len() as u64,
        })
    }
}

/// The first number that is missing between two others.
fn gap(numbers: &[u64]) -> Option<u64> {
    let mut pairs = numbers.windows(2);
    pairs.find_map(|pair| match pair {
        [one, next] if one + 1 < *next => Some(one + 1),
        _ => None,
    })
}

#[cfg(test)]
#[path = "journal_test.rs"]
mod tests;

#[cfg(test)]
#[path = "disk_test.rs"]
mod disk_tests;
