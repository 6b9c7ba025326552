//! Counts what nodes send and how far updates have come, for runs that are about cost.

use std::collections::HashMap;
use std::time::Duration;

use nearcache_protocol::time::Time;

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Carries updates.
    Payload,
    /// Keeps neighbours informed: heartbeats, states, acknowledgements, announcements.
    Control,
    /// Repairs: what a neighbour was asked for, transfers, comparisons.
    Repair,
    /// Membership and handshakes.
    Membership,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] =
        [Self::Payload, Self::Control, Self::Repair, Self::Membership];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::Control => "control",
            Self::Repair => "repair",
            Self::Membership => "membership",
        }
    }

    /// By the kind of the frame.
    pub(crate) const fn of_frame(kind: u8) -> Self {
        match kind {
            0x00..=0x3f => Self::Membership,
            0x40 | 0x90 => Self::Payload,
            0x4c..=0x50 | 0x60..=0x7f | 0x91 => Self::Repair,
            _ => Self::Control,
        }
    }
}

/// Messages and bytes of each kind, of all nodes together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    kinds: [(u64, u64); 4],
}

impl Sent {
    pub(crate) const fn of(&self, kind: Kind) -> (u64, u64) {
        self.kinds[kind as usize]
    }

    /// What was sent since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut kinds = self.kinds;
        for (kind, former) in kinds.iter_mut().zip(before.kinds) {
            *kind = (kind.0 - former.0, kind.1 - former.1);
        }
        Self { kinds }
    }
}

/// How an update spreads.
#[derive(Debug)]
struct Update {
    at: Time,
    /// Hops to each host; 255 where it is not.
    hops: Vec<u8>,
}

/// What is measured in a run about cost.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) sent: Sent,
    /// Short-lived connections that were opened.
    pub(crate) connections: u64,
    /// Of updates that were written since then it is told how they spread.
    since: Time,
    /// Nothing else is looked at in such a run.
    pub(crate) alone: bool,
    hosts: usize,
    updates: HashMap<Vec<u8>, Update>,
    /// The host whose message is being taken in.
    pub(crate) from: Option<usize>,
    /// How long each update took to each node that was there, and over how many hops.
    pub(crate) delays: Vec<Duration>,
    pub(crate) hops: Vec<u8>,
}

const ABSENT: u8 = u8::MAX;

impl Meter {
    /// Measures alone, among so many hosts.
    pub(crate) fn alone(hosts: usize) -> Self {
        Self {
            alone: true,
            hosts,
            ..Self::default()
        }
    }

    pub(crate) fn sent(&mut self, kind: u8, bytes: usize) {
        let (messages, total) = &mut self.sent.kinds[Kind::of_frame(kind) as usize];
        *messages += 1;
        *total += bytes as u64;
    }

    /// The host writes this key now; each is written once.
    pub(crate) fn writes(&mut self, now: Time, host: usize, key: Vec<u8>) {
        let mut hops = vec![ABSENT; self.hosts];
        hops[host] = 0;
        self.updates.insert(key, Update { at: now, hops });
    }

    /// The host, whose node has run since `started`, holds this key now.
    pub(crate) fn holds(&mut self, now: Time, host: usize, started: Time, key: &[u8]) {
        let from = self.from;
        let Some(update) = self.updates.get_mut(key) else {
            return;
        };
        if update.hops[host] != ABSENT {
            return;
        }
        let before = from.map_or(0, |from| update.hops[from]);
        update.hops[host] = before.saturating_add(1).min(ABSENT - 1);
        if started < update.at && update.at >= self.since {
            self.delays.push(now - update.at);
            self.hops.push(update.hops[host]);
        }
    }

    /// A host starts with nothing.
    pub(crate) fn starts(&mut self, host: usize) {
        for update in self.updates.values_mut() {
            update.hops[host] = ABSENT;
        }
    }

    /// The keys that were written.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.updates.keys().map(Vec::as_slice)
    }

    /// From now on it is measured how updates spread that are written from now on. Forgets no update.
    pub(crate) fn begin(&mut self, now: Time) {
        self.since = now;
        self.delays.clear();
        self.hops.clear();
    }
}
