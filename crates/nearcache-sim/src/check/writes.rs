//! K4 on write-behind: every acknowledged write reaches the system of record, or a later one of its key and node does; and per key and node the
//! system of record is written in order.
//!
//! Within one start of a node that is the order of their numbers, and of their versions. Of two starts it is that of their versions, as it is for a sink
//! that compares them: numbers belong to a journal, and begin again when nothing is left of it.
//!
//! One exception, which docs/loading.md tells of: what a process had sent when it was killed may be carried out after what its successor on the same
//! disk wrote. It must be older by its version, so that a sink that compares versions leaves it out.

use std::collections::BTreeMap;

use nearcache_protocol::write::queue::WriteSeq;
use nearcache_store::Version;

use super::Broken;

/// What is known of writes, by host and key.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    acknowledged: BTreeMap<(usize, usize), Version>,
    written: BTreeMap<(usize, usize), Written>,
}

/// The newest write of a key that a host's nodes have made.
#[derive(Debug, Clone, Copy)]
struct Written {
    seq: WriteSeq,
    /// The highest that it was made with: one that is replayed has that of its record, which is a little lower.
    version: Version,
    /// The last start of the node that has made it.
    life: u32,
}

impl Writes {
    /// A caller was told that its write will be made, which has this version in the journal, and no lower one when it is made.
    pub(crate) fn acknowledged(&mut self, host: usize, key: usize, recorded: Version) {
        self.acknowledged.insert((host, key), recorded);
    }

    /// The system of record was written, as the node asked that was this host's `life`-th.
    pub(crate) fn written(
        &mut self,
        (host, life): (usize, u32),
        key: usize,
        (seq, version): (WriteSeq, Version),
    ) -> Result<(), Broken> {
        let made = Written { seq, version, life };
        let newest = self.written.entry((host, key)).or_insert(made);
        if seq == newest.seq && version <= newest.version {
            newest.life = newest.life.max(life);
            return Ok(());
        }
        let is_newer = version > newest.version;
        let is_in_order = if life == newest.life {
            is_newer && seq > newest.seq
        } else {
            // The same once more; or of an earlier start, and late.
            seq == newest.seq || is_newer == (life > newest.life)
        };
        if !is_in_order {
            let what = format!("n{host} writes {made:?} of key {key} after {newest:?}");
            return Err(("K4 (order)", what));
        }
        if is_newer {
            let life = life.max(newest.life);
            *newest = Written { life, ..made };
        }
        Ok(())
    }

    /// With everything written that anybody remembers: what is missing?
    pub(crate) fn lost(&self) -> Result<(), Broken> {
        for ((host, key), recorded) in &self.acknowledged {
            let written = self.written.get(&(*host, *key));
            if written.is_none_or(|written| written.version < *recorded) {
                let what = format!(
                    "n{host} acknowledged {recorded:?} of key {key}, the system of record has {written:?}"
                );
                return Err(("K4", what));
            }
        }
        Ok(())
    }
}
