//! What happens to the nodes in a round, and when: written out for the smoke run, drawn from a seed otherwise.

use std::fmt;

use crate::cache::Cache;
use crate::chance::Chance;
use crate::machine::ability::Abilities;

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing gets from the first to the second of each pair.
    Cut(Vec<(usize, usize)>),
    /// So many per cent of the packets among all nodes are lost.
    Loss(u8),
    /// What peers send the node over TCP is answered by a reset.
    Reset(usize),
    /// SIGKILL; at the end the node starts again, with empty memory.
    Kill(usize),
    /// SIGKILL, and a new start at once with the wall clock off by so many seconds; at the end both are undone.
    Skew(usize, i64),
    /// SIGSTOP; at the end SIGCONT.
    Stop(usize),
    /// The node's link to its peers is slow.
    Slow(usize),
    /// The node's wall clock is off by so many seconds.
    Clock(usize, i64),
    /// SIGTERM, and at once a new start.
    Restart(usize),
}

impl Fault {
    /// What it needs of the machine and is not there.
    fn lacks(&self, abilities: &Abilities) -> Option<&'static str> {
        match self {
            Self::Cut(_) if abilities.cut.is_none() => Some("nft and iptables"),
            Self::Loss(_) if !abilities.loss => Some("nft numgen and iptables statistic"),
            Self::Slow(_) if abilities.slow.is_none() => Some("tc netem and tc tbf"),
            Self::Reset(_) if !abilities.reset => Some("nft reject"),
            Self::Clock(..) | Self::Skew(..) if abilities.clock.is_none() => Some("libfaketime"),
            _ => None,
        }
    }

    /// The node whose process it touches.
    pub(crate) fn process(&self) -> Option<usize> {
        match self {
            Self::Kill(node) | Self::Skew(node, _) | Self::Stop(node) | Self::Restart(node) => {
                Some(*node)
            }
            Self::Cut(_) | Self::Loss(_) | Self::Reset(_) | Self::Slow(_) | Self::Clock(..) => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(pairs) => {
                f.write_str("cut")?;
                pairs
                    .iter()
                    .try_for_each(|(from, to)| write!(f, " {}→{}", from + 1, to + 1))
            }
            Self::Loss(percent) => write!(f, "loss {percent} %"),
            Self::Reset(node) => write!(f, "reset {}", node + 1),
            Self::Kill(node) => write!(f, "kill {}", node + 1),
            Self::Skew(node, seconds) => {
                write!(
                    f,
                    "restart {} with its clock off by {seconds:+} s",
                    node + 1
                )
            }
            Self::Stop(node) => write!(f, "stop {}", node + 1),
            Self::Slow(node) => write!(f, "slow {}", node + 1),
            Self::Clock(node, seconds) => write!(f, "clock of {} by {seconds:+} s", node + 1),
            Self::Restart(node) => write!(f, "restart {}", node + 1),
        }
    }
}

/// A fault with its time, in milliseconds after the first one may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Timed {
    /// What.
    pub(crate) fault: Fault,
    /// When it begins.
    pub(crate) from: u64,
    /// When it ends.
    pub(crate) to: u64,
}

/// One round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What it is called in reports and files.
    pub(crate) name: String,
    /// The caches that are worked with.
    pub(crate) caches: Vec<Cache>,
    /// Seed of the clients' choices.
    pub(crate) seed: u64,
    /// The faults.
    pub(crate) faults: Vec<Timed>,
}

impl Plan {
    fn new(name: &str, faults: Vec<(Fault, u64, u64)>) -> Self {
        let faults = faults
            .into_iter()
            .map(|(fault, from, to)| Timed { fault, from, to })
            .collect();
        Self {
            name: name.to_owned(),
            caches: vec![Cache::Replicated],
            seed: 1,
            faults,
        }
    }

    fn on(self, caches: &[Cache]) -> Self {
        Self {
            caches: caches.to_vec(),
            ..self
        }
    }

    /// What this machine lacks for it.
    pub(crate) fn lacks(&self, abilities: &Abilities) -> Option<&'static str> {
        self.faults
            .iter()
            .find_map(|timed| timed.fault.lacks(abilities))
    }

    /// The faults in words.
    pub(crate) fn describe(&self) -> String {
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|timed| format!("{} ({}–{} ms)", timed.fault, timed.from, timed.to))
            .collect();
        faults.join(", ")
    }
}

/// Both directions between each of `side` and everybody else.
pub(crate) fn apart(side: &[usize], nodes: usize) -> Fault {
    let mut pairs = Vec::new();
    for a in side {
        for b in (0..nodes).filter(|b| !side.contains(b)) {
            pairs.extend([(*a, b), (b, *a)]);
        }
    }
    Fault::Cut(pairs)
}

/// Every fault once, on three nodes. Cuts and stops last longer than it takes to give a peer up.
pub(crate) fn smoke() -> Vec<Plan> {
    vec![
        Plan::new("partition", vec![(apart(&[2], 3), 0, 5_500)]),
        Plan::new(
            "one-way-partition",
            vec![(Fault::Cut(vec![(0, 1)]), 0, 4_500)],
        ),
        Plan::new("reset", vec![(Fault::Reset(1), 0, 1_500)]),
        Plan::new("kill", vec![(Fault::Kill(1), 0, 2_000)]),
        Plan::new("stop", vec![(Fault::Stop(2), 0, 4_500)]),
        Plan::new("slow-link", vec![(Fault::Slow(0), 0, 3_000)]),
        Plan::new("loss", vec![(Fault::Loss(15), 0, 3_000)]),
        Plan::new(
            "clock-jump",
            vec![
                (Fault::Clock(1, 3_600), 0, 2_000),
                (Fault::Clock(1, -3_600), 2_000, 4_000),
            ],
        ),
        Plan::new(
            "rolling-restart",
            vec![
                (Fault::Restart(0), 0, 0),
                (Fault::Restart(1), 2_000, 2_000),
                (Fault::Restart(2), 4_000, 4_000),
            ],
        ),
        Plan::new(
            "mixed",
            vec![
                (apart(&[0], 3), 0, 4_500),
                (Fault::Stop(1), 500, 3_000),
                (Fault::Kill(2), 1_000, 4_000),
                (Fault::Loss(10), 3_000, 5_000),
            ],
        ),
        Plan::new("split-partition", vec![(apart(&[2], 3), 0, 5_000)]).on(&Cache::SPLIT),
        Plan::new("copies-partition", vec![(apart(&[2], 3), 0, 5_500)]).on(&Cache::COPIES),
        Plan::new("copies-kill", vec![(Fault::Kill(1), 0, 4_500)]).on(&Cache::COPIES),
        Plan::new("copies-stop", vec![(Fault::Stop(2), 0, 4_500)]).on(&Cache::COPIES),
    ]
}

/// The round of a seed. More than half of all rounds mix at least three faults; those of `split` have one cut each, so that it is known
/// who is with most of the cluster.
pub(crate) fn random(seed: u64, nodes: usize, abilities: &Abilities) -> Plan {
    let mut chance = Chance::new(seed);
    let caches: &[Cache] = match chance.below(10) {
        0..6 => &[Cache::Replicated],
        6..9 => &Cache::COPIES,
        _ if abilities.cut.is_none() => &[Cache::Replicated],
        _ => &Cache::SPLIT,
    };
    let name = format!("seed-{seed}");
    if caches == Cache::SPLIT {
        let side = 1 + chance.below((nodes - 1) / 2);
        let first = chance.below(nodes);
        let side: Vec<usize> = (0..side).map(|at| (first + at) % nodes).collect();
        let lasts = chance.between(3_500, 9_000);
        let plan = Plan::new(&name, vec![(apart(&side, nodes), 0, lasts)]).on(caches);
        return Plan { seed, ..plan };
    }
    let wanted = if chance.below(10) < 7 {
        3 + chance.below(2)
    } else {
        1 + chance.below(2)
    };
    let mut faults: Vec<Timed> = Vec::new();
    while faults.len() < wanted {
        let fault = any(&mut chance, nodes);
        let from = chance.between(0, 3_000);
        let to = from + chance.between(300, 9_000);
        let doubled = faults.iter().any(|timed| clash(&timed.fault, &fault));
        // Who starts while nobody reaches it knows nobody whose changes it may miss; who leaves is not missed.
        let forgets = matches!(fault, Fault::Restart(_) | Fault::Skew(..));
        let unfit = forgets && caches == Cache::COPIES;
        if fault.lacks(abilities).is_none() && !doubled && !unfit {
            faults.push(Timed { fault, from, to });
        }
    }
    Plan {
        name,
        caches: caches.to_vec(),
        seed,
        faults,
    }
}

fn any(chance: &mut Chance, nodes: usize) -> Fault {
    let node = chance.below(nodes);
    match chance.below(11) {
        0 => apart(&[node], nodes),
        1 => {
            let half: Vec<usize> = (0..nodes / 2).map(|at| (node + at) % nodes).collect();
            apart(&half, nodes)
        }
        2 => {
            // One-way: what this node sends is lost on its way to some others.
            let others = (0..nodes).filter(|other| *other != node);
            let mut pairs: Vec<_> = others.map(|other| (node, other)).collect();
            pairs.truncate(1 + chance.below(nodes - 1));
            Fault::Cut(pairs)
        }
        3 => {
            // Partial mesh: two nodes that hear each other only through others.
            let other = (node + 1 + chance.below(nodes - 1)) % nodes;
            Fault::Cut(vec![(node, other), (other, node)])
        }
        4 => Fault::Loss(u8::try_from(chance.between(1, 31)).unwrap_or(1)),
        5 => Fault::Kill(node),
        6 => Fault::Stop(node),
        7 => Fault::Slow(node),
        8 => Fault::Reset(node),
        9 if chance.below(2) == 0 => Fault::Skew(node, -3_600),
        9 => Fault::Skew(node, 3_600),
        _ => match chance.below(4) {
            0 => Fault::Restart(node),
            1 => Fault::Clock(node, -3_600),
            2 => Fault::Clock(node, 86_400),
            _ => Fault::Clock(node, 3_600),
        },
    }
}

/// Whether two faults do not mix: two at one process, or two of a kind that is one setting of the network.
/// A node whose clock is off is not started either: it would be refused, which is another matter.
fn clash(a: &Fault, b: &Fault) -> bool {
    let touched = |fault: &Fault| match fault {
        Fault::Clock(node, _) => Some(*node),
        other => other.process(),
    };
    match (a, b) {
        (Fault::Loss(_), Fault::Loss(_)) | (Fault::Cut(_), Fault::Cut(_)) => true,
        (Fault::Slow(a), Fault::Slow(b)) | (Fault::Reset(a), Fault::Reset(b)) => a == b,
        _ => touched(a).is_some() && touched(a) == touched(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{cut, slow};

    fn able() -> Abilities {
        Abilities {
            cut: Some(cut::Tool::NftBridge),
            loss: true,
            reset: true,
            slow: Some(slow::Tool::Tbf),
            clock: Some("clock".into()),
            ..Abilities::default()
        }
    }

    #[test]
    fn a_seed_gives_the_same_plan_and_most_plans_are_mixed() {
        let plans: Vec<Plan> = (0..1_000).map(|seed| random(seed, 5, &able())).collect();
        assert_eq!(plans[7], random(7, 5, &able()));
        let mixed = plans.iter().filter(|plan| plan.faults.len() >= 3).count();
        assert!(mixed > 500, "{mixed}");
        for cache in Cache::ALL {
            assert!(plans.iter().any(|plan| plan.caches.contains(&cache)));
        }
        assert!(
            plans
                .iter()
                .flat_map(|plan| &plan.faults)
                .all(|timed| timed.to >= timed.from && timed.to <= 12_000)
        );
    }

    #[test]
    fn the_smoke_run_has_every_fault_and_says_what_a_machine_lacks() {
        let all: Vec<Timed> = smoke().into_iter().flat_map(|plan| plan.faults).collect();
        for fault in [
            "cut", "loss", "reset", "kill", "stop", "slow", "clock", "restart",
        ] {
            assert!(
                all.iter()
                    .any(|timed| timed.fault.to_string().starts_with(fault)),
                "{fault}"
            );
        }
        let poor = Abilities::default();
        let lacking = smoke()
            .iter()
            .filter(|plan| plan.lacks(&poor).is_some())
            .count();
        assert_eq!(lacking, 9, "all but kill, stop and restart");
    }
}
