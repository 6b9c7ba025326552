//! Carries out what the machine of a cache asks for.

use std::sync::atomic::Ordering;

use bytes::BytesMut;
use nearcache_protocol::frame::FrameLimit;
use nearcache_protocol::message::CacheMessage;
use nearcache_protocol::mode::{Event, Output};
use nearcache_protocol::payload::Payload;
use nearcache_protocol::wire;
use nearcache_store::NodeId;

use super::watchers::CellChange;
use super::{Machine, Shell};
use crate::transport;

impl<V: Payload> Shell<V> {
    /// Carries out the outputs in order and leaves the list empty. Never waits.
    ///
    /// Called with the machine's lock held: of two messages to one peer, the one that the machine
    /// made first is queued first.
    pub(super) fn carry_out(&self, machine: &mut Machine<V>) {
        let mut may_be_unready = false;
        for output in machine.out.drain(..) {
            match output {
                Output::Send { to, message } => {
                    self.node.links().send(to, message.lane(), |limit, buffer| {
                        wire::encode(self.id, &message, limit, buffer)
                    });
                }
                Output::Transmit { peer, lane } => self.node.links().pull(peer, lane, self.id),
                // By the next tick: the membership is not to be locked here.
                Output::Meet(peer) => self.node.cluster_state().needs(peer),
                Output::Reach { to, message } => self.ask(to, &message),
                Output::Done { waiter, result } => self.waiters.answer(waiter, result),
                Output::Ready => self.become_ready(),
                Output::Event(event) => {
                    may_be_unready = true;
                    self.note(event);
                }
            }
        }
        // What was dropped must come again before a miss is a miss.
        if may_be_unready && self.is_ready() && !machine.core.is_ready() {
            self.is_ready.store(false, Ordering::Release);
            self.ready.send_replace(false);
        }
    }

    /// Sends over no session.
    fn ask(&self, to: NodeId, message: &CacheMessage<V>) {
        let mut frame = BytesMut::new();
        let limit = FrameLimit::new(transport::PROBE_FRAME_BYTES_MAX);
        match wire::encode(self.id, message, limit, &mut frame) {
            Ok(()) => transport::ask(&self.node, to, frame.freeze()),
            Err(error) => {
                tracing::error!(cache = %self.name, peer = %to, %error, "a question cannot be asked");
            }
        }
    }

    fn become_ready(&self) {
        self.is_ready.store(true, Ordering::Release);
        self.ready.send_replace(true);
        self.node.cache_became_ready();
        tracing::debug!(cache = %self.name, "cache is ready");
    }

    fn note(&self, event: Event) {
        let cache = self.name.as_str();
        match event {
            Event::Invalidated { scope, .. } => {
                self.changes.send(&CellChange::Invalidated { scope });
            }
            Event::Disagreement(disagreement) => {
                self.counters.disagreements.inc();
                tracing::error!(cache, %disagreement, "not in sync with a peer");
            }
            Event::DriftRefused { peer, ahead_ms } => {
                tracing::warn!(cache, %peer, ahead_ms, "refused a stamp from the future");
            }
            Event::Gap { origin, missing } => {
                tracing::debug!(cache, %origin, missing, "missed updates, asking again");
            }
            Event::TransferStarted { from } => {
                tracing::info!(cache, %from, "filling the cache from a peer");
            }
            Event::TransferDone {
                from,
                updates,
                took,
            } => {
                tracing::debug!(cache, %from, updates, ?took, "a peer has brought its share");
            }
            Event::TransferProgress {
                updates,
                bytes,
                took,
                parts_left,
            } => {
                let megabytes_per_second = megabytes_per_second(bytes, took);
                tracing::info!(
                    cache,
                    updates,
                    bytes,
                    megabytes_per_second,
                    parts_left,
                    ?took,
                    "filling the cache"
                );
            }
            Event::Filled {
                sources,
                updates,
                bytes,
                took,
            } => {
                let megabytes_per_second = megabytes_per_second(bytes, took);
                tracing::info!(
                    cache,
                    sources,
                    updates,
                    bytes,
                    megabytes_per_second,
                    ?took,
                    "filled the cache from peers"
                );
            }
            Event::TransferCut { from } => {
                tracing::info!(cache, %from, "the transfer was cut and will be tried again");
            }
            Event::StartedClean { away, dropped } => {
                tracing::warn!(
                    cache,
                    ?away,
                    dropped,
                    "away for longer than removals are remembered: filled again"
                );
            }
            Event::Apart { heard, of } => {
                let split = self.settings.split;
                tracing::warn!(
                    cache,
                    heard,
                    of,
                    ?split,
                    "this node is apart from most of its cluster"
                );
            }
            Event::Together { after } => {
                tracing::info!(cache, ?after, "this node is with most of its cluster again");
            }
            Event::Dropped { dropped } => {
                tracing::warn!(
                    cache,
                    dropped,
                    "dropped the contents: apart from most of the cluster"
                );
            }
            other => tracing::debug!(cache, ?other, "event"),
        }
    }
}

/// In millions of bytes, rounded down.
fn megabytes_per_second(bytes: u64, took: std::time::Duration) -> u64 {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    bytes / micros
}
