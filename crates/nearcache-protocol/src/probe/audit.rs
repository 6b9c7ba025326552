//! The coherence audit: a node writes probes like any other write, and asks its peers what they have of them.
//!
//! All times are of the writer's clock: a probe counts as seen when the answer that says so is here. The way back is in it, so nothing is
//! told shorter than it was, whatever other clocks say and wherever an answer waited. Nor is an answer believed for a time before it
//! came: a node that was paused and has caught up since was late.
//!
//! ```text
//! near: up to PEERS_MAX that there is a session with, in turn    waits for the probe, up to 60 s; 1, 5 and 60 s
//! far:  beyond the mesh, up to FAR_MAX of the others, drawn      waits for the probe, up to 1 s;  1, 5 and 60 s; asked again when lost
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use nearcache_store::{NodeId, Version};

use super::Held;
use super::answer::shows;
use super::histogram::Histogram;
pub use super::report::{AuditReport, COVERED_WITHIN, PeerAudit, Propagation, Verdicts, WITHIN};
use super::rotation::Rotation;
use super::schedule::Schedule;
use crate::ids::RequestId;
use crate::time::Time;

/// The least time between two probes of a node: so no more than a minute's worth are followed at once.
pub const EVERY_MIN: Duration = Duration::from_secs(1);
/// Peers with a session that are asked about one probe, in turn. It is sent to all, as every write is.
pub const PEERS_MAX: usize = 16;
/// Members without a session that are asked about one probe, beyond the mesh.
pub const FAR_MAX: usize = 16;
/// How long an answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The same of a member without a session: a connection must be opened first, and a question may be lost.
const ANSWER_FAR_MAX: Duration = Duration::from_secs(3);
/// After so long a question to such a member is asked again (a guess: several round trips and a handshake).
const AGAIN_AFTER: Duration = Duration::from_millis(300);
/// How long a member without a session is asked to wait for a probe: about as long as its connection stays.
const WAIT_FAR: Duration = Duration::from_secs(1);
/// How long a probe is followed: until the last answer about it must have come.
const FOLLOWED_FOR: Duration = Duration::from_secs(63);
/// Probes that are followed at once.
const PROBES_MAX: usize = 72;
/// Peers whose results are kept; those of members that are gone go first.
const RESULTS_MAX: usize = 1_024;

/// A question on its way out.
#[derive(Debug)]
pub(super) struct Asks {
    /// The question that this repeats.
    pub(super) again: Option<RequestId>,
    pub(super) peer: NodeId,
    pub(super) at_least: Version,
    pub(super) wait: Duration,
}

/// A question that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) request: RequestId,
    /// It went over no session and may be lost.
    pub(super) may_be_lost: bool,
}

/// Who is asked about a probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audience<'a> {
    pub(super) writer: NodeId,
    /// Over sessions, if there are any.
    pub(super) near: &'a [NodeId],
    /// Over short-lived connections.
    pub(super) far: &'a [NodeId],
}

/// What was asked, and of whom.
#[derive(Debug)]
struct Question {
    peer: NodeId,
    written_at: Time,
    until: Time,
    /// Which of [`WITHIN`]; nothing for the question that waits until the probe is seen.
    within: Option<usize>,
    /// When it is asked again, should there be no answer.
    again_at: Time,
}

/// A probe on its way.
#[derive(Debug)]
struct Written {
    version: Version,
    at: Time,
    /// When each peer was known to have it.
    seen: BTreeMap<NodeId, Option<Time>>,
    /// Of whom it cannot be told any more whether they ever got it.
    unknown: BTreeSet<NodeId>,
    /// Which of [`WITHIN`] comes next.
    next: usize,
}

#[derive(Debug, Default)]
struct Results {
    within: [Verdicts; WITHIN.len()],
    took: Histogram,
    answered_at: Option<Time>,
}

/// The audit of one cache on one node.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    schedule: Schedule,
    /// When the last probe was written; before that, when they began to be due.
    probed_at: Option<Time>,
    written: VecDeque<Written>,
    questions: BTreeMap<RequestId, Question>,
    results: BTreeMap<NodeId, Results>,
    took: Histogram,
    probes: u64,
    skipped: u64,
    turn: usize,
    rotation: Rotation,
}

impl Audit {
    /// Writes a probe every so often from now on, for good, or until that time besides what goes on for good. Nothing: no more.
    pub(crate) fn schedule(&mut self, now: Time, every: Option<Duration>, until: Option<Time>) {
        self.schedule.set(now, every, until);
        if every.is_some() {
            self.probed_at.get_or_insert(now);
        }
    }

    /// Whether a probe is due; if so the next one is later.
    pub(crate) fn is_due(&mut self, now: Time) -> bool {
        self.schedule.is_due(now) && self.written.len() < PROBES_MAX
    }

    /// A probe could not be written.
    pub(crate) fn skipped(&mut self) {
        self.skipped += 1;
    }

    /// A probe was written and is on its way to all; some of these are asked for it.
    pub(super) fn wrote(
        &mut self,
        now: Time,
        version: Version,
        to: Audience<'_>,
        mut ask: impl FnMut(Asks) -> Sent,
    ) {
        self.probes += 1;
        self.probed_at = Some(now);
        self.turn = self.turn.wrapping_add(PEERS_MAX);
        let from = self.turn.checked_rem(to.near.len()).unwrap_or(0);
        let in_turn = to.near.iter().cycle().skip(from).take(to.near.len());
        let wait = WITHIN.iter().max().copied().unwrap_or_default();
        let near = in_turn
            .take(PEERS_MAX)
            .map(|peer| (*peer, wait, ANSWER_MAX));
        // The look after a second tells what an answer that is later would.
        let drawn = self.rotation.draw(to.writer, to.far, FAR_MAX);
        let far = drawn
            .into_iter()
            .map(|peer| (peer, WAIT_FAR, Duration::ZERO));
        let mut seen = BTreeMap::new();
        for (peer, wait, and_then) in near.chain(far) {
            let asks = Asks {
                again: None,
                peer,
                at_least: version,
                wait,
            };
            let sent = ask(asks);
            let question = Question {
                peer,
                written_at: now,
                until: now + wait + and_then,
                within: None,
                again_at: again_at(now, &sent),
            };
            self.questions.insert(sent.request, question);
            seen.insert(peer, None);
        }
        self.written.push_back(Written {
            version,
            at: now,
            seen,
            unknown: BTreeSet::new(),
            next: 0,
        });
    }

    /// Asks what is due to be asked, and judges what was not answered.
    pub(super) fn tick(&mut self, now: Time, mut ask: impl FnMut(Asks) -> Sent) {
        for written in &mut self.written {
            while let Some(within) = WITHIN.get(written.next).filter(|t| written.at + **t <= now) {
                for peer in written.seen.keys() {
                    let sent = ask(look(*peer, None));
                    let patience = if sent.may_be_lost {
                        ANSWER_FAR_MAX
                    } else {
                        ANSWER_MAX
                    };
                    let question = Question {
                        peer: *peer,
                        written_at: written.at,
                        until: written.at + *within + patience,
                        within: Some(written.next),
                        again_at: again_at(now, &sent),
                    };
                    self.questions.insert(sent.request, question);
                }
                written.next += 1;
            }
        }
        self.ask_again(now, ask);
        self.judge_silence(now);
        while let Some(first) = self.written.front() {
            if first.at + FOLLOWED_FOR > now {
                break;
            }
            let over = self.written.pop_front();
            let Some(Written { seen, unknown, .. }) = over else {
                break;
            };
            let unseen = seen.into_iter().filter(|(_, seen)| seen.is_none());
            for (peer, _) in unseen.filter(|(peer, _)| !unknown.contains(peer)) {
                self.note_took(peer, Duration::MAX);
            }
        }
        self.bound_results();
    }

    fn ask_again(&mut self, now: Time, mut ask: impl FnMut(Asks) -> Sent) {
        for (request, question) in &mut self.questions {
            if question.again_at > now || question.until <= now {
                continue;
            }
            let mut asks = look(question.peer, Some(*request));
            if question.within.is_none() && question.written_at + WAIT_FAR <= now {
                // The looks will tell.
                question.again_at = Time::MAX;
                continue;
            }
            if question.within.is_none() {
                let mut written = self.written.iter();
                let written = written.find(|written| written.at == question.written_at);
                asks.at_least = written.map_or(Version::ZERO, |written| written.version);
                asks.wait = (question.written_at + WAIT_FAR) - now;
            }
            question.again_at = again_at(now, &ask(asks));
        }
    }

    fn judge_silence(&mut self, now: Time) {
        let over = |question: &Question| question.until <= now;
        let unanswered: Vec<RequestId> = self
            .questions
            .iter()
            .filter(|(_, question)| over(question))
            .map(|(request, _)| *request)
            .collect();
        for request in unanswered {
            let question = self.questions.remove(&request);
            if let Some((peer, within)) = question.and_then(|q| Some((q.peer, q.within?))) {
                self.verdicts(peer, within).silent += 1;
            }
        }
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
        let is_news = shows(held.known, version) && seen.is_none();
        if is_news {
            *seen = Some(now);
        }
        let seen = *seen;
        // It has come and was evicted since, or something else stands where it would.
        let serves_nothing_older = held.floor >= version;
        if seen.is_none() && serves_nothing_older {
            written.unknown.insert(from);
        }
        if is_news {
            self.note_took(from, now - at);
        }
        let Some(within) = question.within else {
            return;
        };
        let in_time = WITHIN
            .get(within)
            .is_some_and(|within| seen.is_some_and(|seen| seen <= at + *within));
        let serves_older = held.leased && held.entry.is_some_and(|entry| entry.version < version);
        let verdicts = self.verdicts(from, within);
        match seen {
            _ if serves_older => verdicts.stale += 1,
            None if serves_nothing_older => verdicts.unknown += 1,
            Some(_) if serves_nothing_older && in_time => verdicts.coherent += 1,
            _ => verdicts.late += 1,
        }
        self.results.entry(from).or_default().answered_at = Some(now);
    }

    /// The session with a member is gone, and with it what was asked over it; beyond the mesh it is asked otherwise.
    pub(super) fn lost(&mut self, now: Time, peer: NodeId) {
        let asked = self.questions.values_mut();
        for question in asked.filter(|question| question.peer == peer) {
            question.again_at = now;
        }
    }

    /// A member has died, or is held for dead: what it was asked it did not answer.
    pub(super) fn died(&mut self, peer: NodeId) {
        let asked = self.questions.values();
        let looks = asked.filter(|question| question.peer == peer);
        let looks = looks.filter_map(|question| Some((question.written_at, question.within?)));
        let mut silent: Vec<(Time, usize)> = looks.collect();
        // Of a probe that was never seen, and not asked for yet, the next look would have found nothing.
        let unseen = self.written.iter().filter(|written| {
            let is_asked_for = silent.iter().any(|(at, _)| *at == written.at);
            let is_unseen = written.seen.get(&peer) == Some(&None);
            is_unseen && !is_asked_for && written.next < WITHIN.len()
        });
        let unseen: Vec<(Time, usize)> = unseen.map(|w| (w.at, w.next)).collect();
        silent.extend(unseen);
        for (_, within) in silent {
            self.verdicts(peer, within).silent += 1;
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
        let judge = self.questions.values();
        let judge = judge.map(|question| question.until.min(question.again_at));
        let end = self.written.front();
        let end = end.map(|written| written.at + FOLLOWED_FOR).into_iter();
        let write = self.schedule.next().into_iter();
        let times = ask.chain(judge).chain(end).chain(write);
        times.min().unwrap_or(Time::MAX)
    }

    /// What came of the probes, of these other members.
    pub(super) fn report<'a>(
        &self,
        now: Time,
        members: impl Iterator<Item = &'a NodeId>,
    ) -> AuditReport {
        let members: BTreeSet<NodeId> = members.copied().collect();
        let ago = |results: &Results| results.answered_at.map(|at| now - at);
        let peer = |(peer, results): (&NodeId, &Results)| PeerAudit {
            peer: *peer,
            member: members.contains(peer),
            within: results.within,
            took: propagation(&results.took),
            answered: ago(results),
        };
        let ago_of = |member: &NodeId| self.results.get(member).and_then(ago);
        let is_covered = |member: &&NodeId| ago_of(member).is_some_and(|ago| ago <= COVERED_WITHIN);
        AuditReport {
            every: self.schedule.every(now),
            probed: self.probed_at.map(|at| now - at),
            probes: self.probes,
            skipped: self.skipped,
            members: members.len(),
            covered: members.iter().filter(is_covered).count(),
            took: propagation(&self.took),
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

    fn note_took(&mut self, peer: NodeId, took: Duration) {
        self.results.entry(peer).or_default().took.add(took);
        self.took.add(took);
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

/// What a peer has now: answered at once.
const fn look(peer: NodeId, again: Option<RequestId>) -> Asks {
    Asks {
        again,
        peer,
        at_least: Version::ZERO,
        wait: Duration::ZERO,
    }
}

fn again_at(now: Time, sent: &Sent) -> Time {
    if sent.may_be_lost {
        now + AGAIN_AFTER
    } else {
        Time::MAX
    }
}

fn propagation(took: &Histogram) -> Propagation {
    Propagation {
        p50: took.quantile(0.5),
        p99: took.quantile(0.99),
        p999: took.quantile(0.999),
    }
}
