//! One host: a node, its two caches, and what it is asked to do.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use nearcache::{
    Ack, Cache, Condition, Lookup, Mode, Modify, Node, PutOptions, StaticPeers, Version,
    WriteError, simulated,
};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::history::History;
use crate::plan::{Operation, Plan, Wait, key};

/// How often a host reads everything it holds.
const READ_EVERY: Duration = Duration::from_millis(25);
/// Where nodes listen.
const PORT: u16 = 7_000;
/// How long a leave may take (reliability specification, section 3.2).
const LEAVE_MAX: Duration = Duration::from_secs(10);
/// How long a call may take that asks a peer.
const ASK_MAX: Duration = Duration::from_secs(1);

/// A running node and its caches.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) node: Node,
    pub(crate) values: Cache<String, u64>,
    pub(crate) copies: Cache<String, u64>,
}

/// What a host held when it looked last. Told by the host, because outside of it no time passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) is_ready: bool,
    pub(crate) members: usize,
    pub(crate) held: Vec<Option<(Version, u64)>>,
    /// Whether a copy that is loaded is served: the leases of all peers run.
    pub(crate) serves_copies: bool,
}

/// What all hosts of a run share with the test.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) history: RefCell<History>,
    pub(crate) lives: RefCell<Vec<Option<Life>>>,
    pub(crate) views: RefCell<Vec<Option<View>>>,
    /// Hosts whose node shall leave and start again.
    pub(crate) restarts: RefCell<Vec<bool>>,
}

/// Since the simulation began.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

pub(crate) fn name(host: usize) -> String {
    format!("n{host}")
}

/// The program of a host, from its start until it crashes.
pub(crate) async fn run(shared: Rc<Shared>, host: usize) -> turmoil::Result {
    loop {
        shared.history.borrow_mut().starts(now(), host);
        let life = start(&shared.plan, host).await?;
        if let Some(place) = shared.lives.borrow_mut().get_mut(host) {
            *place = Some(life.clone());
        }
        let reading = spawn_local(read(Rc::clone(&shared), host, life.clone()));
        let working = spawn_local(work(Rc::clone(&shared), host, life.clone()));
        while !shared
            .restarts
            .borrow()
            .get(host)
            .is_some_and(|leave| *leave)
        {
            sleep(Duration::from_millis(10)).await;
        }
        working.abort();
        leave(&shared, host, &life).await;
        reading.abort();
        sleep(Duration::from_millis(200)).await;
    }
}

async fn start(plan: &Plan, host: usize) -> Result<Life, Box<dyn std::error::Error>> {
    let address = |host| (turmoil::lookup(name(host)), PORT).into();
    let peers = (0..plan.nodes).filter(|peer| *peer != host).map(address);
    simulated::skew(plan.skew.get(host).copied().unwrap_or_default());
    let node = Node::builder("turmoil")
        .name(name(host))
        .listen(format!("0.0.0.0:{PORT}"))
        .advertise(address(host))
        .allow_insecure_network(true)
        .mesh_max(plan.mesh_max)
        .discovery(StaticPeers::new(peers))
        .start()
        .await?;
    let values = node.cache("values").open().await?;
    let copies = node.cache("copies").mode(Mode::Invalidation).open().await?;
    Ok(Life {
        node,
        values,
        copies,
    })
}

/// The node on `host` is gone.
pub(crate) fn forget(shared: &Shared, host: usize) {
    if let Some(place) = shared.lives.borrow_mut().get_mut(host) {
        *place = None;
    }
    if let Some(place) = shared.views.borrow_mut().get_mut(host) {
        *place = None;
    }
}

async fn leave(shared: &Shared, host: usize, life: &Life) {
    let began = now();
    shared.history.borrow_mut().begins(began, host, usize::MAX);
    life.node.shutdown().await;
    let mut history = shared.history.borrow_mut();
    history.ends(now(), host, "leave", now() - began, LEAVE_MAX);
    drop(history);
    forget(shared, host);
    if let Some(asked) = shared.restarts.borrow_mut().get_mut(host) {
        *asked = false;
    }
}

/// Reads everything again and again, as users do.
async fn read(shared: Rc<Shared>, host: usize, life: Life) {
    loop {
        look(&shared, host, &life);
        let view = view(&life);
        if let Some(place) = shared.views.borrow_mut().get_mut(host) {
            *place = Some(view);
        }
        sleep(READ_EVERY).await;
    }
}

/// What the host serves now.
fn look(shared: &Shared, host: usize, life: &Life) {
    let mut history = shared.history.borrow_mut();
    for member in life.node.members() {
        history.meets(now(), host, member.id, member.epoch);
    }
    for (number, key) in History::keys() {
        if let Ok(Lookup::Hit(value)) = life.values.try_get(&key) {
            history.serves(now(), host, number, value.version(), *value);
        }
        if let Ok(Lookup::Hit(copy)) = life.copies.try_get(&key) {
            history.serves_copy(now(), host, number, *copy);
        }
    }
}

fn view(life: &Life) -> View {
    let held = History::keys().map(|(_, key)| life.values.peek(&key));
    let probe = "loaded to see whether copies are served";
    let loaded = life.copies.begin_fill(probe);
    let kept = loaded.is_ok_and(|fill| fill.put(1, &PutOptions::new()).is_ok());
    View {
        is_ready: life.node.is_ready(),
        members: life.node.members().len(),
        held: held
            .map(|value| value.map(|value| (value.version(), *value)))
            .collect(),
        serves_copies: kept && life.copies.peek(probe).is_some(),
    }
}

/// Begins each operation when its time has come; none waits for the one before.
async fn work(shared: Rc<Shared>, host: usize, life: Life) {
    let mine = shared.plan.operations.iter().enumerate();
    let mine = mine.filter(|(_, (at, on, ..))| *on == host && u128::from(*at) > now().as_millis());
    for (number, (at, _, operation, wait)) in mine {
        sleep(Duration::from_millis(*at).saturating_sub(now())).await;
        let (shared, life) = (Rc::clone(&shared), life.clone());
        let (operation, wait) = (operation.clone(), *wait);
        spawn_local(async move {
            let began = now();
            shared.history.borrow_mut().begins(began, host, number);
            let bound = bound_of(&operation, wait);
            // Much later, so that it is known how late; a call that never ends is found too.
            let done = timeout(
                bound * 2 + ASK_MAX,
                operate(&shared, host, &life, number as u64 + 1, &operation, wait),
            )
            .await;
            let mut history = shared.history.borrow_mut();
            history.ends(now(), host, &format!("{operation:?}"), now() - began, bound);
            if let Ok(Err(error)) = done {
                history.note(now(), error.to_string());
            }
        });
    }
    std::future::pending().await
}

const fn bound_of(operation: &Operation, wait: Duration) -> Duration {
    match operation {
        Operation::Get { .. } | Operation::GetFresh { .. } => ASK_MAX,
        Operation::Load { takes_ms, .. } => Duration::from_millis(*takes_ms),
        Operation::Put { .. }
        | Operation::Remove { .. }
        | Operation::SetAbsent { .. }
        | Operation::Take { .. }
        | Operation::InvalidatePrefix(_)
        | Operation::Change { .. } => wait,
    }
}

const fn ack(wait: Wait) -> Ack {
    match wait {
        Wait::Local => Ack::Local,
        Wait::OnePeer => Ack::Peers(1),
        Wait::All => Ack::All,
    }
}

/// One operation. An error is a fair answer; that it comes in time is checked by the caller.
async fn operate(
    shared: &Shared,
    host: usize,
    life: &Life,
    value: u64,
    operation: &Operation,
    wait: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    match operation {
        Operation::Put {
            key: number,
            ttl_ms,
            wait: acked,
        } => {
            let mut options = PutOptions::new().ack(ack(*acked)).timeout(wait);
            if let Some(ttl) = ttl_ms {
                options = options.ttl(Duration::from_millis(*ttl));
            }
            life.values.put_with(&key(*number), value, options).await?;
        }
        Operation::Remove {
            key: number,
            wait: acked,
        } => {
            look(shared, host, life);
            let key = key(*number);
            let held = life.values.peek(&key).map(|value| value.version());
            let removed = life.values.remove_acked(&key, ack(*acked), wait).await;
            if let (Some(held), Ok(_) | Err(WriteError::AckTimeout { .. })) = (held, &removed) {
                shared.history.borrow_mut().removes(host, *number, held);
            }
            look(shared, host, life);
            removed?;
        }
        Operation::Get { key: number } => {
            if let Some(found) = life.values.get(&key(*number)).await? {
                // Told only: what a peer answered is not what this node holds.
                shared.history.borrow_mut().note(now(), (host, *found));
            }
        }
        Operation::GetFresh {
            key: number,
            age_ms,
        } => {
            let age = Duration::from_millis(*age_ms);
            life.values.get_fresh(&key(*number), age).await?;
        }
        Operation::SetAbsent { key: number } => {
            let set = Modify::set(value)
                .only_if(Condition::IfAbsent)
                .timeout(wait);
            life.values.modify(&key(*number), set).await?;
        }
        Operation::Take { key: number } => {
            let take = Modify::remove().return_previous().timeout(wait);
            life.values.modify(&key(*number), take).await?;
        }
        Operation::InvalidatePrefix(prefix) => life.values.invalidate_prefix(prefix).await?,
        Operation::Change {
            key: number,
            wait: acked,
        } => {
            let by = (life.node.id(), life.node.epoch());
            shared
                .history
                .borrow_mut()
                .changes(now(), host, by, *number);
            let generation = shared.history.borrow().generation(*number);
            life.copies
                .invalidate(&key(*number), ack(*acked), wait)
                .await?;
            if *acked == Wait::All {
                let lives = shared.lives.borrow();
                // Whom a node that has just started has never heard of it cannot wait for.
                let members = life.node.members();
                let served = lives.iter().enumerate().filter_map(|(host, life)| {
                    let life = life.as_ref()?;
                    let is_known = members.iter().any(|member| member.id == life.node.id());
                    let copy = life.copies.peek(&key(*number)).filter(|_| is_known)?;
                    Some((host, *copy))
                });
                let mut history = shared.history.borrow_mut();
                history.serves_nothing_older(now(), *number, generation, served);
            }
        }
        Operation::Load {
            key: number,
            takes_ms,
        } => {
            let fill = life.copies.begin_fill(&key(*number))?;
            let generation = shared.history.borrow().generation(*number);
            sleep(Duration::from_millis(*takes_ms)).await;
            fill.put(generation, &PutOptions::new())?;
            look(shared, host, life);
        }
    }
    Ok(())
}
