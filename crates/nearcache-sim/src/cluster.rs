//! A simulated cluster: hosts, network and the loop that moves virtual time.
//!
//! ```text
//! plan ─▶ queue ─▶ event ─▶ node (membership, cache core, store) ─▶ outputs ─▶ network ─▶ queue
//!                              └▶ checkers, after every event          └ delay, loss, cuts
//! ```
//!
//! Everything follows from the plan and one random generator, on one thread. The parts: [`connect`] opens
//! and breaks sessions with the handshakes of [`shake`], [`carry`] moves messages, [`operate`] lets nodes write, [`strike`] injects faults,
//! [`observe`] shows the checkers what changed, [`leave`] lets nodes go on purpose, [`load`] and
//! [`write`] are the callers that have a system of record behind the cache.

mod audit;
mod carry;
mod coherence;
pub(crate) mod connect;
mod garble;
pub(crate) mod guard;
mod landing;
mod leave;
pub(crate) mod load;
mod observe;
pub(crate) mod operate;
mod reach;
mod shake;
mod strike;
pub(crate) mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::lane::Lane;
use nearcache_protocol::machine::Machine as _;
use nearcache_protocol::time::Time;
use nearcache_store::Version;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

pub(crate) use self::leave::Leaving;
use crate::bug::Bug;
use crate::check::Checkers;
use crate::meter::Meter;
use crate::node::{DRIFT_MS, EPOCH_MS, Node};
use crate::plan::Plan;
use crate::queue::Queue;
use crate::session::Session;
use crate::sometimes::Sometimes;
use crate::trace::Trace;
use crate::violation::Violation;

/// More nodes than this start quickly one after another.
const STAGGERED_MAX: usize = 20;

/// Something that happens at an instant.
pub(crate) enum Event {
    /// A node starts on the host.
    Start { host: usize },
    /// A node opens the cache, some time after its start.
    Open { host: usize, life: u32 },
    /// A node's timers are due.
    Wake { host: usize, life: u32 },
    /// A node looks for others at the addresses it was configured with.
    Seek { host: usize, life: u32 },
    /// The operation of this number is asked for.
    Operate(usize),
    /// The fault of this number strikes.
    Strike(usize),
    /// The cut of this number ends.
    Mend(usize),
    /// A node falls asleep that runs and stops in turn.
    Doze {
        host: usize,
        run: Duration,
        pause: Duration,
        until: Time,
    },
    /// All faults end.
    Heal,
    /// The network tries to open a session.
    Connect { session: usize, attempt: u32 },
    /// A message arrives at an end of a session.
    Arrive {
        session: usize,
        end: usize,
        lane: Lane,
        bytes: Bytes,
        fate: Fate,
    },
    /// A message arrives over a short-lived connection.
    Reached(reach::Reached),
    /// The other side's reset arrives at an end of a session.
    Reset { session: usize, end: usize },
    /// A session's ends look whether the other is still heard.
    Watch { session: usize },
    /// Somebody reads everything on the host.
    Read { host: usize },
    /// The system of record has answered.
    Loaded(coherence::Load),
    /// A rolling restart goes on.
    Roll,
    /// A flight's loader has answered, or is given up.
    Landing { host: usize, life: u32, place: u64 },
    /// A flight has waited for a place for as long as it may.
    Waited { host: usize, life: u32, place: u64 },
    /// A disk has what was written to it.
    Synced { host: usize, life: u32 },
    /// The system of record makes the writes of a host.
    SinkWrites {
        host: usize,
        life: u32,
        writes: Vec<write::Made>,
    },
    /// The sink has answered a host, or not.
    SinkEnded(write::Ended),
    /// Something that is written behind falls due.
    WritesDue { host: usize, life: u32 },
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    Lost,
    /// Delivered once more.
    Again,
}

/// A machine of the data centre, with a node on it or not.
pub(crate) struct Host {
    pub(crate) node: Option<Node>,
    /// Counts the starts: what was meant for a former one is void.
    pub(crate) life: u32,
    pub(crate) paused_until: Time,
    /// All that it sends and gets takes so much longer, until then.
    pub(crate) slow: (Time, Duration),
    /// So many bytes a second pass on each of its links, until then.
    pub(crate) narrow: (Time, u64),
    /// How far its wall clock is off, in milliseconds.
    pub(crate) clock_offset_ms: i64,
    /// What it was when the last node was started.
    started_offset_ms: i64,
    /// The newest version that any node on it has made for a write.
    pub(crate) stamped: Version,
    pub(crate) disk: write::Disk,
}

/// The whole of a run.
pub(crate) struct Cluster {
    pub(crate) plan: Plan,
    pub(crate) bug: Option<Bug>,
    pub(crate) now: Time,
    pub(crate) queue: Queue<Event>,
    pub(crate) rng: StdRng,
    /// Chance of what is written behind.
    pub(crate) writes_rng: StdRng,
    pub(crate) hosts: Vec<Host>,
    pub(crate) sessions: Vec<Session>,
    /// How many cuts lie on the link from one host to another.
    pub(crate) cuts: Vec<Vec<u32>>,
    /// By how much messages from one host to another take longer, and until when.
    pub(crate) lags: BTreeMap<(usize, usize), (Time, Duration)>,
    pub(crate) healed: bool,
    /// The last writes wait for all, to see that they hear from all.
    pub(crate) ends_with_writes: bool,
    /// Hosts that stay broken once the faults have ended.
    pub(crate) outside: BTreeSet<usize>,
    pub(crate) checkers: Checkers,
    pub(crate) sometimes: Sometimes,
    pub(crate) trace: Trace,
    pub(crate) succeeded: usize,
    pub(crate) rolling: leave::Rolling,
    pub(crate) meter: Meter,
}

impl Cluster {
    /// A cluster whose nodes are about to start.
    pub(crate) fn new(plan: Plan, bug: Option<Bug>, told: bool) -> Self {
        let mut queue = Queue::new();
        let nodes = plan.nodes;
        for host in 0..nodes {
            let step_ms = if nodes > STAGGERED_MAX { 4 } else { 20 };
            queue.schedule(
                Time::from_millis(host as u64 * step_ms),
                Event::Start { host },
            );
        }
        for (n, (at, ..)) in plan.operations.iter().enumerate() {
            queue.schedule(*at, Event::Operate(n));
        }
        for (n, (at, _)) in plan.faults.iter().enumerate() {
            queue.schedule(*at, Event::Strike(n));
        }
        if plan.heal < Time::MAX {
            queue.schedule(plan.heal, Event::Heal);
        }
        for host in 0..nodes {
            queue.schedule(Time::from_millis(500), Event::Read { host });
        }
        if let Some(at) = plan.rolling_from {
            queue.schedule(at, Event::Roll);
        }
        let host = |host: usize| Host {
            node: None,
            life: 0,
            paused_until: Time::ZERO,
            slow: (Time::ZERO, Duration::ZERO),
            narrow: (Time::ZERO, u64::MAX),
            clock_offset_ms: plan.clock_offset_ms[host],
            started_offset_ms: plan.clock_offset_ms[host],
            stamped: Version::ZERO,
            disk: write::Disk::default(),
        };
        let hosts = (0..nodes).map(host).collect();
        let mut checkers = Checkers::new(nodes);
        if plan.weather.is_rough() {
            for host in 0..nodes {
                checkers.members.touch(host, plan.heal);
            }
        }
        Self {
            hosts,
            rng: StdRng::seed_from_u64(plan.seed.wrapping_add(1)),
            writes_rng: write::rng_of(&plan),
            plan,
            bug,
            now: Time::ZERO,
            queue,
            sessions: Vec::new(),
            cuts: vec![vec![0; nodes]; nodes],
            lags: BTreeMap::new(),
            healed: false,
            ends_with_writes: false,
            outside: BTreeSet::new(),
            checkers,
            sometimes: Sometimes::default(),
            trace: Trace::new(told),
            succeeded: 0,
            rolling: leave::Rolling::default(),
            meter: Meter::default(),
        }
    }

    /// Lets everything happen up to `end`.
    ///
    /// # Errors
    ///
    /// The first [`Violation`].
    pub(crate) fn run_until(&mut self, end: Time) -> Result<(), Violation> {
        while self.queue.next_at().is_some_and(|at| at <= end) {
            let Some((at, event)) = self.queue.pop() else {
                break;
            };
            self.now = at;
            if let Some(until) = self.held_back(&event) {
                self.queue.schedule(until, event);
                continue;
            }
            self.happen(event)?;
        }
        self.now = end;
        Ok(())
    }

    /// Until when the event waits, because the host that it concerns does not run.
    fn held_back(&self, event: &Event) -> Option<Time> {
        let host = match event {
            Event::Wake { host, .. }
            | Event::Open { host, .. }
            | Event::Seek { host, .. }
            | Event::Read { host } => *host,
            Event::Loaded(load) => load.host,
            Event::Landing { host, .. }
            | Event::Waited { host, .. }
            | Event::Synced { host, .. }
            | Event::WritesDue { host, .. } => *host,
            Event::SinkEnded(ended) => ended.host,
            Event::Reached(reached) => reached.to,
            Event::Operate(n) => self.operator(*n)?,
            Event::Arrive { session, end, .. } | Event::Reset { session, end } => {
                self.sessions[*session].ends[*end].host
            }
            Event::Start { .. }
            | Event::Strike(_)
            | Event::Mend(_)
            | Event::Doze { .. }
            | Event::Heal
            | Event::Roll
            | Event::Connect { .. }
            | Event::SinkWrites { .. }
            | Event::Watch { .. } => return None,
        };
        let until = self.hosts[host].paused_until;
        (until > self.now && self.hosts[host].node.is_some()).then_some(until)
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Start { host } => self.start(host)?,
            Event::Wake { host, life } => self.wake(host, life)?,
            Event::Open { host, life } => self.open(host, life)?,
            Event::Seek { host, life } => self.seek(host, life),
            Event::Operate(n) => self.operate(n)?,
            Event::Strike(n) => self.strike(n)?,
            Event::Mend(n) => self.mend(n),
            Event::Doze {
                host,
                run,
                pause,
                until,
            } => self.doze(host, (run, pause), until),
            Event::Heal => self.heal(),
            Event::Connect { session, attempt } => self.connect(session, attempt),
            Event::Arrive {
                session,
                end,
                lane,
                bytes,
                fate,
            } => {
                self.arrive(session, end, lane, bytes, fate)?;
            }
            Event::Reached(reached) => self.reached(reached)?,
            Event::Reset { session, end } => self.reset(session, end)?,
            Event::Watch { session } => self.watch(session)?,
            Event::Read { .. } if self.meter.alone => {}
            Event::Read { host } => self.read(host)?,
            Event::Loaded(load) => self.loaded(load)?,
            Event::Roll => self.roll()?,
            Event::Landing { host, life, place } => self.landing(host, life, place)?,
            Event::Waited { host, life, place } => self.waited(host, life, place)?,
            Event::Synced { host, life } => self.synced(host, life)?,
            Event::SinkWrites { host, life, writes } => {
                self.sink_writes((host, life), &writes)?;
            }
            Event::SinkEnded(ended) => self.sink_ended(&ended)?,
            Event::WritesDue { host, life } => self.writes_due(host, life),
        }
        Ok(())
    }

    fn start(&mut self, host: usize) -> Result<(), Violation> {
        self.checkers.leases.view_changes(self.now);
        let again = self.hosts[host].life > 0;
        self.forget_stamps_of_a_later_time(host);
        self.hosts[host].life += 1;
        self.meter.starts(host);
        self.hosts[host].paused_until = Time::ZERO;
        self.hosts[host].node = {
            let offset_ms = self.hosts[host].clock_offset_ms;
            Node::start(host, self.now, &self.plan, offset_ms, self.bug)
        };
        self.checkers.forget(host);
        self.note_links(host);
        if again {
            self.checkers.members.started(host, self.now);
        }
        let life = self.hosts[host].life;
        self.trace.step(self.now, &[1, host as u64], || {
            format!("n{host} starts{}", if again { " again, empty" } else { "" })
        });
        if again {
            self.sometimes.reach(crate::sometimes::Place::Restart);
        }
        self.queue.schedule(self.now, Event::Seek { host, life });
        if let Some(node) = self.hosts[host].node.as_ref().filter(|node| !node.is_open) {
            self.queue
                .schedule(node.opens_at, Event::Open { host, life });
        }
        self.reschedule(host);
        self.recover(host)
    }

    /// A clock that was set back by more than the drift bound since the last start gives stamps again that it gave before (R6 holds within
    /// the bound): who has such a clock is refused by all, until it is set right. What waiting after a start does for, it must do for here too.
    fn forget_stamps_of_a_later_time(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        let former_ms = std::mem::replace(&mut state.started_offset_ms, state.clock_offset_ms);
        let wall_ms =
            (EPOCH_MS + self.now.as_millis()).saturating_add_signed(state.clock_offset_ms);
        let was_set_back = former_ms - state.clock_offset_ms > DRIFT_MS.cast_signed();
        if was_set_back && wall_ms + DRIFT_MS < state.stamped.time.millis() {
            state.stamped = Version::ZERO;
        }
    }

    fn open(&mut self, host: usize, life: u32) -> Result<(), Violation> {
        let now = self.now;
        let state = &mut self.hosts[host];
        let Some(node) = state.node.as_mut().filter(|_| state.life == life) else {
            return Ok(());
        };
        let own = node.time(now);
        node.opens_at = now;
        let out = node.open(own, &self.plan, self.bug);
        let start = (node.id, node.epoch);
        self.checkers.coherence.opens(start, now);
        self.checkers.leases.view_changes(now);
        self.sometimes.reach(crate::sometimes::Place::OpenedLate);
        self.trace.step(now, &[18, host as u64], || {
            format!("n{host} opens the cache")
        });
        self.carry_cache(host, out)?;
        self.settle(host)
    }

    fn wake(&mut self, host: usize, life: u32) -> Result<(), Violation> {
        let now = self.now;
        let Some(node) = self.alive(host, life) else {
            return Ok(());
        };
        // A paused node is woken late: this is the wake-up that was set all the same, and another must be.
        if node.wake_at > now && node.next_wake() > now {
            return Ok(());
        }
        node.wake_at = Time::MAX;
        let own = node.time(now);
        node.tick_store(own);
        let (mut membership, mut cache) = (Vec::new(), Vec::new());
        let ticks = node.membership_due <= own;
        if ticks {
            node.membership.tick(own, &mut membership);
        }
        if node.is_open && node.core.next_tick() <= own {
            node.core.tick(own, &mut cache);
        }
        if ticks {
            self.carry_membership(host, membership)?;
        }
        self.carry_cache(host, cache)?;
        self.settle(host)
    }

    /// After anything that happened on a host: shows the checkers what changed, sets the next wake-up.
    pub(crate) fn settle(&mut self, host: usize) -> Result<(), Violation> {
        if self.bug == Some(Bug::EvictionReplicated) {
            self.replicate_evictions(host)?;
        }
        self.observe(host)?;
        self.end_apart(host)?;
        self.reschedule(host);
        self.depart_if_done(host)
    }

    fn reschedule(&mut self, host: usize) {
        let (now, life) = (self.now, self.hosts[host].life);
        let Some(node) = self.hosts[host].node.as_mut() else {
            return;
        };
        // A timer that is due but not taken yet must not stop virtual time.
        let at = node.next_wake().max(now + Duration::from_micros(10));
        if at < node.wake_at {
            node.wake_at = at;
            self.queue.schedule(at, Event::Wake { host, life });
        }
    }

    /// The node on the host, if it is still the same start.
    pub(crate) fn alive(&mut self, host: usize, life: u32) -> Option<&mut Node> {
        let host = &mut self.hosts[host];
        host.node.as_mut().filter(|_| host.life == life)
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[from][to] > 0
    }

    /// The nodes that run and must agree.
    pub(crate) fn core(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.running()
            .filter(|(host, _)| !self.outside.contains(host))
    }

    /// The nodes that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = (usize, &Node)> {
        let hosts = self.hosts.iter().enumerate();
        hosts.filter_map(|(host, state)| Some((host, state.node.as_ref()?)))
    }
}
