//! Keeping what was read from the system of record, unless it may be stale (design §6.2).

use nearcache_protocol::announce::SplitPolicy;
use nearcache_protocol::load::fence::Fence;
use nearcache_protocol::mode::{Ack, Published};
use nearcache_protocol::payload::Payload;
use nearcache_store::{Expiry, Handle, MergeError, Tags};

use super::{Machine, Shell, is_leased};
use crate::cache::errors::WriteError;
use crate::limits::FILL_TOKEN_LASTS;

impl<V: Payload> Shell<V> {
    /// Whether a fence that was out of this process's hands may be used here: it was made by this node, not long ago.
    pub(crate) fn takes(&self, fence: &Fence) -> bool {
        let now_ms = self.node.hlc().physical_ms(self.node.now());
        let begun_ms = fence.version().time.millis();
        let lasts_ms = u64::try_from(FILL_TOKEN_LASTS.as_millis()).unwrap_or(u64::MAX);
        fence.version().origin == self.node.id()
            && begun_ms <= now_ms
            && now_ms - begun_ms <= lasts_ms
    }

    /// A load of `key` begins. Cost: two short locks.
    pub(crate) fn begin_fill(&self, key: &[u8]) -> Fence {
        let now = self.node.now();
        let clock_bound = self.machine.lock().core.clock_bound_of_load(now);
        Fence::begin(&self.store, self.node.hlc(), now, clock_bound, key)
    }

    /// What a load brought, as an entry that is in no store yet.
    pub(crate) fn filled(
        &self,
        key: &[u8],
        fence: &Fence,
        (value, expiry, tags): (V, Expiry, Tags),
    ) -> Handle<V> {
        let (hlc, now) = (self.node.hlc(), self.node.now());
        fence.entry(&self.store, key, (value, expiry, tags), hlc, now)
    }

    /// Keeps what the load brought, if nothing that concerns it was invalidated meanwhile. Returns whether it is kept.
    pub(crate) fn fill(&self, fence: &Fence, entry: &Handle<V>) -> Result<bool, WriteError> {
        self.check_open()?;
        // Apart from most of the cluster, which may know better what the system of record holds.
        let is_apart = self.settings.split == SplitPolicy::Flush
            && !is_leased(self.gate.bound(), self.node.quick());
        if is_apart {
            return Ok(false);
        }
        // The system of record does not have it yet: what was read there is older.
        if self.queued(entry.key()).is_some() {
            return Ok(false);
        }
        match fence.keep(&self.store, entry) {
            Ok(true) => {
                let mut machine = self.machine.lock();
                let Machine { core, out } = &mut *machine;
                let published = Published::Fill(entry.clone());
                core.publish(self.node.now(), published, Ack::Local, None, out);
                self.carry_out(&mut machine);
                Ok(true)
            }
            Err(MergeError::TooLargeForCache { weight_bytes, .. }) => {
                let entry_bytes = usize::try_from(weight_bytes).unwrap_or(usize::MAX);
                Err(WriteError::TooLargeForCache { entry_bytes })
            }
            Ok(false) | Err(_) => Ok(false),
        }
    }
}
