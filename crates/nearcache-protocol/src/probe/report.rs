//! What came of an audit, for whoever looks at it.

use std::time::Duration;

use nearcache_store::NodeId;

/// How long after a probe was written it is asked for.
pub const WITHIN: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(60),
];

/// A member is covered if it has answered about a probe within this time. At one probe in ten seconds, 1,024 members take eleven minutes.
pub const COVERED_WITHIN: Duration = Duration::from_secs(60 * 60);

/// What a peer had of the probes after some time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verdicts {
    /// It was known to have the probe within the time, and had it then, or had evicted it.
    pub coherent: u64,
    /// It got it later, or had neither it nor anything older.
    pub late: u64,
    /// It served something older.
    pub stale: u64,
    /// It did not answer.
    pub silent: u64,
    /// It served nothing older, and nothing shows whether the probe has come: what is remembered of evictions stands for many keys there, it
    /// has dropped all it held, or has loaded the key itself. Neither for nor against it.
    pub unknown: u64,
}

impl Verdicts {
    /// All probes that were asked for.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.coherent + self.failed() + self.unknown
    }

    /// Those that tell of something wrong.
    #[must_use]
    pub const fn failed(&self) -> u64 {
        self.late + self.stale + self.silent
    }

    /// The share of coherent ones in nines, of those that are not unknown: 3 is 99.9 %. One failure more is counted than there was, so that
    /// few probes do not look like many nines.
    #[must_use]
    pub fn nines(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a count of probes")]
        let share = |count: u64| (count + 1) as f64;
        let failed = self.failed();
        (share(self.coherent + failed) / share(failed)).log10()
    }
}

impl std::ops::AddAssign for Verdicts {
    fn add_assign(&mut self, other: Self) {
        self.coherent += other.coherent;
        self.late += other.late;
        self.stale += other.stale;
        self.silent += other.silent;
        self.unknown += other.unknown;
    }
}

/// How long probes took until they were known to be there, the way back of the answer included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Propagation {
    /// Half of the probes; nothing if none has been judged. More than a minute means: not within it.
    pub p50: Option<Duration>,
    /// 99 of 100.
    pub p99: Option<Duration>,
    /// 999 of 1,000.
    pub p999: Option<Duration>,
}

/// What came of the probes of one node.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct AuditReport {
    /// How often a probe is written; nothing if none are.
    pub every: Option<Duration>,
    /// How long ago the last probe was written; while none has been, since they were to be. The verdicts are of no later time. Nothing if
    /// none were ever to be written.
    pub probed: Option<Duration>,
    /// Probes written.
    pub probes: u64,
    /// Probes that could not be written: the clock made no stamp, or the store had no room.
    pub skipped: u64,
    /// Members other than this node.
    pub members: usize,
    /// Those of them that have answered about a probe within [`COVERED_WITHIN`].
    pub covered: usize,
    /// How long probes took to any peer.
    pub took: Propagation,
    /// Per peer that was ever asked, of at most 1,024.
    pub peers: Vec<PeerAudit>,
}

/// What came of the probes of one node on another.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerAudit {
    /// The other node.
    pub peer: NodeId,
    /// Whether it is a member still.
    pub member: bool,
    /// What it had after each of [`WITHIN`].
    pub within: [Verdicts; WITHIN.len()],
    /// How long probes took there.
    pub took: Propagation,
    /// How long ago it has last answered about a probe; nothing if it never has.
    pub answered: Option<Duration>,
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
