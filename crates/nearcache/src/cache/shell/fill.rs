//! Keeping what was read from the system of record, unless it may be stale (design §6.2).

use nearcache_protocol::announce::SplitPolicy;
use nearcache_protocol::mode::{Ack, Published};
use nearcache_protocol::payload::Payload;
use nearcache_store::{Change, MergeError, Merged, Timestamp, Version};

use super::{Machine, Shell, is_leased};
use crate::cache::errors::WriteError;
use crate::limits::FILL_TOKEN_LASTS;

/// What was known of a key before it was read from the system of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FillTicket {
    /// The version that the loaded value gets: the clock at the start of the load, minus how far ahead any other clock may be.
    version: Version,
    /// What the store knew of the key then.
    known: Version,
    /// How many group invalidations there had been.
    generation: u32,
}

impl FillTicket {
    /// Its bytes: version, what was known, generation.
    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.version.to_bytes());
        bytes[16..32].copy_from_slice(&self.known.to_bytes());
        bytes[32..].copy_from_slice(&self.generation.to_be_bytes());
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote. Any bytes are some ticket.
    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let part = |at: usize| {
            let part = bytes.get(at..).and_then(<[u8]>::first_chunk::<16>);
            Version::from_bytes(part.copied().unwrap_or_default())
        };
        let generation = bytes.last_chunk::<4>().copied().unwrap_or_default();
        Self {
            version: part(0),
            known: part(16),
            generation: u32::from_be_bytes(generation),
        }
    }

    pub(crate) const BYTES: usize = 36;
}

impl<V: Payload> Shell<V> {
    /// Whether a ticket that was out of this process's hands may be spent here: it was made by this node, not long ago.
    pub(crate) fn takes(&self, ticket: FillTicket) -> bool {
        let now_ms = self.node.hlc().physical_ms(self.node.now());
        let begun_ms = ticket.version.time.millis();
        let lasts_ms = u64::try_from(FILL_TOKEN_LASTS.as_millis()).unwrap_or(u64::MAX);
        ticket.version.origin == self.node.id()
            && begun_ms <= now_ms
            && now_ms - begun_ms <= lasts_ms
    }

    /// A load of `key` begins.
    pub(crate) fn begin_fill(&self, key: &[u8]) -> FillTicket {
        let generation = self.store.generation();
        let known = self.store.known(key).version();
        let now = self.node.now();
        let bound = self.machine.lock().core.clock_bound();
        let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        let ms = self.node.hlc().physical_ms(now).saturating_sub(bound_ms);
        // Below everything that is stamped from this millisecond on, here too.
        let time = Timestamp::from_u64(Timestamp::from_parts(ms, 0).as_u64().saturating_sub(1));
        let version = Version::new(time, self.node.id());
        FillTicket {
            version,
            known,
            generation,
        }
    }

    /// Keeps what the load brought, if nothing was invalidated meanwhile. Returns whether it is kept.
    pub(crate) fn fill(
        &self,
        key: &[u8],
        ticket: FillTicket,
        change: Change<V>,
    ) -> Result<bool, WriteError> {
        self.check_open()?;
        // Apart from most of the cluster, which may know better what the system of record holds.
        let is_apart = self.settings.split == SplitPolicy::Flush
            && !is_leased(self.gate.bound(), self.node.quick());
        if is_apart {
            return Ok(false);
        }
        let merged = self.store.merge_if(key, ticket.version, |known| {
            let untouched =
                known.version() == ticket.known && self.store.generation() == ticket.generation;
            untouched.then_some(change)
        });
        match merged {
            Ok(Merged::Applied {
                entry: Some(entry), ..
            }) => {
                let mut machine = self.machine.lock();
                let Machine { core, out } = &mut *machine;
                let published = Published::Fill(entry);
                core.publish(self.node.now(), published, Ack::Local, None, out);
                self.carry_out(&mut machine);
                Ok(true)
            }
            Ok(Merged::Applied { entry: None, .. } | Merged::Stale { .. } | Merged::Declined) => {
                Ok(false)
            }
            Err(MergeError::TooLargeForCache { weight_bytes, .. }) => {
                let entry_bytes = usize::try_from(weight_bytes).unwrap_or(usize::MAX);
                Err(WriteError::TooLargeForCache { entry_bytes })
            }
            Err(MergeError::KeyTooLong { .. } | _) => Ok(false),
        }
    }
}
