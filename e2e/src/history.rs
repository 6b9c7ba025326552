//! What clients saw: every operation with its times, the lives of the nodes, and the final state.
//!
//! A value is a number that is written once and never again, so that a value stands for its version. A *life* is one
//! start of a node's process, counted from 0: memory ends with it. Times are microseconds of the harness's own
//! monotonic clock. A history is kept as text, one record a line, so that a failure can be judged again.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};

use crate::cache::Cache;

/// Until every thread of a process stands still that was sent a signal for it.
const STOPPING_US: u64 = 50_000;

/// A number that is written once in a round.
pub(crate) type Value = u64;

/// What a client asked for, and what a read returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A read that returned this, or that the key is absent. Meaningless when it failed.
    Read(Option<Value>),
    /// In mode `invalidation`: a read that found no copy, loaded this from the record and gave it to the node to keep.
    Load(Value),
    /// A write. In mode `invalidation`, a change of the record that the node was told of.
    Write(Value),
    /// A removal; its number stands for the version of the tombstone.
    Delete(Value),
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered with success.
    Done,
    /// Not answered, or with an error: it may have taken effect, then or later.
    Unknown,
    /// Refused by a node that is apart from most of its cluster: it never takes effect (C7).
    Refused,
}

/// One operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    /// When it was sent.
    pub(crate) start: u64,
    /// When the answer was there, or nobody waited for it any longer.
    pub(crate) end: u64,
    /// Node it was sent to, counted from 0.
    pub(crate) node: usize,
    /// Life of the node it was sent to.
    pub(crate) life: usize,
    /// Key, by its number.
    pub(crate) key: usize,
    /// What it did.
    pub(crate) kind: Kind,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

impl Op {
    /// Whether it was answered with success.
    pub(crate) fn ok(&self) -> bool {
        self.outcome == Outcome::Done
    }
}

/// Two nodes that could not hear each other, or one not the other: no question of either was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Silence {
    /// The one.
    pub(crate) a: usize,
    /// The other.
    pub(crate) b: usize,
    /// When it had begun.
    pub(crate) from: u64,
    /// When it was about to end.
    pub(crate) to: u64,
    /// What it was.
    pub(crate) by: By,
}

/// Why two nodes did not hear each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The network between them was cut, at least in one direction.
    Cut,
    /// The second was stopped.
    Stop,
    /// The second was killed and not started again.
    Kill,
}

impl By {
    const ALL: [(Self, u64); 3] = [(Self::Cut, 0), (Self::Stop, 1), (Self::Kill, 2)];
}

/// What a node said of how old its knowledge of others is. The reads with the same node and times were answered after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// When it was asked.
    pub(crate) start: u64,
    /// When it had answered.
    pub(crate) end: u64,
    /// The node.
    pub(crate) node: usize,
    /// For each node, how many milliseconds ago this one had all that it had; `None` if it says nothing of it, or that it does not know.
    pub(crate) ages: Vec<Option<u64>>,
}

/// One start of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    /// The node.
    pub(crate) node: usize,
    /// Which of its starts, from 0.
    pub(crate) life: usize,
    /// When the node said that it is ready and knew all its peers; `None` if it never did.
    pub(crate) ready: Option<u64>,
    /// Whether it was ended by SIGKILL.
    pub(crate) killed: bool,
}

/// Everything the checkers judge of one round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// What the cache promises.
    pub(crate) cache: Cache,
    /// All operations, in no order.
    pub(crate) ops: Vec<Op>,
    /// All lives that this round has seen.
    pub(crate) lives: Vec<Life>,
    /// When the first fault began.
    pub(crate) first_fault: u64,
    /// When all faults were over and writers had stopped.
    pub(crate) quiet: u64,
    /// When the state below was the same on all nodes; `None` if that never was.
    pub(crate) converged: Option<u64>,
    /// What each node serves for each key at the end.
    pub(crate) finals: Vec<Vec<Option<Value>>>,
    /// Keys from this number on were written on all nodes before the first fault and never again.
    pub(crate) stable_from: usize,
    /// Nodes that no process fault touched.
    pub(crate) untouched: Vec<usize>,
    /// Who could not hear whom, and when.
    pub(crate) silences: Vec<Silence>,
    /// What nodes said of their freshness.
    pub(crate) claims: Vec<Claim>,
}

impl History {
    /// When an answer was given at the earliest: a node that was stopped while it was asked, and answered, went on before.
    pub(crate) fn answered_after(&self, node: usize, start: u64, end: u64) -> u64 {
        let stops = self.silences.iter();
        let stops = stops.filter(|silence| silence.by == By::Stop && silence.b == node);
        stops
            .filter(|stop| stop.from + STOPPING_US < start && start < stop.to && stop.to < end)
            .map(|stop| stop.to)
            .max()
            .unwrap_or(start)
    }

    /// When a life of a node said that it was ready.
    pub(crate) fn ready(&self, node: usize, life: usize) -> Option<u64> {
        let mut lives = self.lives.iter();
        lives.find(|l| (l.node, l.life) == (node, life))?.ready
    }

    /// Whether this life of the node reached the end of the round: what it held was not lost with it.
    pub(crate) fn survived(&self, node: usize, life: usize) -> bool {
        !self
            .lives
            .iter()
            .any(|l| l.node == node && l.life == life && l.killed)
    }

    /// As text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "cache {}", self.cache);
        let _ = writeln!(
            text,
            "round {} {} {} {}",
            self.first_fault,
            self.quiet,
            show(self.converged),
            self.stable_from
        );
        for node in &self.untouched {
            let _ = writeln!(text, "untouched {node}");
        }
        for s in &self.silences {
            let by = By::ALL.iter().find(|(by, _)| *by == s.by);
            let by = by.map_or(0, |(_, number)| *number);
            let _ = writeln!(text, "silence {} {} {} {} {by}", s.a, s.b, s.from, s.to);
        }
        for claim in &self.claims {
            let (start, end, node) = (claim.start, claim.end, claim.node);
            let _ = write!(text, "claim {start} {end} {node}");
            for age in &claim.ages {
                let _ = write!(text, " {}", show(*age));
            }
            text.push('\n');
        }
        for life in &self.lives {
            let _ = writeln!(
                text,
                "life {} {} {} {}",
                life.node,
                life.life,
                show(life.ready),
                u8::from(life.killed)
            );
        }
        for (node, values) in self.finals.iter().enumerate() {
            let _ = write!(text, "final {node}");
            for value in values {
                let _ = write!(text, " {}", show(*value));
            }
            text.push('\n');
        }
        for op in &self.ops {
            let (kind, value) = match op.kind {
                Kind::Read(value) => ("read", value),
                Kind::Load(value) => ("load", Some(value)),
                Kind::Write(value) => ("write", Some(value)),
                Kind::Delete(value) => ("delete", Some(value)),
            };
            let _ = writeln!(
                text,
                "{kind} {} {} {} {} {} {} {}",
                op.key,
                show(value),
                op.node,
                op.life,
                op.start,
                op.end,
                match op.outcome {
                    Outcome::Unknown => 0,
                    Outcome::Done => 1,
                    Outcome::Refused => 2,
                }
            );
        }
        text
    }

    /// What [`History::to_text`] wrote.
    ///
    /// # Errors
    /// The first line that is not one of its records.
    pub(crate) fn of_text(text: &str) -> anyhow::Result<Self> {
        let mut history = Self::default();
        for line in text.lines() {
            history
                .read_line(line)
                .with_context(|| format!("not a record: {line}"))?;
        }
        Ok(history)
    }

    fn read_line(&mut self, line: &str) -> anyhow::Result<()> {
        let mut words = line.split(' ');
        let word = words.next().unwrap_or_default();
        if word == "cache" {
            self.cache = words.next().unwrap_or_default().parse()?;
            return Ok(());
        }
        let fields = words.map(parse).collect::<anyhow::Result<Vec<_>>>()?;
        let optional = |at: usize| fields.get(at).copied().context("too short");
        let number = |at: usize| optional(at)?.context("a number is missing");
        let place = |at: usize| anyhow::Ok(usize::try_from(number(at)?)?);
        match word {
            "round" => {
                self.first_fault = number(0)?;
                self.quiet = number(1)?;
                self.converged = optional(2)?;
                self.stable_from = place(3)?;
            }
            "untouched" => self.untouched.push(place(0)?),
            "silence" => {
                let by = number(4)?;
                let by = By::ALL.iter().find(|(_, number)| *number == by);
                self.silences.push(Silence {
                    a: place(0)?,
                    b: place(1)?,
                    from: number(2)?,
                    to: number(3)?,
                    by: by.context("no such silence")?.0,
                });
            }
            "claim" => self.claims.push(Claim {
                start: number(0)?,
                end: number(1)?,
                node: place(2)?,
                ages: fields.get(3..).unwrap_or_default().to_vec(),
            }),
            "life" => self.lives.push(Life {
                node: place(0)?,
                life: place(1)?,
                ready: optional(2)?,
                killed: number(3)? == 1,
            }),
            "final" => {
                ensure!(place(0)? == self.finals.len(), "nodes out of order");
                self.finals
                    .push(fields.get(1..).unwrap_or_default().to_vec());
            }
            "read" | "load" | "write" | "delete" => self.ops.push(Op {
                key: place(0)?,
                kind: match word {
                    "read" => Kind::Read(optional(1)?),
                    "load" => Kind::Load(number(1)?),
                    "write" => Kind::Write(number(1)?),
                    _ => Kind::Delete(number(1)?),
                },
                node: place(2)?,
                life: place(3)?,
                start: number(4)?,
                end: number(5)?,
                outcome: match number(6)? {
                    1 => Outcome::Done,
                    2 => Outcome::Refused,
                    _ => Outcome::Unknown,
                },
            }),
            other => anyhow::bail!("unknown record {other}"),
        }
        Ok(())
    }
}

fn show(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn parse(word: &str) -> anyhow::Result<Option<u64>> {
    Ok(match word {
        "-" => None,
        _ => Some(word.parse()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_survives_being_written_and_read() -> anyhow::Result<()> {
        let op = Op {
            start: 1,
            end: 2,
            node: 0,
            life: 1,
            key: 7,
            kind: Kind::Read(None),
            outcome: Outcome::Refused,
        };
        let kinds = [
            op.kind,
            Kind::Read(Some(4)),
            Kind::Load(8),
            Kind::Write(5),
            Kind::Delete(6),
        ];
        let history = History {
            cache: Cache::Dropped,
            silences: vec![Silence {
                a: 0,
                b: 2,
                from: 5,
                to: 6,
                by: By::Kill,
            }],
            claims: vec![Claim {
                start: 7,
                end: 8,
                node: 1,
                ages: vec![Some(4), None, Some(0)],
            }],
            ops: kinds.map(|kind| Op { kind, ..op }).to_vec(),
            lives: vec![Life {
                node: 2,
                life: 1,
                ready: Some(9),
                killed: true,
            }],
            first_fault: 3,
            quiet: 4,
            converged: None,
            finals: vec![vec![None, Some(1)], vec![Some(3), None]],
            stable_from: 1,
            untouched: vec![0, 1],
        };
        assert_eq!(History::of_text(&history.to_text())?, history);
        Ok(())
    }
}
