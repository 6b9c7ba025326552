//! K4 on write-behind: every acknowledged write reaches the system of record, or a later one of its key and node does; and per key and node the
//! system of record is written in order.

use std::collections::BTreeMap;

use nearcache_protocol::write::queue::WriteSeq;

use super::Broken;

/// What is known of writes, by host and key.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    acknowledged: BTreeMap<(usize, usize), WriteSeq>,
    written: BTreeMap<(usize, usize), WriteSeq>,
}

impl Writes {
    /// A caller was told that its write will be made.
    pub(crate) fn acknowledged(&mut self, host: usize, key: usize, seq: WriteSeq) {
        self.acknowledged.insert((host, key), seq);
    }

    /// The system of record was written.
    pub(crate) fn written(&mut self, host: usize, key: usize, seq: WriteSeq) -> Result<(), Broken> {
        let former = self.written.insert((host, key), seq).unwrap_or_default();
        if former > seq {
            let what = format!("n{host} writes {seq:?} of key {key} after {former:?}");
            return Err(("K4 (order)", what));
        }
        Ok(())
    }

    /// With everything written that anybody remembers: what is missing?
    pub(crate) fn lost(&self) -> Result<(), Broken> {
        for ((host, key), seq) in &self.acknowledged {
            let written = self.written.get(&(*host, *key)).copied();
            if written.is_none_or(|written| written < *seq) {
                let what = format!(
                    "n{host} acknowledged {seq:?} of key {key}, the system of record has {written:?}"
                );
                return Err(("K4", what));
            }
        }
        Ok(())
    }
}
