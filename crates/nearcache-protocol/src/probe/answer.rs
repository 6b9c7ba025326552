//! Answering what other nodes ask about a key: at once, or when a version is known here.

use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Change, Expiry, NodeId, Tags, Timestamp, Version};

use super::routes::Routes;
use super::{Probe, View, is_reserved};
use crate::ids::RequestId;
use crate::mode::Output;
use crate::payload::{CodecTag, Payload};
use crate::time::Time;

/// Questions that may wait for a version. One more is answered with what there is.
const WAITING_MAX: usize = 256;
/// The longest that one may wait.
const WAIT_MAX: Duration = Duration::from_secs(70);
/// How often they are looked at when nothing happens that makes one look.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a copy of a probe is kept.
const COPY_LASTS: Duration = Duration::from_secs(5 * 60);

/// A question of another node.
#[derive(Debug)]
pub(super) struct Asked {
    from: NodeId,
    request: RequestId,
    key: Bytes,
    at_least: Version,
    until: Time,
}

impl Asked {
    pub(super) fn new(
        now: Time,
        from: NodeId,
        request: RequestId,
        (key, at_least, wait_ms): (Bytes, Version, u32),
    ) -> Self {
        let wait = Duration::from_millis(wait_ms.into()).min(WAIT_MAX);
        Self {
            from,
            request,
            key,
            at_least,
            until: now + wait,
        }
    }

    /// Whether there is time left and what it waits for is not here. Looks at the version alone: the value is hashed once, for the answer.
    fn waits<V: Payload>(&self, now: Time, view: &View<'_, V>) -> bool {
        self.until > now && !shows(view.store.known(&self.key).own_version(), self.at_least)
    }
}

/// Whether a version that is known of a key shows that this one, or a later one of the same origin, has come. A newer one of others does
/// not: a probe has one writer, and what is newer and not the writer's was loaded or dropped where it is known.
pub(super) fn shows(known: Version, came: Version) -> bool {
    known >= came && (known.origin == came.origin || came == Version::ZERO)
}

/// Loads a copy of a probe key, as a reader that misses would: below what any other clock may stamp from now on.
pub(super) fn keep_copy<V: Payload>(now: Time, key: &[u8], view: &View<'_, V>) {
    if !is_reserved(key) || view.store.known(key).live().is_some() {
        return;
    }
    let now_ms = view.clock.physical_ms(now);
    let drift_ms = u64::try_from(view.clock.max_drift().as_millis()).unwrap_or(u64::MAX);
    let time = Timestamp::from_parts(now_ms.saturating_sub(drift_ms), 0);
    let change = Change::Put {
        value: V::from_wire(CodecTag::default(), &[]),
        expiry: Expiry::after(now_ms, COPY_LASTS),
        tags: Tags::NONE,
    };
    // Stale if the key was written within the drift bound: the next question finds it older.
    let version = Version::new(time, view.clock.origin());
    let _ = view.store.merge(key, version, change);
}

/// Questions that wait.
#[derive(Debug, Default)]
pub(super) struct Answers {
    waiting: Vec<Asked>,
    look_at: Option<Time>,
}

impl Answers {
    /// Answers, now or later.
    pub(super) fn ask<V: Payload>(
        &mut self,
        now: Time,
        asked: Asked,
        view: &View<'_, V>,
        routes: Routes<'_>,
        out: &mut Vec<Output<V>>,
    ) {
        // The same question again: the way it came loses some.
        let is_same = |other: &Asked| other.from == asked.from && other.request == asked.request;
        self.waiting.retain(|other| !is_same(other));
        let is_full = self.waiting.len() >= WAITING_MAX;
        if is_full || !asked.waits(now, view) {
            out.push(answer(now, &asked, view, routes));
        } else {
            self.waiting.push(asked);
            self.look_at.get_or_insert(now + LOOK_EVERY);
        }
    }

    /// Answers those whose version is here, or whose time is over.
    pub(super) fn settle<V: Payload>(
        &mut self,
        now: Time,
        view: &View<'_, V>,
        routes: Routes<'_>,
        out: &mut Vec<Output<V>>,
    ) {
        self.waiting.retain(|asked| {
            let waits = asked.waits(now, view);
            if !waits {
                out.push(answer(now, asked, view, routes));
            }
            waits
        });
        self.look_at = (!self.waiting.is_empty()).then(|| now + LOOK_EVERY);
    }

    /// The asker is not connected any more.
    pub(super) fn forget(&mut self, from: NodeId) {
        self.waiting.retain(|asked| asked.from != from);
    }

    pub(super) fn next_deadline(&self) -> Time {
        self.look_at.unwrap_or(Time::MAX)
    }
}

fn answer<V: Payload>(
    now: Time,
    asked: &Asked,
    view: &View<'_, V>,
    routes: Routes<'_>,
) -> Output<V> {
    let held = view.held(now, &asked.key);
    if is_reserved(&asked.key) {
        // Nobody reads it, and it would be the first to be evicted: then there is nothing to be seen of the next one that is lost.
        view.store.mark_used(&asked.key);
    }
    let way = routes.back_to(asked.from);
    way.carry(asked.from, asked.request, Probe::Held(held))
}
