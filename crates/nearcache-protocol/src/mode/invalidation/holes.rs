//! What no neighbour brings, beyond the mesh: dropped first, counted as complete afterwards (I3).
//!
//! There is no origin to say that its ring has moved on. A stream in which a neighbour is further, and that stands still here for half of
//! `link_timeout` although the neighbours are asked for what is missing, has a hole.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Invalidation;
use crate::config::ReplicationConfig;
use crate::ids::StreamId;
use crate::message::ProgressVector;
use crate::mode::stream::tree::Forwards as _;
use crate::mode::{FlushCause, Output};
use crate::payload::Payload;
use crate::time::Time;

/// Streams in which neighbours are further.
#[derive(Debug, Default)]
pub(super) struct Holes {
    /// How far this node was in each, and since when it has stood there.
    behind: BTreeMap<StreamId, (u64, Time)>,
}

/// How long a stream may stand still before it is taken to have a hole. Shorter than any lease, and long enough to ask a few neighbours.
pub(super) fn patience(config: &ReplicationConfig) -> Duration {
    config.link_timeout / 2
}

impl Holes {
    /// When to look next.
    pub(super) fn next_look(&self, patience: Duration) -> Time {
        let since = self.behind.values().map(|(_, since)| *since).min();
        since.map_or(Time::MAX, |since| since + patience)
    }
}

impl<V: Payload> Invalidation<V> {
    /// Streams in which a neighbour is further than this node, and how far.
    fn ahead(&self) -> BTreeMap<StreamId, u64> {
        let mut ahead: BTreeMap<StreamId, u64> = BTreeMap::new();
        let links = self.members.values().filter_map(|m| m.link.as_ref());
        for (stream, number, _) in links.flat_map(|link| link.branch.ahead()) {
            if self.progress.lacks(stream, number) {
                let known = ahead.entry(stream).or_default();
                *known = number.max(*known);
            }
        }
        ahead
    }

    /// Gives up waiting for what stands still.
    pub(super) fn skip_holes(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if !self.relay.is_on() {
            self.holes.behind.clear();
            return;
        }
        let ahead = self.ahead();
        let behind = &mut self.holes.behind;
        behind.retain(|stream, _| ahead.contains_key(stream));
        let mut hole = None;
        for stream in ahead.keys() {
            let applied = self.progress.applied(*stream);
            let (stood, since) = behind.entry(*stream).or_insert((applied, now));
            if *stood != applied {
                (*stood, *since) = (applied, now);
            }
            // Who holds nothing needs no past.
            let is_new = applied == 0 && self.store.is_empty();
            if is_new || now >= *since + patience(&self.config) {
                hole = hole.or(Some(*stream));
            }
        }
        if let Some(hole) = hole {
            if !self.config.planted.skips_holes() {
                self.flush(now, FlushCause::Hole(hole.origin), out);
            }
            self.skip(now, ahead, out);
        }
    }

    /// All that is held was dropped, so that nothing is missed that anybody is known to have invalidated by now.
    fn skip(&mut self, now: Time, ahead: BTreeMap<StreamId, u64>, out: &mut Vec<Output<V>>) {
        let own = self.own();
        let streams: Vec<_> = ahead.into_iter().collect();
        let vector = ProgressVector(streams);
        self.progress.raise(&vector, own);
        for (stream, _) in vector.0 {
            self.has_come(now, stream, None, out);
        }
        self.holes.behind.clear();
    }
}
