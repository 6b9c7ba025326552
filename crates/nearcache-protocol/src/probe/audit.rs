//! The coherence audit: a node writes probes like any other write, and asks its peers what they have of them.
//!
//! All times are of the writer's clock: a probe counts as seen when the answer that says so is here. The way back is in it, so nothing is
//! told shorter than it was, whatever other clocks say and wherever an answer waited. Nor is an answer believed for a time before it
//! came: a node that was paused and has caught up since was late.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use nearcache_store::{NodeId, Version};

use super::Held;
use super::histogram::Histogram;
use crate::ids::RequestId;
use crate::time::Time;

/// How long after a probe was written it is asked for.
pub const WITHIN: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(60),
];
/// The least time between two probes of a node: so no more than a minute's worth are followed at once.
pub const EVERY_MIN: Duration = Duration::from_secs(1);
/// Peers that are asked about one probe, in turn. It is sent to all, as every write is.
pub const PEERS_MAX: usize = 16;
/// How long an answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Probes that are followed at once.
const PROBES_MAX: usize = 64;
/// Peers whose results are kept; those of members that are gone go first.
const RESULTS_MAX: usize = 1_024;

/// What was asked, and of whom.
#[derive(Debug)]
struct Question {
    peer: NodeId,
    written_at: Time,
    until: Time,
    /// Which of [`WITHIN`]; nothing for the question that waits until the probe is seen.
    within: Option<usize>,
}

/// A probe on its way.
#[derive(Debug)]
struct Written {
    version: Version,
    at: Time,
    /// When each peer was known to have it.
    seen: BTreeMap<NodeId, Option<Time>>,
    /// Which of [`WITHIN`] comes next.
    next: usize,
}

/// What a peer had of the probes after some time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verdicts {
    /// It was known to have the probe within the time, and had it then.
    pub coherent: u64,
    /// It got it later, or had neither it nor anything older.
    pub late: u64,
    /// It served something older.
    pub stale: u64,
    /// It did not answer.
    pub silent: u64,
}

impl Verdicts {
    /// All probes that were asked for.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.coherent + self.late + self.stale + self.silent
    }

    /// The share of coherent ones in nines: 3 is 99.9 %. One failure more is counted than there was, so that few probes do not look like
    /// many nines.
    #[must_use]
    pub fn nines(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a count of probes")]
        let share = |count: u64| (count + 1) as f64;
        let failed = self.total() - self.coherent;
        (share(self.total()) / share(failed)).log10()
    }
}

impl std::ops::AddAssign for Verdicts {
    fn add_assign(&mut self, other: Self) {
        self.coherent += other.coherent;
        self.late += other.late;
        self.stale += other.stale;
        self.silent += other.silent;
    }
}

#[derive(Debug, Default)]
struct Results {
    within: [Verdicts; WITHIN.len()],
    took: Histogram,
}

/// What came of the probes of one node.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct AuditReport {
    /// How often a probe is written; nothing if none are.
    pub every: Option<Duration>,
    /// Probes written.
    pub probes: u64,
    /// Probes that could not be written: the clock made no stamp, or the store had no room.
    pub skipped: u64,
    /// Per peer.
    pub peers: Vec<PeerAudit>,
}

/// What came of the probes of one node on another.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerAudit {
    /// The other node.
    pub peer: NodeId,
    /// What it had after each of [`WITHIN`].
    pub within: [Verdicts; WITHIN.len()],
    /// Half of the probes were known to be there after so long; nothing if none has been judged. More than a minute means: not within it.
    pub p50: Option<Duration>,
    /// 99 of 100.
    pub p99: Option<Duration>,
    /// 999 of 1,000.
    pub p999: Option<Duration>,
}

impl AuditReport {
    /// The verdicts of all peers together.
    #[must_use]
    pub fn within(&self) -> [Verdicts; WITHIN.len()] {
        let mut sums = [Verdicts::default(); WITHIN.len()];
        for peer in &self.peers {
            for (sum, verdicts) in sums.iter_mut().zip(peer.within) {
                *sum += verdicts;
            }
        }
        sums
    }
}

/// The audit of one cache on one node.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    every: Option<Duration>,
    until: Option<Time>,
    write_at: Option<Time>,
    written: VecDeque<Written>,
    questions: BTreeMap<RequestId, Question>,
    results: BTreeMap<NodeId, Results>,
    probes: u64,
    skipped: u64,
    turn: usize,
}

impl Audit {
    /// Writes a probe every so often from now on, until that time or for good. Nothing: no more.
    pub(crate) fn schedule(&mut self, now: Time, every: Option<Duration>, until: Option<Time>) {
        self.every = every.map(|every| every.max(EVERY_MIN));
        self.until = until;
        self.write_at = self.every.map(|_| now);
    }

    /// Whether a probe is due; if so the next one is later.
    pub(crate) fn is_due(&mut self, now: Time) -> bool {
        if self.until.is_some_and(|until| until <= now) {
            self.schedule(now, None, None);
        }
        let due = self.write_at.is_some_and(|at| at <= now);
        if let (true, Some(every)) = (due, self.every) {
            self.write_at = Some(now + every);
        }
        due && self.written.len() < PROBES_MAX
    }

    /// A probe could not be written.
    pub(crate) fn skipped(&mut self) {
        self.skipped += 1;
    }

    /// A probe was written and is on its way to all; some of these are asked for it.
    pub(crate) fn wrote(
        &mut self,
        now: Time,
        version: Version,
        peers: &[NodeId],
        mut ask: impl FnMut(NodeId, Version, u32) -> RequestId,
    ) {
        self.probes += 1;
        self.turn = self.turn.wrapping_add(PEERS_MAX);
        let from = self.turn.checked_rem(peers.len()).unwrap_or(0);
        let in_turn = peers.iter().cycle().skip(from).take(peers.len());
        let wait = WITHIN.iter().max().copied().unwrap_or_default();
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let mut seen = BTreeMap::new();
        for peer in in_turn.take(PEERS_MAX).copied() {
            let question = Question {
                peer,
                written_at: now,
                until: now + wait + ANSWER_MAX,
                within: None,
            };
            self.questions.insert(ask(peer, version, wait_ms), question);
            seen.insert(peer, None);
        }
        self.written.push_back(Written {
            version,
            at: now,
            seen,
            next: 0,
        });
    }

    /// Asks what is due to be asked, and judges what was not answered.
    pub(super) fn tick(
        &mut self,
        now: Time,
        mut ask: impl FnMut(NodeId, Version, u32) -> RequestId,
    ) {
        for written in &mut self.written {
            while let Some(within) = WITHIN.get(written.next).filter(|t| written.at + **t <= now) {
                for peer in written.seen.keys() {
                    let question = Question {
                        peer: *peer,
                        written_at: written.at,
                        until: written.at + *within + ANSWER_MAX,
                        within: Some(written.next),
                    };
                    // At least nothing: answered at once.
                    self.questions
                        .insert(ask(*peer, Version::ZERO, 0), question);
                }
                written.next += 1;
            }
        }
        let over = |question: &Question| question.until <= now;
        let unanswered: Vec<RequestId> = self
            .questions
            .iter()
            .filter(|(_, question)| over(question))
            .map(|(request, _)| *request)
            .collect();
        for request in unanswered {
            if let Some(question) = self.questions.remove(&request) {
                match question.within {
                    Some(within) => {
                        self.verdicts(question.peer, within).silent += 1;
                    }
                    None => self.never_seen(question.peer, question.written_at),
                }
            }
        }
        let lasts = WITHIN.iter().max().copied().unwrap_or_default() + ANSWER_MAX;
        while self
            .written
            .front()
            .is_some_and(|written| written.at + lasts <= now)
        {
            self.written.pop_front();
        }
        self.bound_results();
    }

    /// A peer has answered.
    pub(super) fn answered(&mut self, now: Time, from: NodeId, request: RequestId, held: Held) {
        let question = self.questions.get(&request);
        if question.is_none_or(|question| question.peer != from) {
            return;
        }
        let Some(question) = self.questions.remove(&request) else {
            return;
        };
        let mut followed = self.written.iter_mut();
        let followed = followed.find(|written| written.at == question.written_at);
        let Some(written) = followed else { return };
        let (version, at) = (written.version, written.at);
        let Some(seen) = written.seen.get_mut(&from) else {
            return;
        };
        let has_it = held.known >= version;
        if has_it && seen.is_none() {
            *seen = Some(now);
            let took = now - at;
            self.results.entry(from).or_default().took.add(took);
        }
        let seen = self
            .written
            .iter()
            .find(|written| written.at == at)
            .and_then(|written| written.seen.get(&from).copied().flatten());
        let Some(within) = question.within else {
            return;
        };
        let in_time = WITHIN
            .get(within)
            .is_some_and(|within| seen.is_some_and(|seen| seen <= at + *within));
        let serves_older = held.leased && held.entry.is_some_and(|entry| entry.version < version);
        let verdicts = self.verdicts(from, within);
        if !has_it && serves_older {
            verdicts.stale += 1;
        } else if has_it && in_time {
            verdicts.coherent += 1;
        } else {
            verdicts.late += 1;
        }
    }

    /// A member has died, or is held for dead: what it was asked it did not answer.
    pub(super) fn died(&mut self, peer: NodeId) {
        let asked = self.questions.values();
        let asked = asked.filter(|question| question.peer == peer);
        let asked: Vec<(Time, Option<usize>)> = asked
            .map(|question| (question.written_at, question.within))
            .collect();
        for (written_at, within) in &asked {
            // Of a probe that was never seen, and not asked for yet, the next look would have found nothing.
            let is_asked_for =
                |(at, within): &(Time, Option<usize>)| at == written_at && within.is_some();
            let within = within.or_else(|| {
                let mut written = self.written.iter();
                let next = written.find(|written| written.at == *written_at)?.next;
                (!asked.iter().any(is_asked_for) && next < WITHIN.len()).then_some(next)
            });
            if let Some(within) = within {
                self.verdicts(peer, within).silent += 1;
            }
        }
        self.gone(peer);
    }

    /// A member is one no longer: it owes no answer.
    pub(super) fn gone(&mut self, peer: NodeId) {
        self.questions.retain(|_, question| question.peer != peer);
        for written in &mut self.written {
            written.seen.remove(&peer);
        }
    }

    pub(super) fn next_tick(&self) -> Time {
        let ask = self.written.iter().filter_map(|written| {
            let within = WITHIN.get(written.next)?;
            Some(written.at + *within)
        });
        let judge = self.questions.values().map(|question| question.until);
        let write = self.write_at.into_iter();
        ask.chain(judge).chain(write).min().unwrap_or(Time::MAX)
    }

    pub(crate) fn report(&self) -> AuditReport {
        let peer = |(peer, results): (&NodeId, &Results)| PeerAudit {
            peer: *peer,
            within: results.within,
            p50: results.took.quantile(0.5),
            p99: results.took.quantile(0.99),
            p999: results.took.quantile(0.999),
        };
        AuditReport {
            every: self.every,
            probes: self.probes,
            skipped: self.skipped,
            peers: self.results.iter().map(peer).collect(),
        }
    }

    fn verdicts(&mut self, peer: NodeId, within: usize) -> &mut Verdicts {
        let results = self.results.entry(peer).or_default();
        // `within` is a place in WITHIN; were it none, the last would be meant.
        let [first, second, last] = &mut results.within;
        match within {
            0 => first,
            1 => second,
            _ => last,
        }
    }

    fn never_seen(&mut self, peer: NodeId, written_at: Time) {
        let mut written = self.written.iter();
        let written = written.find(|written| written.at == written_at);
        if written.is_some_and(|written| written.seen.get(&peer) == Some(&None)) {
            self.results
                .entry(peer)
                .or_default()
                .took
                .add(Duration::MAX);
        }
    }

    fn bound_results(&mut self) {
        while self.results.len() > RESULTS_MAX {
            let followed = |peer: &NodeId| {
                let mut written = self.written.iter();
                written.any(|written| written.seen.contains_key(peer))
            };
            let idle = self.results.keys().find(|peer| !followed(peer)).copied();
            let Some(idle) = idle.or_else(|| self.results.keys().next().copied()) else {
                return;
            };
            self.results.remove(&idle);
        }
    }
}
