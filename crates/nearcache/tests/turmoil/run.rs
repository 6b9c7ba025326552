//! Runs one seed: steps the simulation, strikes with faults, heals, and judges.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Once;
use std::time::{Duration, SystemTime};

use nearcache::simulated::{self, PlantedBug};
use turmoil::Sim;

use crate::history::Broken;
use crate::host::{self, Shared, View, name};
use crate::plan::{Fault, Plan};

/// R1: how long after the faults have ended all nodes may take to hold the same: the silence after which a connection that lost
/// something is given up (3 s), and an attempt to connect that was under way then (2 s).
const CONVERGED_WITHIN: Duration = Duration::from_secs(5);
/// How long all is quiet and equal before a run ends.
const QUIET: Duration = Duration::from_millis(500);

thread_local! {
    /// What a task of this thread panicked with: tokio keeps it to itself.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}
static HOOK: Once = Once::new();

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// Of the protocol: removals that arrive are not kept as tombstones.
    Tombstones,
    /// Of the shell: a connection on which nothing arrives is kept.
    Silence,
}

/// What a run that held has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) trace: u64,
    pub(crate) ended: usize,
    pub(crate) hits: usize,
    /// How long the nodes took to agree after the faults had ended.
    pub(crate) agreed_after: Duration,
}

/// A run under way.
struct Run<'a> {
    sim: Sim<'a>,
    shared: Rc<Shared>,
    /// When each fault that strikes now ends, and which it is.
    striking: Vec<(u64, Fault)>,
}

/// Runs the plan with nodes that have this bug.
pub(crate) fn run(plan: Plan, bug: Bug) -> Result<Report, Broken> {
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANIC.set(Some(info.to_string()));
            print(info);
        }));
    });
    PANIC.set(None);
    simulated::seed(plan.seed);
    simulated::plant(match bug {
        Bug::Tombstones => PlantedBug::TombstonesDropped,
        Bug::None | Bug::Silence => PlantedBug::None,
    });
    simulated::tolerate_silence(bug == Bug::Silence);
    let mut run = Run::new(plan);
    let outcome = run.play();
    // What the nodes still hold ends before the simulation they live in.
    run.shared.lives.borrow_mut().clear();
    outcome
}

impl Run<'_> {
    fn new(plan: Plan) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
            .simulation_duration(Duration::from_secs(3_600))
            .tick_duration(Duration::from_millis(plan.tick_ms))
            .min_message_latency(Duration::from_micros(100))
            .max_message_latency(Duration::from_millis(plan.latency_ms_max))
            .tcp_capacity(4_096)
            .enable_random_order()
            .build();
        let nodes = plan.nodes;
        let shared = Rc::new(Shared {
            plan,
            history: RefCell::default(),
            lives: RefCell::new(vec![None; nodes]),
            views: RefCell::new(vec![None; nodes]),
            restarts: RefCell::new(vec![false; nodes]),
        });
        for number in 0..nodes {
            let shared = Rc::clone(&shared);
            sim.host(name(number), move || host::run(Rc::clone(&shared), number));
        }
        Self {
            sim,
            shared,
            striking: Vec::new(),
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn step(&mut self) -> Result<(), Broken> {
        let stepped = self.sim.step();
        if let Some(what) = PANIC.take() {
            return Err(Broken {
                rule: "no panic",
                what,
            });
        }
        if let Err(error) = stepped {
            return Err(Broken {
                rule: "no host ends",
                what: error.to_string(),
            });
        }
        self.shared
            .history
            .borrow()
            .broken
            .clone()
            .map_or(Ok(()), Err)
    }

    fn play(&mut self) -> Result<Report, Broken> {
        let plan = self.shared.plan.clone();
        let mut faults = plan.faults.iter().cloned().peekable();
        while self.elapsed_ms() < plan.heal_ms || !self.striking.is_empty() {
            let now = self.elapsed_ms();
            let over: Vec<_> = self
                .striking
                .extract_if(.., |(until, _)| *until <= now)
                .collect();
            for (_, fault) in over {
                self.end(&fault);
            }
            while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= now) {
                self.strike(fault);
            }
            self.step()?;
        }
        self.agree()
    }

    fn strike(&mut self, fault: Fault) {
        self.shared
            .history
            .borrow_mut()
            .note(Duration::ZERO, format!("{fault:?}"));
        let until = match &fault {
            Fault::Cut { a, b, until_ms } => {
                self.sim.partition(name(*a), name(*b));
                *until_ms
            }
            Fault::CutOneWay { from, to, until_ms } => {
                self.sim.partition_oneway(name(*from), name(*to));
                *until_ms
            }
            Fault::Hold { a, b, until_ms } => {
                self.sim.hold(name(*a), name(*b));
                *until_ms
            }
            Fault::Isolate { node, until_ms } => {
                self.isolate(*node);
                *until_ms
            }
            Fault::Crash {
                node,
                silent,
                until_ms,
            } => {
                // Its handles go first: they keep the node's sockets.
                host::forget(&self.shared, *node);
                self.shared.history.borrow_mut().crashes(*node);
                if *silent {
                    self.isolate(*node);
                }
                self.sim.crash(name(*node));
                if *silent {
                    self.reconnect(*node);
                }
                *until_ms
            }
            Fault::Restart { node } => {
                self.shared.restarts.borrow_mut()[*node] = true;
                return;
            }
        };
        self.striking.push((until, fault));
    }

    fn end(&mut self, fault: &Fault) {
        match fault {
            Fault::Cut { a, b, .. } => self.sim.repair(name(*a), name(*b)),
            Fault::CutOneWay { from, to, .. } => self.sim.repair_oneway(name(*from), name(*to)),
            Fault::Hold { a, b, .. } => self.sim.release(name(*a), name(*b)),
            Fault::Isolate { node, .. } => self.reconnect(*node),
            Fault::Crash { node, .. } => self.sim.bounce(name(*node)),
            Fault::Restart { .. } => {}
        }
    }

    fn isolate(&self, node: usize) {
        for other in self.others(node) {
            self.sim.partition(name(node), name(other));
        }
    }

    fn reconnect(&self, node: usize) {
        for other in self.others(node) {
            self.sim.repair(name(node), name(other));
        }
    }

    fn others(&self, node: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.shared.plan.nodes).filter(move |other| *other != node)
    }

    /// R1, K5, K6: soon all nodes hold the same, serve copies again, and nobody waits for anything.
    fn agree(&mut self) -> Result<Report, Broken> {
        let began = self.sim.elapsed();
        let mut equal_since = None;
        loop {
            let now = self.sim.elapsed();
            match self.difference() {
                None => {
                    let since = *equal_since.get_or_insert(now);
                    if now - since >= QUIET {
                        let history = self.shared.history.borrow();
                        return Ok(Report {
                            trace: history.trace(),
                            ended: history.ended,
                            hits: history.hits,
                            agreed_after: since - began,
                        });
                    }
                }
                Some(what) => {
                    equal_since = None;
                    if now - began > CONVERGED_WITHIN {
                        return Err(Broken { rule: "R1", what });
                    }
                }
            }
            self.step()?;
        }
    }

    /// What the nodes do not agree on, or are not done with.
    fn difference(&self) -> Option<String> {
        let views = self.shared.views.borrow();
        let mut first: Option<&View> = None;
        for (number, view) in views.iter().enumerate() {
            let Some(view) = view else {
                return Some(format!("n{number} does not run"));
            };
            // Beyond the mesh nobody has the leases of all.
            let serves_copies = view.serves_copies || self.shared.plan.is_tree();
            if !view.is_ready || !serves_copies || view.members != views.len() {
                return Some(format!("n{number} is not whole: {view:?}"));
            }
            let first = *first.get_or_insert(view);
            if first.held != view.held {
                return Some(format!(
                    "n0 holds {:?}, n{number} {:?}",
                    first.held, view.held
                ));
            }
        }
        let open = self.shared.history.borrow().open();
        (open > 0).then(|| format!("{open} calls have not ended"))
    }
}
