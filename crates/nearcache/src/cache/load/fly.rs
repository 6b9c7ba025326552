//! The task that makes a load.

use bytes::Bytes;
use nearcache_protocol::load::fence::Fence;
use nearcache_protocol::payload::Payload as _;
use nearcache_store::{Handle, Version};

use super::call::{Answer, call};
use super::error::LoadError;
use super::{Loaded, OnceLoader, Previous};
use crate::cache::Cache;
use crate::cache::cached::Cached;
use crate::cache::shell::{Admission, FlightGuard, Load, LoadLease, Start};
use crate::codec::Codec;

/// A key whose flight a task leads.
pub(super) struct Seat<V: nearcache_protocol::payload::Payload> {
    pub(super) key: Bytes,
    /// Only something newer than this saves the load.
    pub(super) seen: Version,
    pub(super) flight: FlightGuard<V>,
}

/// A seat whose turn it is.
pub(super) type Leased<V> = (Seat<V>, LoadLease<V>);

/// A seat whose load has begun.
pub(super) struct Departed<V: nearcache_protocol::payload::Payload> {
    seat: Seat<V>,
    fence: Fence,
    previous: Option<Handle<V>>,
    lease: LoadLease<V>,
}

/// Makes the load of one key.
pub(super) async fn fly<K, V, C>(
    cache: Cache<K, V, C>,
    seat: Seat<C::Cell>,
    start: Start,
    loader: OnceLoader<V, C>,
) where
    K: ?Sized + 'static,
    V: Send + 'static,
    C: Codec<V>,
{
    let (shell, loads) = (&cache.shell, cache.shell.loads());
    if !cache.has_place(start, &seat).await {
        return cache.overloaded(seat);
    }
    let Some(seat) = cache.still_missing(seat) else {
        return;
    };
    let asked = shell.ask_lease(&seat.key, loads.policy().load_timeout);
    let turn = shell.turn(asked).await;
    let Some((seat, lease)) = cache.after_turn(seat, turn).await else {
        return;
    };
    let Some(admission) = loads.admits(shell.node().now()) else {
        loads.counters().circuit_open.inc();
        return seat.flight.land(Err(LoadError::CircuitOpen));
    };
    let departed = cache.depart(seat, lease);
    let previous = departed.previous.clone();
    let answer =
        Box::pin(async move { loader(Previous::new(previous.and_then(Cached::of))).await });
    let is_answer = |loaded: &Loaded<V>| !loaded.is_failed();
    let loaded = cache.ask(admission, answer, is_answer).await;
    cache.arrive_at(departed, loaded);
}

impl<K: ?Sized + 'static, V: Send + 'static, C: Codec<V>> Cache<K, V, C> {
    /// Waits until a load may begin, for as long as is worth it.
    pub(super) async fn has_place(&self, start: Start, seat: &Seat<C::Cell>) -> bool {
        let Some(patience) = self.shell.loads().patience(start) else {
            return true;
        };
        let started = tokio::time::timeout(patience, seat.flight.slot.started());
        started.await.is_ok()
    }

    /// Lands a flight that got no place.
    pub(super) fn overloaded(&self, seat: Seat<C::Cell>) {
        self.shell.loads().counters().overloaded.inc();
        let (running, queued) = self.shell.flights();
        seat.flight
            .land(Err(LoadError::Overloaded { running, queued }));
    }

    /// Lands a flight for whose key something has come meanwhile: between the miss and the flight somebody else's load may have
    /// ended. Who comes after an invalidation does not get what was here before it: from before the look on such callers
    /// do not join, unless nothing is found.
    pub(super) fn still_missing(&self, seat: Seat<C::Cell>) -> Option<Seat<C::Cell>> {
        let loads = self.shell.loads();
        loads.began(seat.flight.id, self.shell.begin_fill(&seat.key));
        let Some(found) = self.here(&seat.key, seat.seen) else {
            loads.missed(seat.flight.id);
            return Some(seat);
        };
        seat.flight.land(Ok(found.map(Cached::into_handle)));
        None
    }

    /// Our turn, or another node has loaded the key and the flight lands. If that is gone already, because it was invalidated at
    /// once, it is our turn all the same. A long value is still to be fetched.
    pub(super) async fn after_turn(
        &self,
        seat: Seat<C::Cell>,
        turn: Load<C::Cell>,
    ) -> Option<Leased<C::Cell>> {
        match turn {
            Load::Ours(lease) => Some((seat, lease)),
            Load::Done => {
                let seat = self.still_missing(seat)?;
                // Puts it into the store.
                self.shell.find(&seat.key).await;
                Some((self.still_missing(seat)?, self.shell.without_lease()))
            }
        }
    }

    /// The load begins: from now on whatever is invalidated wins.
    pub(super) fn depart(
        &self,
        seat: Seat<C::Cell>,
        lease: LoadLease<C::Cell>,
    ) -> Departed<C::Cell> {
        let (shell, loads) = (&self.shell, self.shell.loads());
        let previous = shell.stale_copy(&seat.key, loads.policy().stale_for());
        let fence = shell.begin_fill(&seat.key);
        loads.began(seat.flight.id, fence);
        Departed {
            seat,
            fence,
            previous,
            lease,
        }
    }

    /// Calls the loader, and tells what watches over the system of record how it went: `is_answer` says whether what it answered is one.
    pub(super) async fn ask<T>(
        &self,
        admission: Admission,
        answer: Answer<T>,
        is_answer: impl FnOnce(&T) -> bool,
    ) -> Result<T, LoadError> {
        let (node, loads) = (self.shell.node(), self.shell.loads());
        let asked = Asked(self, admission, node.now());
        let answered = call(answer, loads.policy().load_timeout).await;
        asked.answered(answered.as_ref().map(is_answer));
        answered
    }

    pub(super) fn arrive_at(
        &self,
        departed: Departed<C::Cell>,
        loaded: Result<Loaded<V>, LoadError>,
    ) {
        let Departed {
            seat,
            fence,
            previous,
            lease,
        } = departed;
        let arrived = loaded.and_then(|loaded| self.arrive(&seat.key, &fence, previous, loaded));
        let kept = arrived.as_ref().ok().filter(|arrived| arrived.kept);
        lease.end(kept.map(|arrived| &arrived.entry));
        let landed = arrived.map(|arrived| {
            let entry = arrived.entry;
            (!entry.value().is_absent()).then_some(entry)
        });
        seat.flight.land(landed);
    }
}

/// A call of the loader under way. Dropped without an answer, it does not count.
struct Asked<'a, K: ?Sized, V, C: Codec<V>>(
    &'a Cache<K, V, C>,
    Admission,
    nearcache_protocol::time::Time,
);

impl<K: ?Sized, V, C: Codec<V>> Asked<'_, K, V, C> {
    fn answered(self, answered: Result<bool, &LoadError>) {
        let (now, loads) = (self.0.shell.node().now(), self.0.shell.loads());
        let counters = loads.counters();
        loads.ended(now, self.1, answered.is_ok_and(|is_answer| is_answer));
        match answered {
            Ok(true) => {
                counters.succeeded.inc();
                loads.took(now - self.2);
            }
            Err(LoadError::TimedOut { .. }) => {
                counters.timed_out.inc();
            }
            Ok(false) | Err(_) => {
                counters.failed.inc();
            }
        }
        std::mem::forget(self);
    }
}

impl<K: ?Sized, V, C: Codec<V>> Drop for Asked<'_, K, V, C> {
    fn drop(&mut self) {
        self.0.shell.loads().unasked(self.1);
    }
}
