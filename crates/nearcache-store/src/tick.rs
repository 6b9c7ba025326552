//! Housekeeping: [`Store::tick`] and [`Store::invalidate`].
//!
//! Nothing here decides what a read sees: reads compare expiry and group floors themselves. It frees what reads no
//! longer see, in small steps, each under the lock of one shard.

use crate::shard::{Displaced, Shard, Writer};
use crate::sync::Ordering;
use crate::{Event, Handle, Scope, Store, Version, Weigh};

/// Slots swept per lock when memory is freed at once (some tens of microseconds).
const SWEEP_STEP: usize = 512;

/// What a step of housekeeping took out, to be told to the listener and dropped after the lock is released.
struct Gone<V> {
    expired: Vec<Handle<V>>,
    invalidated: Vec<Handle<V>>,
    displaced: Displaced<V>,
}

impl<V> Default for Gone<V> {
    fn default() -> Self {
        Self {
            expired: Vec::new(),
            invalidated: Vec::new(),
            displaced: Displaced::default(),
        }
    }
}

impl<V: Weigh> Store<V> {
    /// Does what is due: takes out expired and idle entries, sweeps invalidated ones, collects old tombstones and
    /// floors. At most about `budget` of each per shard; the owner calls it every ten milliseconds or so.
    pub fn tick(&self, budget: usize) {
        let generation = self.generation.load(Ordering::Acquire);
        let mut swept = true;
        for shard in self.shards() {
            let mut gone = Gone::default();
            {
                let mut writer = shard.writer.lock();
                self.expire(shard, &mut writer, budget, &mut gone);
                self.sweep(shard, &mut writer, budget, &mut gone);
                if let Some(before_ms) = self.forgotten_ms() {
                    writer.collect_tombstones(before_ms, budget);
                }
                writer.fit(&shard.table, &mut gone.displaced);
                swept &= writer.sweep.done == generation;
            }
            self.tell_gone(&gone);
        }
        self.settle_told_floors(budget);
        // A floor may go only when nothing below it is left anywhere.
        if swept && generation != 0 {
            self.collect_group_floors(generation);
        }
    }

    /// Invalidates everything that `scope` covers and that is not newer than `version`: it is a miss from the moment
    /// this returns, also if it arrives later. Memory is freed by later ticks, for [`Scope::All`] at once.
    ///
    /// Returns false if nothing changed, because a wider or equal floor was there.
    pub fn invalidate(&self, scope: Scope, version: Version) -> bool {
        let all = scope == Scope::All;
        {
            let mut groups = self.groups.write();
            if !groups.raise(scope, version) {
                return false;
            }
            // Release, and before the lock is: a read that sees the number finds the floor.
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        if all {
            self.sweep_all(version);
        }
        true
    }

    /// Frees everything up to `version` at once, a few hundred entries per lock.
    fn sweep_all(&self, version: Version) {
        self.drop_told_floors(version);
        for shard in self.shards() {
            loop {
                let mut gone = Gone::default();
                let done = {
                    let mut writer = shard.writer.lock();
                    self.sweep(shard, &mut writer, SWEEP_STEP, &mut gone);
                    let done = writer.sweep.done == self.generation.load(Ordering::Acquire);
                    if done {
                        writer.drop_key_floors(version);
                        writer.fit(&shard.table, &mut gone.displaced);
                    }
                    done
                };
                self.tell_gone(&gone);
                if done {
                    break;
                }
            }
        }
    }

    fn expire(&self, shard: &Shard<V>, writer: &mut Writer<V>, budget: usize, gone: &mut Gone<V>) {
        let now_ms = self.clock.now_ms();
        for _ in 0..budget {
            let Writer {
                wheel, directory, ..
            } = writer;
            let due = wheel.next_due(directory, now_ms, |directory, slot| {
                directory
                    .get(slot)
                    .map_or(u64::MAX, |entry| self.deadline_ms(entry))
            });
            let Some(entry) = due.and_then(|slot| writer.directory.get(slot)).cloned() else {
                return;
            };
            let hash = entry.record().hash;
            writer.take_out(&shard.table, &entry);
            if !entry.expiry().is_expired(now_ms) {
                // Idle is this node's own affair, as an eviction is.
                let key_hash = writer.key_hash(&entry);
                writer.raise_key_floor(key_hash, entry.version());
            } else if !self.planted.forgets_tombstones()
                && entry.version() > self.whole_key_floor(entry.key())
            {
                self.bury(writer, hash, entry.key(), entry.version());
            }
            writer.counts.expirations += 1;
            gone.expired.push(entry);
        }
    }

    /// Goes on holding entries against the group invalidations; those that survive need no check at their next read.
    fn sweep(&self, shard: &Shard<V>, writer: &mut Writer<V>, budget: usize, gone: &mut Gone<V>) {
        let generation = self.generation.load(Ordering::Acquire);
        if writer.sweep.done == generation {
            return;
        }
        let groups = self.groups.read();
        if writer.sweep.slot == 0 {
            writer.sweep.target = generation;
        }
        let end = writer.directory.slots().min(
            writer
                .sweep
                .slot
                .saturating_add(u32::try_from(budget).unwrap_or(u32::MAX)),
        );
        for slot in writer.sweep.slot..end {
            let Some(entry) = writer.directory.get(slot) else {
                continue;
            };
            if entry.record().checked_generation.load(Ordering::Relaxed) == generation {
                continue;
            }
            let by_key = entry.version() <= groups.of_key(entry.key());
            if !by_key && entry.version() > groups.of_tags(entry.tags()) {
                entry
                    .record()
                    .checked_generation
                    .store(generation, Ordering::Relaxed);
                continue;
            }
            let entry = entry.clone();
            writer.take_out(&shard.table, &entry);
            // A floor of the whole key stands against everything older. One of a tag does not: older values of the key may
            // carry other tags.
            if !by_key && !self.planted.forgets_tombstones() {
                let hash = entry.record().hash;
                self.bury(writer, hash, entry.key(), entry.version());
            }
            writer.counts.invalidations += 1;
            gone.invalidated.push(entry);
        }
        writer.sweep.slot = end;
        if end >= writer.directory.slots() {
            writer.drop_covered_tombstones(|key, version| version <= groups.of_key(key));
            writer.sweep.slot = 0;
            writer.sweep.done = writer.sweep.target;
        }
    }

    fn collect_group_floors(&self, generation: u32) {
        let Some(before_ms) = self.forgotten_ms() else {
            return;
        };
        if !self.groups.read().has_any_before(before_ms) {
            return;
        }
        let mut groups = self.groups.write();
        // Nobody invalidated anything since the sweep was found complete: doing so takes this lock.
        if self.generation.load(Ordering::Acquire) == generation {
            groups.collect(before_ms);
        }
    }

    /// Records that a key was removed, unless that is so long ago that no node remembers it.
    pub(crate) fn bury(&self, writer: &mut Writer<V>, hash: u64, key: &[u8], version: Version) {
        if self.remembers(version) {
            writer.bury(hash, key, version);
        }
    }

    /// Removals and floors with versions of this time, in milliseconds, or earlier are forgotten: `tombstone_ttl` ago.
    pub(crate) fn forgotten_ms(&self) -> Option<u64> {
        let ttl_ms = u64::try_from(self.config.tombstone_ttl.as_millis()).unwrap_or(u64::MAX);
        self.clock.now_ms().checked_sub(ttl_ms)
    }

    /// Is a removal at `version` young enough to be remembered?
    pub(crate) fn remembers(&self, version: Version) -> bool {
        self.forgotten_ms()
            .is_none_or(|before_ms| version.time.millis() > before_ms)
    }

    fn tell_gone(&self, gone: &Gone<V>) {
        if !self.has_listener() {
            return;
        }
        gone.expired
            .iter()
            .for_each(|entry| self.tell(Event::Expired(entry)));
        gone.invalidated
            .iter()
            .for_each(|entry| self.tell(Event::Invalidated(entry)));
        gone.displaced
            .iter()
            .for_each(|entry| self.tell(Event::Evicted(entry)));
    }
}
