//! Long values: only key, version and length travel with the update; the value is fetched when somebody reads it.
//!
//! ```text
//! read of a stub ─▶ Wanted ─ turn and room? ─▶ Ask the origin ─▶ pieces ─▶ merge in the stub's version ─▶ all who wait are told
//!                     ▲                            │ silent: ask another peer as well
//!                     │                            │ refused, gone: ask another to go on from here; none left: a miss
//!                     └── a newer stub came: what has arrived is dropped, who waits waits for the newer
//! ```
//!
//! What is on its way counts from whomever it comes, because the same version has the same bytes everywhere; a slow peer is not asked
//! to begin anew. One peer takes at most half of the room for values that arrive, and one that says nothing none.
//!
//! However many wait for a key, its value is fetched once. A caller's deadline ends its wait and not the fetch, so that a value
//! which takes longer than anybody waits does arrive; when the last caller gives up on its own, the fetch is stopped. A miss is
//! told only when every live member has said that it does not hold the value.

mod asking;
mod fetch;
mod pieces;
#[cfg(test)]
mod slow_tests;
mod sources;
#[cfg(test)]
mod tests;
mod wanted;

use bytes::Bytes;
use nearcache_store::{Handle, Known, NodeId};

use self::wanted::{State, Wanted};
use super::home::WorkId;
use super::{Replicated, bequeath};
use crate::fetching::Fetching;
use crate::ids::{RequestId, WaiterId};
use crate::mode::stream::Sends as _;
use crate::mode::{Ack, Outcome, Output, Published, Waiter};
use crate::payload::Payload;
use crate::time::Time;

pub(super) use self::pieces::Pieces;
pub(super) use self::wanted::{Ended, Large};

impl<V: Payload> Replicated<V> {
    /// Of an entry with a long value, what the log keeps and peers are told: the stub.
    fn stubbed(&self, published: Published<V>) -> Published<V> {
        let is_long = |entry: &Handle<V>| {
            !entry.is_stub() && entry.value().bytes().len() > self.config.inline_limit
        };
        match published {
            Published::Entry(entry) | Published::Fill(entry) if is_long(&entry) => {
                let value_bytes = u32::try_from(entry.value().bytes().len()).unwrap_or(u32::MAX);
                let placeholder = V::from_wire(entry.value().codec(), &[]);
                let (expiry, tags) = (entry.expiry(), entry.tags().clone());
                Published::Entry(Handle::stub(
                    entry.key(),
                    entry.version(),
                    expiry,
                    tags,
                    placeholder,
                    value_bytes,
                ))
            }
            other => other,
        }
    }

    /// Tells the peers of a local write.
    pub(in crate::mode::replicated) fn append_stubbed(
        &mut self,
        now: Time,
        published: Published<V>,
        ack: Ack,
        waiter: Option<Waiter>,
        out: &mut Vec<Output<V>>,
    ) -> u64 {
        if self.leave.has_begun()
            && let Published::Entry(entry) = &published
        {
            // What is decided here last is handed over too.
            self.will(entry);
        }
        let published = self.stubbed(published);
        self.large.published(&published);
        let number = self.append(now, published, ack, waiter, out);
        self.settle_touched(now, out);
        number
    }

    /// A read has found a stub.
    pub(in crate::mode::replicated) fn fetch_for_read(
        &mut self,
        now: Time,
        key: Bytes,
        stub: Handle<V>,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        if self.large.callers >= self.config.waiters_max {
            out.push(found(waiter.id, false));
            return;
        }
        self.want(now, (&key, stub), |wanted| wanted.readers.push(waiter), out);
    }

    /// A modify of which this node is the home needs the value of a stub. It is told by `fetched_for_home`.
    pub(in crate::mode::replicated) fn fetch_for_home(
        &mut self,
        now: Time,
        key: Bytes,
        stub: Handle<V>,
        (work, deadline): (WorkId, Time),
        out: &mut Vec<Output<V>>,
    ) {
        self.want(
            now,
            (&key, stub),
            |wanted| wanted.works.push((work, deadline)),
            out,
        );
    }

    /// A holder of the value leaves, and nobody else has it.
    pub(in crate::mode::replicated) fn fetch_to_keep(
        &mut self,
        now: Time,
        keep: (NodeId, RequestId),
        (key, stub): (Bytes, Handle<V>),
        out: &mut Vec<Output<V>>,
    ) {
        self.want(now, (&key, stub), |wanted| wanted.keeps.push(keep), out);
    }

    /// Somebody wants the value: `wants` notes who.
    fn want(
        &mut self,
        now: Time,
        (key, stub): (&Bytes, Handle<V>),
        wants: impl FnOnce(&mut Wanted<V>),
        out: &mut Vec<Output<V>>,
    ) {
        self.large.callers += 1;
        let is_new = !self.large.wanted.contains_key(key);
        let wanted = self.large.wanted.entry(key.clone());
        wants(wanted.or_insert_with(|| Wanted::new(stub, Vec::new(), Vec::new())));
        if is_new {
            self.place(now, key, out);
        }
        self.start_fetches(now, out);
    }

    pub(in crate::mode::replicated) fn on_fetching(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        message: Fetching<V>,
        out: &mut Vec<Output<V>>,
    ) {
        self.needs(from, out);
        match message {
            Fetching::Ask {
                key,
                version,
                from_byte,
            } => self.on_fetch(from, request, (key, version, from_byte), out),
            Fetching::Piece { at, bytes } => self.on_piece(now, from, request, (at, bytes), out),
            Fetching::Refused { known } => self.on_fetch_refused(now, from, request, known, out),
            Fetching::Stop => self.on_fetch_stop(from, request),
            Fetching::Keep {
                key,
                version,
                fetch,
            } => self.on_keep(now, from, request, (key, version, fetch), out),
            Fetching::Kept { held } => self.on_kept(now, from, (request, held), out),
        }
    }

    /// Tells all who wait for the key, and goes on with the next.
    fn end_fetch(&mut self, now: Time, key: &Bytes, ended: Ended, out: &mut Vec<Output<V>>) {
        let Some(wanted) = self.large.take(key) else {
            return;
        };
        for reader in wanted.readers {
            out.push(found(reader.id, ended == Ended::Here));
        }
        for (work, _) in wanted.works {
            self.fetched_for_home(now, work, ended, out);
        }
        let held = ended == Ended::Here || self.is_superseded(key, &wanted.stub);
        for (to, request) in wanted.keeps {
            out.push(bequeath::send(to, request, Fetching::Kept { held }));
        }
        self.start_fetches(now, out);
    }

    /// Whether something newer is known of the key than this stub, so that nobody needs its value.
    fn is_superseded(&self, key: &Bytes, stub: &Handle<V>) -> bool {
        match self.store.known(key) {
            Known::Live(entry) => entry.version() > stub.version(),
            Known::Removed(version) => version > stub.version(),
            Known::Absent { .. } => false,
        }
    }

    /// Updates were applied, or something was written here: what is fetched may be superseded.
    pub(in crate::mode::replicated) fn settle_touched(
        &mut self,
        now: Time,
        out: &mut Vec<Output<V>>,
    ) {
        if std::mem::take(&mut self.large.touched_all) {
            self.large.touched = self.large.wanted.keys().cloned().collect();
        }
        for key in std::mem::take(&mut self.large.touched) {
            self.settle(now, &key, out);
        }
    }

    /// The key has changed here: those who wait for an older value get the newer one, or wait for it.
    fn settle(&mut self, now: Time, key: &Bytes, out: &mut Vec<Output<V>>) {
        let Some(wanted) = self.large.wanted.get(key) else {
            return;
        };
        let version = wanted.stub.version();
        let newer = match self.store.known(key) {
            Known::Live(entry) if !entry.is_stub() => Err(Ended::Here),
            Known::Live(stub) if stub.version() > version => Ok(stub),
            // The stub itself, or it was evicted, which is no reason not to bring the value.
            Known::Live(_) => return,
            Known::Absent { floor, .. } if floor <= version => return,
            Known::Removed(_) | Known::Absent { .. } => Err(Ended::Nowhere),
        };
        if newer.is_ok() && self.planted.takes_late_values_for_newer() {
            return;
        }
        self.withdraw(now, key, out);
        match newer {
            Err(ended) => self.end_fetch(now, key, ended, out),
            Ok(stub) => {
                let Some(former) = self.large.take(key) else {
                    return;
                };
                self.large.callers += former.readers.len() + former.works.len();
                for (to, request) in former.keeps {
                    out.push(bequeath::send(to, request, Fetching::Kept { held: true }));
                }
                let wanted = Wanted::new(stub, former.readers, former.works);
                self.large.wanted.insert(key.clone(), wanted);
                self.place(now, key, out);
                self.start_fetches(now, out);
            }
        }
    }

    pub(in crate::mode::replicated) fn fetches_peer_down(
        &mut self,
        now: Time,
        peer: NodeId,
        out: &mut Vec<Output<V>>,
    ) {
        self.pieces.peer_down(peer);
        let asked = |(key, wanted): (&Bytes, &Wanted<V>)| {
            let is_asked = wanted.asked.contains(&peer);
            is_asked.then(|| (key.clone(), wanted.request))
        };
        let cut: Vec<_> = self.large.wanted.iter().filter_map(asked).collect();
        for (key, _) in &cut {
            let is_other = |id: &mut NodeId| *id != peer;
            self.large
                .change(key, |wanted| wanted.asked.retain(is_other));
        }
        for wanted in self.large.wanted.values_mut() {
            // Started again it may hold what it did not.
            wanted.without.retain(|id| *id != peer);
            let keeps = wanted.keeps.len();
            wanted.keeps.retain(|(holder, _)| *holder != peer);
            self.large.callers -= keeps - wanted.keeps.len();
        }
        let queued = self.large.sources.take_queue(peer);
        self.large.sources.forget(peer);
        self.bequest_peer_down(now, peer, out);
        for (key, request) in cut {
            self.unless_asked(now, &key, request, out);
        }
        for key in queued {
            self.place(now, &key, out);
        }
        self.start_fetches(now, out);
    }

    /// Tells those whose time is over, and moves fetches that stand still.
    pub(in crate::mode::replicated) fn tick_wanted(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.start_fetches(now, out);
        if self.large.next_tick() > now {
            return;
        }
        let keys: Vec<Bytes> = self.large.wanted.keys().cloned().collect();
        for key in keys {
            self.tell_late(now, &key, out);
            let Some(wanted) = self.large.wanted.get(&key) else {
                continue;
            };
            match wanted.state {
                // Nobody waits, and nothing is on its way.
                State::Queued { .. } | State::Stranded { .. } if wanted.is_unwanted() => {
                    self.end_fetch(now, &key, Ended::Late, out);
                }
                State::Arriving { .. } | State::Silent { .. } => self.look_after(now, &key, out),
                State::Stranded { again_at } if again_at <= now => self.place(now, &key, out),
                State::Queued { .. } | State::Stranded { .. } => {}
            }
        }
        self.start_fetches(now, out);
    }

    fn tell_late(&mut self, now: Time, key: &Bytes, out: &mut Vec<Output<V>>) {
        let Some(wanted) = self.large.wanted.get_mut(key) else {
            return;
        };
        let late: Vec<_> = wanted
            .readers
            .extract_if(.., |reader| reader.deadline <= now)
            .collect();
        let works: Vec<_> = wanted
            .works
            .extract_if(.., |(_, deadline)| *deadline <= now)
            .collect();
        self.large.callers -= late.len() + works.len();
        for reader in late {
            out.push(found(reader.id, false));
        }
        for (work, _) in works {
            self.fetched_for_home(now, work, Ended::Late, out);
        }
    }
}

const fn found<V>(waiter: WaiterId, found: bool) -> Output<V> {
    Output::Done {
        waiter,
        result: Outcome::Found(found),
    }
}
