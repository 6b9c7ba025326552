//! One run: a seed's plan carried out, healed, and judged.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use nearcache_protocol::announce::{ModeKind, SplitPolicy};
use nearcache_protocol::config::OnDisconnect;

use crate::bug::Bug;
use crate::check::members::noticed_late;
use crate::check::refresh::Refreshes;
use crate::check::{convergence, resurrection, whole};
use crate::cluster::Cluster;
use crate::cluster::connect::LOOK_AGAIN;
use crate::node::{Node, address};
use crate::plan::{After, Plan};
use crate::sometimes::{Place, Sometimes};
use crate::violation::Violation;

/// R1: how long after the faults have ended all nodes may take to hold the same.
const CONVERGENCE_MAX: Duration = Duration::from_secs(5);
/// What is broken for good breaks when all else heals, and a link that is silent is given up after so long only.
const LINK_SILENCE: Duration = Duration::from_secs(3);
/// Loads: when all callers must have been answered, once the faults have ended.
const ANSWERED_MAX: Duration = Duration::from_secs(12);
/// Mode `invalidation`: how long a write waits for all when all is well.
const ACKED_MAX: Duration = Duration::from_secs(1);
/// For how long who died for good is missed.
const DEAD_COUNT_FOR: Duration = Duration::from_secs(60);
/// In one of so many runs that is waited for.
const DEAD_AWAITED_EVERY: u64 = 4;
/// How often they are compared.
const COMPARE_PERIOD: Duration = Duration::from_millis(100);
/// Entries that comparisons may still bring in that time: a straggler is found late, what is evicted and brought back goes on for ever.
const MOVED_MAX: u64 = 4;
/// K10: after how long the dead are members for nobody.
const DEAD_KNOWN_AFTER: Duration = Duration::from_secs(8);
/// How long the agreement must last.
const QUIET: Duration = Duration::from_secs(2);

/// The rule on how soon deaths are noticed, in all runs together.
const NOTICED: &str = "K10 (M3)";

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The bug to plant, if any.
    pub bug: Option<Bug>,
    /// Whether to tell the story on standard output.
    pub verbose: bool,
    /// Whether the cache is in mode `invalidation`, and not `replicated`.
    pub invalidation: bool,
    /// Whether callers read through the cache: every other seed in mode `invalidation`, whatever is said above.
    pub loads: bool,
    /// Whether there are more nodes than may be connected each to each, so that updates travel along the tree.
    pub tree: bool,
    /// Whether every node audits once all has come right, which must find everybody coherent.
    pub audit: bool,
    /// Whether the faults are at the full strength of `reliability.md` §2.1.
    pub full: bool,
}

impl Options {
    /// Those of the runs in which this bug is looked for.
    #[must_use]
    pub fn hunting(bug: Bug) -> Self {
        Self {
            bug: Some(bug),
            invalidation: bug.is_of_invalidation(),
            loads: bug.is_of_loads(),
            tree: bug.is_of_tree(),
            audit: bug.is_of_audit(),
            full: bug.is_at_full_strength(),
            ..Self::default()
        }
    }
}

/// How a planted bug was found.
#[derive(Debug, Clone)]
pub struct Find {
    /// The first seed that breaks one of its rules.
    pub seed: u64,
    /// The rule.
    pub rule: &'static str,
    /// Rules that are not about it and that it broke in earlier seeds.
    pub others: BTreeSet<&'static str>,
}

/// Looks for a planted bug in these seeds: the first that breaks a rule which is about it.
///
/// # Errors
///
/// The rules that it broke instead, if any.
pub fn hunt(bug: Bug, seeds: Range<u64>) -> Result<Find, BTreeSet<&'static str>> {
    let options = Options::hunting(bug);
    let (mut others, mut detected) = (BTreeSet::new(), Vec::new());
    let mut refreshes = Refreshes::default();
    for seed in seeds {
        let report = run(seed, options);
        detected.extend(&report.detected);
        // One run has too few deaths for a percentile.
        if bug.rules().contains(&NOTICED) && noticed_late(&detected).is_some() {
            let rule = NOTICED;
            return Ok(Find { seed, rule, others });
        }
        refreshes.add(&report.refreshes);
        if let Some(rule) = refreshes.broken().filter(|rule| bug.rules().contains(rule)) {
            return Ok(Find { seed, rule, others });
        }
        let Some(failure) = report.failure else {
            continue;
        };
        let rule = failure.violation.rule;
        if bug.rules().contains(&rule) {
            return Ok(Find { seed, rule, others });
        }
        others.insert(rule);
    }
    Err(others)
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Hash of everything that happened.
    pub trace_hash: u64,
    /// How often each place was reached.
    pub sometimes: Sometimes,
    /// Operations planned.
    pub operations: usize,
    /// Operations that took effect.
    pub succeeded: usize,
    /// How many kinds of faults were in force at once, at the worst moment.
    pub kinds_at_once: usize,
    /// How long it took those who were well to notice that somebody had died.
    pub detected: Vec<Duration>,
    /// What readers loaded anew ahead of its expiry.
    pub refreshes: Refreshes,
    /// How long the nodes took to agree once the faults had ended.
    pub converged_after: Duration,
    /// The rule that was broken, if any.
    pub failure: Option<Failure>,
}

impl Report {
    /// Whether so little took effect that the run shows nothing: fewer than half of its operations.
    #[must_use]
    pub const fn is_void(&self) -> bool {
        self.succeeded * 2 < self.operations
    }
}

/// A run that broke a rule, with all that is needed to see it again.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The rule.
    pub violation: Violation,
    seed: u64,
    bug: Option<Bug>,
    options: Options,
    plan: String,
}

impl Failure {
    /// All that the run was to do, to be kept as `crates/nearcache-sim/regressions/NAME.plan`.
    #[must_use]
    pub fn plan(&self) -> &str {
        &self.plan
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.plan)?;
        writeln!(f, "{}", self.violation)?;
        write!(
            f,
            "replay: cargo run -p nearcache-sim -- --seed {} --verbose{}{}{}{}",
            self.seed,
            if self.options.tree { " --tree" } else { "" },
            if self.options.audit { " --audit" } else { "" },
            if self.options.full { " --full" } else { "" },
            if self.options.loads {
                " --loads"
            } else if self.options.invalidation {
                " --mode invalidation"
            } else {
                ""
            }
        )?;
        match self.bug {
            Some(bug) => write!(f, " --bug {}", bug.name()),
            None => Ok(()),
        }
    }
}

/// Carries out the plan of `seed`.
///
/// Blocks until the run has ended; a matter of milliseconds. The same seed, options and code give the
/// same report.
#[must_use]
pub fn run(seed: u64, options: Options) -> Report {
    let mode = if options.invalidation && !options.loads || options.loads && seed % 2 == 1 {
        ModeKind::Invalidation
    } else {
        ModeKind::Replicated
    };
    let mut plan = if options.tree {
        Plan::draw_tree(seed, mode, options.full)
    } else {
        Plan::draw(seed, mode, options.full)
    };
    if options.loads {
        plan.read_through();
    }
    run_plan(plan, options)
}

/// Carries out a plan that was written down: what a failing run printed.
///
/// # Errors
///
/// What is wrong with the text, and where.
pub fn run_text(text: &str, options: Options) -> Result<Report, String> {
    Ok(run_plan(text.parse()?, options))
}

fn run_plan(plan: Plan, options: Options) -> Report {
    let seed = plan.seed;
    let (operations, shown) = (plan.operations.len(), plan.to_string());
    let kinds_at_once = plan.kinds_at_once();
    let mut cluster = Cluster::new(plan, options.bug, options.verbose);
    let mut result = judge(&mut cluster).and_then(|after| {
        judge_clocks(&mut cluster)?;
        Ok(after)
    });
    if options.audit && result.is_ok() {
        result = result.and_then(|after| cluster.judge_by_audit().map(|()| after));
    }
    cluster.count_stats();
    let (converged_after, violation) = match result {
        Ok(after) => (after, None),
        Err(violation) => (CONVERGENCE_MAX, Some(violation)),
    };
    let failure = violation.map(|violation| Failure {
        violation,
        seed,
        bug: options.bug,
        options,
        plan: shown,
    });
    Report {
        seed,
        trace_hash: cluster.trace.hash(),
        sometimes: cluster.sometimes,
        operations,
        succeeded: cluster.succeeded,
        kinds_at_once,
        detected: cluster.checkers.members.detected().to_vec(),
        refreshes: cluster.checkers.refreshes,
        converged_after,
        failure,
    }
}

/// R5: with the faults gone nobody has a session with whose clock is too far away, and that one writes nothing if it can hear most of the others.
fn judge_clocks(cluster: &mut Cluster) -> Result<(), Violation> {
    if let Some((a, b)) = cluster.together_though_apart() {
        let what = format!("n{a} has a session with n{b} although their clocks are far apart");
        return Err(violation(cluster, "R5", what));
    }
    match cluster.wrong_and_writing() {
        Some(host) => {
            let what = format!("n{host}, whose clock is wrong, would write");
            Err(violation(cluster, "R5", what))
        }
        None => Ok(()),
    }
}

/// Loads: with the faults gone everybody is answered, and nothing that is superseded stays.
fn judge_loads(cluster: &mut Cluster) -> Result<Duration, Violation> {
    let heal = cluster.plan.heal;
    cluster.run_until(heal + ANSWERED_MAX)?;
    cluster.write_out()?;
    Ok(Duration::ZERO)
}

/// Mode `invalidation`: once the faults have ended, every node that hears all others serves again, takes writes, and hears in time that all have them. Where
/// somebody died for good the others serve again when the dead count no longer.
fn judge_leases(cluster: &mut Cluster) -> Result<Duration, Violation> {
    let heal = cluster.plan.heal;
    let all_run = cluster.core().count() == cluster.plan.nodes;
    // A death right before the end must be noticed, and the lease of the dead must run out.
    let settled = if all_run {
        CONVERGENCE_MAX
    } else {
        CONVERGENCE_MAX + LINK_SILENCE
    };
    cluster.run_until(heal + settled)?;
    if all_run {
        has_leases(cluster)?;
    }
    // Nobody waits for all beyond the mesh; a longer lease takes longer to run out.
    let serves_stale = matches!(cluster.plan.on_disconnect, OnDisconnect::ServeStale { .. });
    if !cluster.plan.is_beyond_mesh() && (all_run || !serves_stale) {
        let asked = cluster.write_for_all()?;
        let end = cluster.now + ACKED_MAX;
        cluster.run_until(end)?;
        let acked = cluster.sometimes.count(Place::WaitedForAll);
        if acked != asked {
            let what = format!("{asked} writes wait for all, {acked} are acknowledged");
            return Err(violation(cluster, "I8 (liveness)", what));
        }
    }
    let waits_for_the_dead = cluster.plan.seed.is_multiple_of(DEAD_AWAITED_EVERY);
    if all_run {
        has_leases(cluster)?;
    } else if waits_for_the_dead && !cluster.plan.is_beyond_mesh() {
        cluster.run_until(heal + settled + DEAD_COUNT_FOR)?;
        has_leases(cluster)?;
    }
    Ok(Duration::ZERO)
}

/// Every node of the core may serve.
fn has_leases(cluster: &Cluster) -> Result<(), Violation> {
    let without = cluster
        .core()
        .find(|(_, node)| node.time(cluster.now) > node.core.read_bound().serve_until);
    match without {
        Some((host, node)) => {
            let what = format!("n{host} has no lease: {:?}", node.core);
            Err(violation(cluster, "I1 (liveness)", what))
        }
        None => Ok(()),
    }
}

/// First safety, under faults; then, with the faults gone, that all comes right in time and stays so.
fn judge(cluster: &mut Cluster) -> Result<Duration, Violation> {
    let heal = cluster.plan.heal;
    cluster.run_until(heal)?;
    if cluster.plan.loads {
        return judge_loads(cluster);
    }
    if cluster.plan.mode == ModeKind::Invalidation {
        return judge_leases(cluster);
    }
    let mut convergence_max = match cluster.plan.after {
        After::Core(_) => CONVERGENCE_MAX + LINK_SILENCE,
        After::Whole | After::Mesh(..) => CONVERGENCE_MAX,
    };
    if cluster.plan.may_know_nobody() {
        convergence_max += LOOK_AGAIN;
    }
    let mut after = Duration::ZERO;
    while let Some(difference) = difference(cluster) {
        if after >= convergence_max {
            return Err(violation(cluster, "R1", difference));
        }
        after += COMPARE_PERIOD;
        cluster.run_until(heal + after)?;
    }
    // The rounds that follow a difference end, before it is counted what anti-entropy still moves. Each node compares with one other at a
    // time: among more than a mesh it takes longer until all who have little room know of what one of them still holds.
    let rounds_end = after + QUIET * if cluster.plan.is_beyond_mesh() { 3 } else { 1 };
    cluster.run_until(heal + rounds_end)?;
    let moved = reconciled(cluster);
    cluster.run_until(heal + rounds_end + QUIET)?;
    // A node of a rolling restart that began late counts anew.
    let moved = reconciled(cluster).saturating_sub(moved);
    if moved > MOVED_MAX {
        let what = format!("anti-entropy goes on moving entries while nothing changes: {moved}");
        return Err(violation(cluster, "R10", what));
    }
    if let Some(difference) = difference(cluster) {
        return Err(violation(
            cluster,
            "R1",
            format!("agreement did not last: {difference}"),
        ));
    }
    if let Some(unfetched) = unfetched(cluster)? {
        return Err(violation(cluster, "R9", unfetched));
    }
    let nodes: Vec<_> = cluster.core().collect();
    if cluster.plan.rolling_from.is_some()
        && !cluster.rolling.left_in_haste
        && let Some(what) = cluster.checkers.lives.lost(&nodes)
    {
        return Err(violation(cluster, "K4", what));
    }
    if cluster.plan.rolling_from.is_some()
        && !cluster.rolling.left_in_haste
        && !cluster.plan.is_small()
        && cluster.plan.split != SplitPolicy::Flush
        && let Some(what) = whole::orphaned(&nodes)
    {
        return Err(violation(cluster, "K4", what));
    }
    // What was evicted everywhere is not told to who missed it: see docs/testing.md.
    let resurrected = if cluster.plan.is_small() {
        None
    } else {
        resurrection::resurrected(&cluster.checkers, &nodes)
    };
    if let Some(what) = resurrected {
        return Err(violation(cluster, "R3", what));
    }
    // Where removals are forgotten, less may be known than was. Whoever has dropped what it held is no survivor of that (`checkers.dropped`).
    let keeps = !cluster.plan.is_small() && !cluster.plan.forgets();
    if let Some(what) = resurrection::lost(&cluster.checkers, &nodes).filter(|_| keeps) {
        return Err(violation(cluster, "K4 (survivors)", what));
    }
    if let Some(what) = dead_member(cluster) {
        return Err(violation(cluster, "K10", what));
    }
    if let Some(what) = cluster
        .checkers
        .algebra
        .difference(cluster.plan.seed, cluster.bug)
    {
        return Err(violation(cluster, "R2", what));
    }
    Ok(after)
}

/// Has everybody read what it does not hold, and says what could not be had although somebody holds it.
fn unfetched(cluster: &mut Cluster) -> Result<Option<String>, Violation> {
    // A long value is fetched from who holds it: without a link to any such node a read misses. See docs/consistency.md.
    let unlinked = cluster.plan.after.strands();
    if cluster.plan.long.is_none() || cluster.plan.is_small() || unlinked {
        return Ok(None);
    }
    cluster.read_stubs()?;
    let end = cluster.now + CONVERGENCE_MAX;
    cluster.run_until(end)?;
    for (_, node) in cluster.core() {
        node.time(cluster.now);
    }
    let nodes: Vec<_> = cluster.core().collect();
    Ok(whole::unfetched(&nodes))
}

/// Somebody who is dead for long and a member nevertheless.
fn dead_member(cluster: &Cluster) -> Option<String> {
    let buried = |host: usize| {
        cluster
            .checkers
            .members
            .is_dead_since(host, DEAD_KNOWN_AFTER, cluster.now)
    };
    for (at, node) in cluster.core() {
        for member in node.membership.members() {
            let host =
                (0..cluster.hosts.len()).find(|host| address(*host) == member.identity.address);
            if let Some(host) = host.filter(|host| buried(*host)) {
                return Some(format!("n{at} still takes n{host} for a member"));
            }
        }
    }
    None
}

/// Entries that comparisons have brought so far.
fn reconciled(cluster: &Cluster) -> u64 {
    let nodes = cluster.core();
    nodes.map(|(_, node)| node.core.stats().reconciled).sum()
}

fn difference(cluster: &Cluster) -> Option<String> {
    for (_, node) in cluster.core() {
        node.time(cluster.now);
    }
    let nodes: Vec<_> = cluster.core().collect();
    let linked = |host: usize| cluster.checkers.apart.is_with_most(host);
    let is_apart = |node: &Node| {
        let until = node
            .core
            .write_until()
            .min(node.core.read_bound().serve_until);
        node.time(cluster.now) > until
    };
    if cluster.plan.mode == ModeKind::Replicated
        && let Some((host, node)) = nodes
            .iter()
            .find(|(host, node)| linked(*host) && is_apart(node))
    {
        return Some(format!("n{host} is apart: {:?}", node.core));
    }
    // Whose misses are asked about for ever has not joined (R9).
    let joins = |node: &Node| node.is_open && !node.core.is_ready();
    if let Some((host, node)) = nodes
        .iter()
        .find(|(host, node)| linked(*host) && joins(node))
    {
        return Some(format!("n{host} is not ready: {:?}", node.core));
    }
    let stranger = nodes
        .iter()
        .flat_map(|(at, a)| {
            nodes
                .iter()
                .filter(move |(host, b)| {
                    let is_known = a.membership.members().any(|member| {
                        member.identity.node == b.id && member.identity.epoch == b.epoch
                    });
                    *host != *at && !is_known
                })
                .map(move |(host, _)| (*at, *host))
        })
        .next();
    if let Some((at, host)) = stranger {
        return Some(format!("n{at} does not know n{host} (K10)"));
    }
    // Whoever is apart has dropped what it held, each at its own time.
    let flushed =
        cluster.plan.split == SplitPolicy::Flush && nodes.iter().any(|(host, _)| !linked(*host));
    let loosely = cluster.plan.is_small() || cluster.plan.forgets() || flushed;
    let flushes = cluster.plan.split == SplitPolicy::Flush;
    convergence::difference(&nodes, loosely, flushes)
}

fn violation(cluster: &Cluster, rule: &'static str, what: String) -> Violation {
    Violation {
        rule,
        at: cluster.now,
        what,
    }
}
