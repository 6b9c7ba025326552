//! Whom we know, whom we are connected to, and whom to connect to next.
//!
//! SWIM says who lives, the transport says who is connected; from both this table decides when another
//! attempt to connect is due. Dead members are dialled too, rarely, so that a healed partition heals
//! without an operator; those that left on purpose are not.

use std::collections::BTreeMap;
use std::time::Duration;

use nearcache_store::NodeId;
use rand::{Rng, RngExt as _};

use crate::identity::Identity;
use crate::time::Time;

/// What is known of one other node.
#[derive(Debug)]
pub(super) struct Contact {
    /// Its newest identity.
    pub(super) identity: Identity,
    /// Whether there is a session with it.
    pub(super) connected: bool,
    /// Since when it is dead, if it is.
    pub(super) down_since: Option<Time>,
    /// Whether it left on purpose, in this epoch.
    pub(super) left: bool,
    /// Whether this node wants a session with it.
    pub(super) wanted: bool,
    /// From when on its session may be ended, if it is not wanted.
    pub(super) ends_at: Time,
    /// The session is one of a mesh that held all members.
    pub(super) of_mesh: bool,
    /// Until when a cache of this node needs a session with it.
    pub(super) guest_until: Option<Time>,
    /// One of the two has said that it ends the session, and both live on.
    pub(super) parting: bool,
    redial_at: Time,
    redial_wait: Duration,
}

/// All other nodes known, in the order of their ids: iteration must not depend on a hash.
#[derive(Debug)]
pub(super) struct Contacts {
    own: NodeId,
    wait_min: Duration,
    wait_max: Duration,
    table: BTreeMap<NodeId, Contact>,
}

impl Contacts {
    pub(super) const fn new(own: NodeId, wait_min: Duration, wait_max: Duration) -> Self {
        Self {
            own,
            wait_min,
            wait_max,
            table: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&Contact> {
        self.table.get(&node)
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Contact> {
        self.table.get_mut(&node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Contact> {
        self.table.values()
    }

    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|contact| contact.connected)
    }

    /// Members alive, in the order of their ids.
    pub(super) fn alive_nodes(&self) -> impl Iterator<Item = NodeId> + Clone + '_ {
        let alive = self.table.values();
        let alive = alive.filter(|contact| contact.down_since.is_none());
        alive.map(|contact| contact.identity.node)
    }

    /// Members alive, this node not counted.
    pub(super) fn alive(&self) -> usize {
        self.iter()
            .filter(|contact| contact.down_since.is_none())
            .count()
    }

    /// Notes that the member lives, as this identity.
    pub(super) fn up(&mut self, now: Time, identity: &Identity) {
        let contact = self.note(now, identity);
        contact.down_since = None;
        contact.left = false;
    }

    /// Notes an identity, without saying whether it lives. The older of two is ignored.
    pub(super) fn note(&mut self, now: Time, identity: &Identity) -> &mut Contact {
        // Of two nodes that learn of each other at once the smaller id calls first.
        let head_start = if self.own < identity.node {
            Duration::ZERO
        } else {
            self.wait_min * 20
        };
        let wait_min = self.wait_min;
        let contact = self.table.entry(identity.node).or_insert_with(|| Contact {
            identity: identity.clone(),
            connected: false,
            down_since: None,
            left: false,
            wanted: true,
            ends_at: now,
            of_mesh: false,
            guest_until: None,
            parting: false,
            redial_at: now + head_start,
            redial_wait: wait_min,
        });
        if identity.replaces(&contact.identity) {
            contact.left &= contact.identity.epoch == identity.epoch;
            contact.identity = identity.clone();
        }
        contact
    }

    /// Notes that a session with it has begun or has ended; attempts start over from the shortest wait.
    pub(super) fn set_connected(&mut self, now: Time, node: NodeId, connected: bool) {
        let wait_min = self.wait_min;
        if let Some(contact) = self.table.get_mut(&node) {
            contact.connected = connected;
            contact.parting = false;
            contact.redial_wait = wait_min;
            contact.redial_at = now;
        }
    }

    /// Forgets a dead node.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.table.remove(&node);
    }

    /// Sets with whom this node wants sessions. Whom it did not want before is dialled at once; a session that it wants no longer
    /// stays for a `grace`, which follows from whether it is one of the mesh.
    pub(super) fn want(
        &mut self,
        now: Time,
        wants: impl Fn(NodeId) -> bool,
        mut grace: impl FnMut(bool) -> Duration,
    ) {
        for (node, contact) in &mut self.table {
            let wanted = wants(*node);
            match (contact.wanted, wanted) {
                (false, true) => {
                    contact.redial_at = now;
                    contact.redial_wait = self.wait_min;
                }
                (true, false) => contact.ends_at = now + grace(contact.of_mesh),
                _ => {}
            }
            contact.wanted = wanted;
        }
    }

    /// There are no more members than a mesh may have: this node wants a session with each.
    pub(super) fn want_all(&mut self, now: Time) {
        self.want(now, |_| true, |_| Duration::ZERO);
        for contact in self.table.values_mut() {
            contact.of_mesh = contact.connected;
        }
    }

    /// A session with this live member is needed until then; it is dialled at once.
    pub(super) fn invite(&mut self, now: Time, node: NodeId, until: Time) {
        let wait_min = self.wait_min;
        let Some(contact) = self.table.get_mut(&node) else {
            return;
        };
        if contact.left || contact.down_since.is_some() {
            return;
        }
        if contact.guest_until.replace(until).is_none() && !contact.wanted {
            contact.redial_at = now;
            contact.redial_wait = wait_min;
        }
    }

    /// With how many members other than `node` caches need sessions. Forgets those that are no longer needed.
    pub(super) fn guests_beside(&mut self, now: Time, node: NodeId) -> usize {
        let mut guests = 0;
        for (other, contact) in &mut self.table {
            contact.guest_until = contact.guest_until.filter(|until| *until > now);
            guests += usize::from(contact.guest_until.is_some() && *other != node);
        }
        guests
    }

    /// When the next attempt to connect is due.
    pub(super) fn next_redial(&self) -> Time {
        let waiting = self.iter().filter(|contact| contact.wants_dialling());
        waiting
            .map(|contact| contact.redial_at)
            .min()
            .unwrap_or(Time::MAX)
    }

    /// Whom to connect to now. Sets when the next attempt is due: full jitter over a wait that doubles.
    ///
    /// Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    pub(super) fn due(&mut self, now: Time, rng: &mut impl Rng) -> Vec<Identity> {
        let mut due = Vec::new();
        for contact in self.table.values_mut() {
            contact.guest_until = contact.guest_until.filter(|until| *until > now);
            if contact.wants_dialling() && contact.redial_at <= now {
                due.push(contact.identity.clone());
                let wait = contact.redial_wait;
                contact.redial_at = now + self.wait_min + wait.mul_f64(rng.random::<f64>());
                contact.redial_wait = (wait * 2).min(self.wait_max);
            }
        }
        due
    }
}

impl Contact {
    const fn wants_dialling(&self) -> bool {
        !self.connected && !self.left && (self.wanted || self.guest_until.is_some())
    }
}
