//! The nodes of a run, and the faults that are on at the moment.

use std::collections::BTreeSet;

use anyhow::Context as _;

use crate::history::{By, Life, Silence};
use crate::machine::ability::Abilities;
use crate::machine::cut::{self, Drops};
use crate::machine::process::{Process, Setup};
use crate::machine::slow;
use crate::plan::Fault;
use crate::work::Board;

/// Running processes, and everything a round's history must know of them.
#[derive(Debug)]
pub(crate) struct Cluster {
    setup: Setup,
    abilities: Abilities,
    processes: Vec<Process>,
    on: Vec<Fault>,
    killed: BTreeSet<(usize, usize)>,
    /// Those of this round; one that lasts ends never.
    silences: Vec<Silence>,
}

impl Cluster {
    /// Starts all nodes.
    ///
    /// # Errors
    /// When one cannot be started.
    pub(crate) fn start(setup: &Setup, abilities: &Abilities) -> anyhow::Result<Self> {
        let mut processes = Vec::new();
        for node in 0..setup.network.nodes() {
            let mut process = Process::new(setup, node)?;
            process.start()?;
            processes.push(process);
        }
        Ok(Self {
            setup: setup.clone(),
            abilities: abilities.clone(),
            processes,
            on: Vec::new(),
            killed: BTreeSet::new(),
            silences: Vec::new(),
        })
    }

    /// Lets a fault begin.
    ///
    /// # Errors
    /// When the machine refuses.
    pub(crate) fn begin(&mut self, fault: &Fault, board: &Board) -> anyhow::Result<()> {
        self.make(fault, board)?;
        let from = board.now();
        for (a, b, by) in self.silenced(fault) {
            let to = u64::MAX;
            let silence = Silence { a, b, from, to, by };
            self.silences.push(silence);
        }
        Ok(())
    }

    /// Whom a fault keeps from hearing each other: pairs, of which the second is the one it happens to.
    fn silenced(&self, fault: &Fault) -> Vec<(usize, usize, By)> {
        let of = |node: usize, by: By| {
            let others = (0..self.processes.len()).filter(move |other| *other != node);
            others.map(|other| (other, node, by)).collect()
        };
        match fault {
            Fault::Cut(pairs) => {
                let pairs: BTreeSet<_> = pairs.iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
                pairs.into_iter().map(|(a, b)| (*a, *b, By::Cut)).collect()
            }
            Fault::Stop(node) => of(*node, By::Stop),
            Fault::Kill(node) => of(*node, By::Kill),
            _ => Vec::new(),
        }
    }

    /// Who did not hear whom since this was asked last. Called while no fault is on.
    pub(crate) fn take_silences(&mut self) -> Vec<Silence> {
        std::mem::take(&mut self.silences)
    }

    fn make(&mut self, fault: &Fault, board: &Board) -> anyhow::Result<()> {
        match fault {
            Fault::Cut(_) | Fault::Loss(_) => {
                self.on.push(fault.clone());
                self.filter()
            }
            Fault::Reset(node) => cut::reset(&self.setup.network, *node, true),
            Fault::Kill(node) => self.kill(*node, board),
            Fault::Skew(node, seconds) => {
                self.kill(*node, board)?;
                let process = self.process(*node)?;
                process.set_clock(*seconds)?;
                process.start()
            }
            Fault::Stop(node) => self.process(*node)?.stop(),
            Fault::Slow(node) => self.set_slow(*node, true),
            Fault::Clock(node, seconds) => self.process(*node)?.set_clock(*seconds),
            // What the node held is with its peers and comes back to it: to its clients, the same life goes on.
            Fault::Restart(node) => {
                let process = self.process(*node)?;
                process.leave()?;
                process.start()
            }
        }
    }

    /// Lets a fault end.
    ///
    /// # Errors
    /// When the machine refuses.
    pub(crate) fn end(&mut self, fault: &Fault, board: &Board) -> anyhow::Result<()> {
        let to = board.now();
        for (a, b, by) in self.silenced(fault) {
            let lasting = |s: &&mut Silence| (s.a, s.b, s.by, s.to) == (a, b, by, u64::MAX);
            if let Some(silence) = self.silences.iter_mut().find(lasting) {
                silence.to = to;
            }
        }
        match fault {
            Fault::Cut(_) | Fault::Loss(_) => {
                if let Some(at) = self.on.iter().position(|on| on == fault) {
                    self.on.remove(at);
                }
                self.filter()
            }
            Fault::Reset(node) => cut::reset(&self.setup.network, *node, false),
            Fault::Kill(node) => self.process(*node)?.start(),
            Fault::Skew(node, _) => {
                self.kill(*node, board)?;
                let process = self.process(*node)?;
                process.set_clock(0)?;
                process.start()
            }
            Fault::Stop(node) => self.process(*node)?.go_on(),
            Fault::Slow(node) => self.set_slow(*node, false),
            Fault::Clock(node, _) => self.process(*node)?.set_clock(0),
            Fault::Restart(_) => Ok(()),
        }
    }

    /// Lives so far, without the times at which they were ready.
    pub(crate) fn lives(&self, board: &Board) -> Vec<Life> {
        (0..self.processes.len())
            .flat_map(|node| (0..=board.life(node)).map(move |life| (node, life)))
            .map(|(node, life)| Life {
                node,
                life,
                ready: None,
                killed: self.killed.contains(&(node, life)),
            })
            .collect()
    }

    /// Nodes whose process ended by itself.
    ///
    /// # Errors
    /// When the system does not say.
    pub(crate) fn crashed(&mut self) -> anyhow::Result<Vec<usize>> {
        let mut crashed = Vec::new();
        for (node, process) in self.processes.iter_mut().enumerate() {
            if process.has_crashed()? {
                crashed.push(node);
            }
        }
        Ok(crashed)
    }

    /// Where the nodes' logs lie.
    pub(crate) fn folder(&self) -> &std::path::Path {
        &self.setup.folder
    }

    fn process(&mut self, node: usize) -> anyhow::Result<&mut Process> {
        self.processes.get_mut(node).context("no such node")
    }

    fn kill(&mut self, node: usize, board: &Board) -> anyhow::Result<()> {
        self.process(node)?.kill()?;
        self.killed.insert((node, board.life(node)));
        board.next_life(node);
        Ok(())
    }

    fn set_slow(&self, node: usize, slow: bool) -> anyhow::Result<()> {
        let tool = self.abilities.slow.context("no tool for slow links")?;
        slow::set(tool, &self.setup.network, node, slow)
    }

    fn filter(&self) -> anyhow::Result<()> {
        let mut drops = Drops::new();
        let nodes = self.processes.len();
        for fault in &self.on {
            match fault {
                Fault::Cut(pairs) => drops.extend(pairs.iter().map(|pair| (*pair, 100))),
                Fault::Loss(percent) => {
                    for (from, to) in (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b))) {
                        if from != to {
                            let drop = drops.entry((from, to)).or_insert(*percent);
                            *drop = (*drop).max(*percent);
                        }
                    }
                }
                _ => {}
            }
        }
        let tool = self.abilities.cut.context("no tool for partitions")?;
        cut::apply(tool, &self.setup.network, &drops)
    }
}
