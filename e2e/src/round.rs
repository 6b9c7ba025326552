//! One round: keys of its own, clients at work, faults by the plan, then silence, and a history to judge.
//!
//! ```text
//! stable keys on all nodes ─ calm ─ faults begin and end ─ a little more work ─ only reads ─ agreement? ─ over
//!                                 └ first fault                              └ quiet        └ converged
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::check::convergence;
use crate::clients::{Board, Client, Keys};
use crate::cluster::Cluster;
use crate::history::{History, Op, Value};
use crate::plan::{Fault, Plan};

/// Clients at work.
const CLIENTS: usize = 6;
/// Work before the first fault.
const CALM: Duration = Duration::from_millis(1_500);
/// Work after the last fault.
const AFTERWARDS: Duration = Duration::from_millis(700);
/// How long the nodes are watched for agreement; far beyond the bound, to tell late from never.
const WATCH: Duration = Duration::from_secs(25);
/// Reads go on for this long after the nodes agree: agreement must last.
const LASTING: Duration = Duration::from_millis(500);
/// How long the cluster may take to be complete before a round.
const COMPLETE_WITHIN: Duration = Duration::from_secs(40);
/// Pause between looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a round left.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// For the checkers.
    pub(crate) history: History,
    /// What needs no checker to be wrong: crashed processes, answers meant for others.
    pub(crate) broken: Vec<String>,
    /// Why operations failed, and how often.
    pub(crate) failures: BTreeMap<String, usize>,
}

/// Plays `plan`; with `leave` the faults of the plan are never ended while the nodes are watched.
///
/// # Errors
/// When the machine or the cluster is not in a state to begin, or a fault cannot be made.
pub(crate) fn play(
    cluster: &mut Cluster,
    board: &Board,
    number: usize,
    plan: &Plan,
    leave: bool,
) -> anyhow::Result<Recorded> {
    let keys = Keys {
        round: number,
        nodes: board.nodes(),
    };
    for flag in [&board.read_only, &board.over] {
        flag.store(false, Ordering::SeqCst);
    }
    board.quiet.store(0, Ordering::SeqCst);
    let mut own = Client::new(board, keys);
    let ready = complete(&mut own, cluster, board)?;
    prepare(&mut own, board, keys)?;

    let round = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn(move || {
                    let mut client = Client::new(board, keys);
                    client.work(number, CLIENTS, plan.seed);
                    client
                })
            })
            .collect();
        let observer = scope.spawn(move || observe(board, keys, ready));
        let watched = watch(cluster, board, plan, leave, &mut own);
        board.over.store(true, Ordering::SeqCst);
        let ready = observer.join().unwrap_or_default();
        let clients: Vec<Client<'_>> = workers
            .into_iter()
            .filter_map(|worker| worker.join().ok())
            .collect();
        watched.map(|watched| (watched, ready, clients))
    });
    if leave {
        for timed in &plan.faults {
            cluster.end(&timed.fault, board)?;
        }
    }
    let (watched, ready, clients) = round?;
    ensure!(clients.len() == CLIENTS, "a client failed");

    let mut lives = cluster.lives(board);
    for life in &mut lives {
        life.ready = ready.get(&(life.node, life.life)).copied();
    }
    let mut failures = BTreeMap::new();
    let mut broken: Vec<String> = cluster
        .crashed()?
        .into_iter()
        .map(|node| format!("the process of node {node} ended by itself"))
        .collect();
    let mut ops: Vec<Op> = Vec::new();
    for client in clients.into_iter().chain([own]) {
        ops.extend(client.ops);
        broken.extend(client.cross_talk);
        for (why, times) in client.failures {
            *failures.entry(why).or_default() += times;
        }
    }
    ops.sort_by_key(|op| op.start);
    let touched: Vec<usize> = plan
        .faults
        .iter()
        .filter_map(|timed| timed.fault.process())
        .collect();
    let history = History {
        ops,
        lives,
        first_fault: watched.first_fault,
        quiet: watched.quiet,
        converged: watched.converged,
        finals: watched.finals,
        stable_from: keys.stable_from(),
        untouched: (0..board.nodes())
            .filter(|node| !touched.contains(node))
            .collect(),
    };
    Ok(Recorded {
        history,
        broken,
        failures,
    })
}

/// When each life was ready first.
type Ready = BTreeMap<(usize, usize), u64>;

/// Waits until every node is ready and knows all others.
fn complete(
    client: &mut Client<'_>,
    cluster: &mut Cluster,
    board: &Board,
) -> anyhow::Result<Ready> {
    let began = Instant::now();
    let mut ready = Ready::new();
    while ready.len() < board.nodes() {
        for node in 0..board.nodes() {
            let place = (node, board.life(node));
            if !ready.contains_key(&place) && client.is_ready(node) {
                ready.insert(place, board.now());
            }
        }
        let crashed = cluster.crashed()?;
        ensure!(
            crashed.is_empty(),
            "nodes {crashed:?} ended; see their logs"
        );
        ensure!(
            began.elapsed() < COMPLETE_WITHIN,
            "not all nodes are ready after {COMPLETE_WITHIN:?}: {:?} are",
            ready.keys()
        );
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(ready)
}

/// Writes the stable keys and waits until every node has them.
fn prepare(client: &mut Client<'_>, board: &Board, keys: Keys) -> anyhow::Result<()> {
    for key in keys.stable_from()..keys.count() {
        client.write(key % board.nodes(), key);
    }
    let began = Instant::now();
    loop {
        let complete = (0..board.nodes()).all(|node| {
            client
                .read_all(node)
                .is_some_and(|values| values.iter().skip(keys.stable_from()).all(Option::is_some))
        });
        if complete {
            return Ok(());
        }
        ensure!(
            began.elapsed() < COMPLETE_WITHIN,
            "the stable keys did not reach all nodes within {COMPLETE_WITHIN:?}"
        );
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Notes when lives that begin during the round are ready.
fn observe(board: &Board, keys: Keys, mut ready: Ready) -> Ready {
    let mut client = Client::new(board, keys);
    while !board.over.load(Ordering::SeqCst) {
        for node in 0..board.nodes() {
            let place = (node, board.life(node));
            if !ready.contains_key(&place) && client.is_ready(node) && board.life(node) == place.1 {
                ready.insert(place, board.now());
            }
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    ready
}

/// What the main thread sees of a round.
#[derive(Debug)]
struct Watched {
    first_fault: u64,
    quiet: u64,
    converged: Option<u64>,
    finals: Vec<Vec<Option<Value>>>,
}

fn watch(
    cluster: &mut Cluster,
    board: &Board,
    plan: &Plan,
    leave: bool,
    client: &mut Client<'_>,
) -> anyhow::Result<Watched> {
    std::thread::sleep(CALM);
    let first_fault = board.now();
    let began = Instant::now();
    for (at, fault, begins) in timeline(plan) {
        let wait = Duration::from_millis(at).saturating_sub(began.elapsed());
        std::thread::sleep(wait);
        match begins {
            true => cluster.begin(&fault, board)?,
            false if leave => {}
            false => cluster.end(&fault, board)?,
        }
    }
    std::thread::sleep(AFTERWARDS);
    board.read_only.store(true, Ordering::SeqCst);
    // A client says so between two operations: its last write is over then.
    while board.quiet.load(Ordering::SeqCst) < CLIENTS {
        std::thread::sleep(Duration::from_millis(5));
    }
    let quiet = board.now();
    let began = Instant::now();
    let (mut converged, mut finals) = (None, Vec::new());
    while converged.is_none() && began.elapsed() < WATCH {
        std::thread::sleep(LOOK_AGAIN);
        let began_reading = board.now();
        if let Some(values) = read_everything(client, board)
            && convergence::differing(&values).is_empty()
        {
            converged = Some(began_reading);
        }
        if leave && converged.is_none() && board.now() > quiet + convergence::BOUND_US {
            break;
        }
    }
    std::thread::sleep(LASTING);
    for _ in 0..3 {
        if let Some(values) = read_everything(client, board) {
            finals = values;
            break;
        }
        std::thread::sleep(LASTING);
    }
    ensure!(
        !finals.is_empty(),
        "a node does not answer at the end of the round"
    );
    Ok(Watched {
        first_fault,
        quiet,
        converged,
        finals,
    })
}

fn read_everything(client: &mut Client<'_>, board: &Board) -> Option<Vec<Vec<Option<Value>>>> {
    (0..board.nodes())
        .map(|node| client.read_all(node))
        .collect()
}

/// Beginnings and ends in their order; an end before a beginning of the same time.
fn timeline(plan: &Plan) -> Vec<(u64, Fault, bool)> {
    let mut events: Vec<(u64, Fault, bool)> = Vec::new();
    for timed in &plan.faults {
        events.push((timed.from, timed.fault.clone(), true));
        events.push((timed.to, timed.fault.clone(), false));
    }
    // Stable: a fault of no length still begins before it ends.
    events.sort_by_key(|(at, _, _)| *at);
    events
}
