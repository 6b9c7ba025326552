//! When updates begin to travel along the tree, and when they no longer do.
//!
//! With one member more than a mesh may have the tree comes on at once: the sessions of the mesh stand for a while longer
//! ([`mesh_grace`](crate::membership::MembershipConfig::mesh_grace)), so that nobody takes a member for unreachable meanwhile. When members go it stays on until there is a
//! session with every one of them: who is not connected would count for nobody's home, and two nodes would decide about one key.

use std::time::Duration;

use super::talk::Talks;
use crate::mode::Output;
use crate::mode::stream::link::Agreed;
use crate::mode::stream::{Receives as _, Sends as _, Streaming};
use crate::payload::Payload;
use crate::time::Time;

/// The tree stays on for so long at least: a member that comes and goes at the boundary does not turn everything over each time (guess).
const STAYS: Duration = Duration::from_secs(5);

/// So long the sessions of the mesh are waited for. With whom there is none by then, there is none in a mesh either.
const MESH_WITHIN: Duration = Duration::from_secs(10);

/// Turning the tree on and off.
pub(in crate::mode) trait Turns<V: Payload>: Streaming<V> {
    /// Turns the tree on or off, as the number of members demands.
    fn set_by_tree(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let shared = self.shared();
        let was_on = shared.relay.on;
        let is_beyond = shared.relay.alive() + 1 > shared.config.mesh_max;
        let small_since = if is_beyond || !was_on {
            None
        } else {
            Some(shared.relay.small_since.unwrap_or(now))
        };
        shared.relay.small_since = small_since;
        let on = is_beyond || small_since.is_some_and(|since| !self.mesh_stands(now - since));
        self.shared().relay.on = on;
        if was_on == on {
            return;
        }
        self.refuse_all_beyond_mesh(out);
        let mut peers = Vec::new();
        self.each_pair(|peer, pair| {
            if !on {
                // With what it is ahead in goes that it has told so: it tells all anew, before any age counts that it tells (C11).
                pair.branch.ahead.clear();
                pair.branch.told = (0, 0);
            }
            if pair.met {
                // What was expected in the one way may come in the other.
                pair.receiving.ask_at = None;
                peers.push(peer);
            }
        });
        self.on_crossing(now, on, out);
        for peer in peers {
            // The answer also says whether it is to go on by the tree.
            self.ask_state(now, peer, out);
            if !on {
                self.subscribe(now, peer, out);
            }
        }
    }

    /// Whether every member that lives is connected and has said whether it runs the cache, or has had the time.
    fn mesh_stands(&mut self, waited: Duration) -> bool {
        let mut known = Vec::new();
        self.each_pair(|peer, pair| {
            if pair.met || matches!(pair.agreement, Agreed::No(_)) {
                known.push(peer);
            }
        });
        let mut living = self.shared().relay.living();
        let all = living.all(|node| known.binary_search(&node).is_ok());
        waited >= MESH_WITHIN || waited >= STAYS && all
    }
}

impl<V: Payload, M: Streaming<V>> Turns<V> for M {}
