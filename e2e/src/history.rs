//! What clients saw: every operation with its times, the lives of the nodes, and the final state.
//!
//! A value is a number that is written once and never again, so that a value stands for its version. A *life* is one
//! start of a node's process, counted from 0: memory ends with it. Times are microseconds of the harness's own
//! monotonic clock. A history is kept as text, one record a line, so that a failure can be judged again.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};

/// A number that is written once in a round.
pub(crate) type Value = u64;

/// What a client asked for, and what a read returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A read that returned this, or that the key is absent. Meaningless when it failed.
    Read(Option<Value>),
    /// A write.
    Write(Value),
    /// A removal; its number stands for the version of the tombstone.
    Delete(Value),
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
    /// Whether it was answered with success. If not, it may have taken effect, then or later.
    pub(crate) ok: bool,
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
}

impl History {
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
                u8::from(op.ok)
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
            "read" | "write" | "delete" => self.ops.push(Op {
                key: place(0)?,
                kind: match word {
                    "read" => Kind::Read(optional(1)?),
                    "write" => Kind::Write(number(1)?),
                    _ => Kind::Delete(number(1)?),
                },
                node: place(2)?,
                life: place(3)?,
                start: number(4)?,
                end: number(5)?,
                ok: number(6)? == 1,
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
            ok: true,
        };
        let kinds = [
            op.kind,
            Kind::Read(Some(4)),
            Kind::Write(5),
            Kind::Delete(6),
        ];
        let history = History {
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
