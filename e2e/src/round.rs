//! One round: keys of its own, clients at work, faults by the plan, then silence, and a history to judge.
//!
//! ```text
//! stable keys on all nodes ─ calm ─ faults begin and end ─ a little more work ─ only reads ─ agreement? ─ over
//!                                 └ first fault                              └ quiet        └ converged
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::cache::Cache;
use crate::check::convergence;
use crate::cluster::Cluster;
use crate::history::{Claim, History, Op, Silence, Value};
use crate::plan::{Fault, Plan};
use crate::work::{Board, Client, Keys, Record, Watcher};

/// Clients at work with each cache.
const CLIENTS: usize = 6;
/// The same where several caches are worked with.
const CLIENTS_EACH: usize = 3;
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
/// How long writes are tried once the network is whole; as long as all may take to agree (R1).
const WRITABLE_WITHIN: Duration = Duration::from_secs(5);
/// Pause between looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a round left.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// For the checkers, one for each cache.
    pub(crate) histories: Vec<History>,
    /// What needs no checker to be wrong: crashed processes, answers meant for others.
    pub(crate) broken: Vec<String>,
    /// Why operations failed, and how often.
    pub(crate) failures: BTreeMap<String, usize>,
}

/// One cache of a round.
#[derive(Debug)]
struct Part {
    keys: Keys,
    record: Record,
}

/// What was seen of one cache.
#[derive(Debug, Default)]
struct Seen {
    ops: Vec<Op>,
    claims: Vec<Claim>,
    broken: Vec<String>,
    failures: BTreeMap<String, usize>,
}

impl Seen {
    fn add(&mut self, client: Client<'_>) {
        self.ops.extend(client.ops);
        self.broken.extend(client.cross_talk);
        for (why, times) in client.failures {
            *self.failures.entry(why).or_default() += times;
        }
    }
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
    let parts: Vec<Part> = plan
        .caches
        .iter()
        .map(|cache| {
            let keys = Keys {
                cache: *cache,
                round: number,
                nodes: board.nodes(),
            };
            let record = Record::new(board, keys);
            Part { keys, record }
        })
        .collect();
    for flag in [&board.read_only, &board.over] {
        flag.store(false, Ordering::SeqCst);
    }
    board.quiet.store(0, Ordering::SeqCst);
    cluster.take_silences();
    let client = |part| own(board, part);
    let mut owns: Vec<Client<'_>> = parts.iter().map(client).collect();
    let first = owns.first_mut().context("a round without a cache")?;
    let ready = complete(first, cluster, board)?;
    let names = first.names()?;
    for own in &mut owns {
        prepare(own, board)?;
    }

    let (names, parts) = (&names, &parts);
    let round = std::thread::scope(|scope| {
        let count = if parts.len() > 1 {
            CLIENTS_EACH
        } else {
            CLIENTS
        };
        let mut workers = Vec::new();
        let mut watchers = Vec::new();
        for (place, part) in parts.iter().enumerate() {
            workers.extend((0..count).map(|number| {
                let worker = scope.spawn(move || {
                    let mut client = own(board, part);
                    client.work(number, count, plan.seed);
                    client
                });
                (place, worker)
            }));
            watchers.extend((0..board.nodes()).map(|node| {
                let watcher = scope.spawn(move || {
                    let mut watcher = Watcher::new(board, part.keys, &part.record, node);
                    watcher.watch(names);
                    watcher
                });
                (place, watcher)
            }));
        }
        let observer = scope.spawn(move || observe(board, parts, ready));
        let watched = watch(cluster, board, plan, leave, &mut owns, workers.len());
        board.over.store(true, Ordering::SeqCst);
        let ready = observer.join().unwrap_or_default();
        let mut seen: Vec<Seen> = parts.iter().map(|_| Seen::default()).collect();
        let mut all_ended = true;
        for (place, worker) in workers {
            match (worker.join(), seen.get_mut(place)) {
                (Ok(client), Some(seen)) => seen.add(client),
                _ => all_ended = false,
            }
        }
        for (place, watcher) in watchers {
            match (watcher.join(), seen.get_mut(place)) {
                (Ok(watcher), Some(seen)) => {
                    seen.claims.extend(watcher.claims);
                    seen.add(watcher.client);
                }
                _ => all_ended = false,
            }
        }
        for (own, seen) in owns.into_iter().zip(&mut seen) {
            seen.add(own);
        }
        watched.map(|watched| (watched, ready, seen, all_ended))
    });
    if leave {
        for timed in &plan.faults {
            cluster.end(&timed.fault, board)?;
        }
    }
    let (watched, ready, seen, all_ended) = round?;
    ensure!(all_ended, "a client failed");

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
    let silences: Vec<Silence> = cluster.take_silences();
    let touched: Vec<usize> = plan
        .faults
        .iter()
        .filter_map(|timed| timed.fault.process())
        .collect();
    let mut histories = Vec::new();
    for ((part, mut seen), end) in parts.iter().zip(seen).zip(watched.ends) {
        broken.append(&mut seen.broken);
        for (why, times) in seen.failures {
            *failures.entry(why).or_default() += times;
        }
        seen.ops.sort_by_key(|op| op.start);
        histories.push(History {
            cache: part.keys.cache,
            ops: seen.ops,
            lives: lives.clone(),
            first_fault: watched.first_fault,
            quiet: watched.quiet,
            converged: end.converged,
            finals: end.finals,
            stable_from: part.keys.stable_from(),
            untouched: (0..board.nodes())
                .filter(|node| !touched.contains(node))
                .collect(),
            silences: silences.clone(),
            claims: seen.claims,
        });
    }
    Ok(Recorded {
        histories,
        broken,
        failures,
    })
}

fn own<'a>(board: &'a Board, part: &'a Part) -> Client<'a> {
    Client::new(board, part.keys, &part.record)
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

/// Writes the stable keys and waits until every node has them; in mode `invalidation`, until every node has copies of them.
fn prepare(client: &mut Client<'_>, board: &Board) -> anyhow::Result<()> {
    let keys = client.keys();
    for key in keys.stable_from()..keys.count() {
        if !keys.cache.is_copies() {
            client.write(key % board.nodes(), key);
        }
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
            "the stable keys of {} did not reach all nodes within {COMPLETE_WITHIN:?}",
            keys.cache
        );
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Notes when lives that begin during the round are ready.
fn observe(board: &Board, parts: &[Part], mut ready: Ready) -> Ready {
    let Some(mut client) = parts.first().map(|part| own(board, part)) else {
        return ready;
    };
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
    ends: Vec<End>,
}

/// How it ends for one cache.
#[derive(Debug, Default)]
struct End {
    converged: Option<u64>,
    finals: Vec<Vec<Option<Value>>>,
}

fn watch(
    cluster: &mut Cluster,
    board: &Board,
    plan: &Plan,
    leave: bool,
    clients: &mut [Client<'_>],
    workers: usize,
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
    for client in clients.iter_mut() {
        if client.keys().cache == Cache::ReadOnly {
            until_all_take_writes(client, board);
        }
    }
    std::thread::sleep(AFTERWARDS);
    board.read_only.store(true, Ordering::SeqCst);
    // A client says so between two operations: its last write is over then.
    while board.quiet.load(Ordering::SeqCst) < workers {
        std::thread::sleep(Duration::from_millis(5));
    }
    for client in clients.iter_mut() {
        if client.keys().cache.is_copies() && !leave {
            client.tell_again();
        }
    }
    let quiet = board.now();
    let began = Instant::now();
    let mut ends: Vec<End> = clients.iter().map(|_| End::default()).collect();
    while ends.iter().any(|end| end.converged.is_none()) && began.elapsed() < WATCH {
        std::thread::sleep(LOOK_AGAIN);
        for (client, end) in clients.iter_mut().zip(&mut ends) {
            let began_reading = board.now();
            if end.converged.is_none()
                && let Some(values) = read_everything(client, board)
                && convergence::differing(&values).is_empty()
                // Copies are alike while nobody serves any.
                && values.iter().flatten().any(Option::is_some)
            {
                end.converged = Some(began_reading);
            }
        }
        if leave && board.now() > quiet + convergence::BOUND_US {
            break;
        }
    }
    std::thread::sleep(LASTING);
    for (client, end) in clients.iter_mut().zip(&mut ends) {
        for _ in 0..3 {
            if let Some(values) = read_everything(client, board) {
                end.finals = values;
                break;
            }
            std::thread::sleep(LASTING);
        }
        ensure!(
            !end.finals.is_empty(),
            "a node does not answer at the end of the round"
        );
    }
    Ok(Watched {
        first_fault,
        quiet,
        ends,
    })
}

/// Writes through every node until each has taken one, for as long as that may take.
fn until_all_take_writes(client: &mut Client<'_>, board: &Board) {
    let began = Instant::now();
    let mut left: Vec<usize> = (0..board.nodes()).collect();
    while !left.is_empty() && began.elapsed() < WRITABLE_WITHIN {
        left.retain(|node| {
            let key = client.keys().pinned() + node;
            client.write(*node, key);
            !client
                .ops
                .last()
                .is_some_and(|op| op.node == *node && op.ok())
        });
        std::thread::sleep(LOOK_AGAIN);
    }
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
