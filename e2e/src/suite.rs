//! Rounds one after the other on one cluster, judged and reported. Runs inside the clients' namespace.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cache::Cache;
use crate::check::{self, planted};
use crate::cluster::Cluster;
use crate::history::{History, Outcome};
use crate::machine::ability::Abilities;
use crate::machine::network::Network;
use crate::machine::process::{Setup, log_file};
use crate::plan::{self, Plan};
use crate::report::Report;
use crate::round::{self, Recorded};
use crate::work::Board;

/// Which rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rounds {
    /// Every fault once, and what shows that the checkers bite.
    Smoke,
    /// Plans drawn from seeds, one after the other, until the time is over.
    Random {
        /// The first seed.
        first: u64,
        /// Rounds at most.
        count: u64,
        /// When no further round begins.
        limit: Duration,
    },
}

/// Plays and judges `rounds`. Stops at the first that fails, and keeps its history and the nodes' logs in `keep`.
///
/// # Errors
/// When the cluster cannot be started or a fault cannot be made.
pub(crate) fn run(
    setup: &Setup,
    rounds: Rounds,
    keep: &Path,
    report: &mut Report,
) -> anyhow::Result<()> {
    let nodes = setup.network.nodes();
    let token = std::fs::read_to_string(&setup.token_file)?
        .trim()
        .to_owned();
    let abilities = Abilities::probe(&setup.network)?;
    for line in abilities.describe() {
        report.say(&line);
    }
    let setup = Setup {
        clock: abilities.clock.clone(),
        ..setup.clone()
    };
    setup.make_certificates()?;
    setup.write_configuration()?;
    report.say("peers: mutual TLS");
    let board = Board::new((0..nodes).map(Network::client_address).collect(), token);
    let mut cluster = Cluster::start(&setup, &abilities)?;
    let mut judge = Judge {
        keep,
        shown: BTreeSet::new(),
    };
    match rounds {
        Rounds::Smoke => {
            for (number, plan) in plan::smoke().into_iter().enumerate() {
                if let Some(missing) = plan.lacks(&abilities) {
                    report.skipped(&plan.name, &format!("this machine has no {missing}"));
                    continue;
                }
                if !judge.round(&mut cluster, &board, number, &plan, report)? {
                    return Ok(());
                }
            }
            if abilities.cut.is_some() {
                judge.tell_what_was_not_shown(report);
                left_partitioned(&mut cluster, &board, report)?;
            }
        }
        Rounds::Random {
            first,
            count,
            limit,
        } => {
            let began = Instant::now();
            for number in 0..count {
                if began.elapsed() > limit {
                    break;
                }
                let plan = plan::random(first.wrapping_add(number), nodes, &abilities);
                let place = usize::try_from(number)?;
                if !judge.round(&mut cluster, &board, place, &plan, report)? {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Judges rounds and keeps what a failed one left.
#[derive(Debug)]
struct Judge<'a> {
    keep: &'a Path,
    /// What was planted and found, by cache.
    shown: BTreeSet<(Cache, &'static str)>,
}

impl Judge<'_> {
    /// Plays one round; whether it held.
    fn round(
        &mut self,
        cluster: &mut Cluster,
        board: &Board,
        number: usize,
        plan: &Plan,
        report: &mut Report,
    ) -> anyhow::Result<bool> {
        let recorded = match round::play(cluster, board, number, plan, false) {
            Ok(recorded) => recorded,
            Err(error) => {
                self.keep(cluster, board.nodes(), plan, None)?;
                return Err(error.context(format!("round {}: {}", plan.name, plan.describe())));
            }
        };
        let mut found = recorded.broken.clone();
        for history in &recorded.histories {
            let violations = check::all(history);
            found.extend(
                violations
                    .iter()
                    .map(|seen| format!("{}: {seen}", history.cache)),
            );
        }
        if found.is_empty() {
            report.passed(&plan.name, &figures(plan, &recorded));
            for history in &recorded.histories {
                self.show_that_checkers_bite(history, report);
            }
            return Ok(true);
        }
        let kept = self.keep(cluster, board.nodes(), plan, Some(&recorded))?;
        found.push(figures(plan, &recorded));
        found.push(format!("history and logs: {}", kept.display()));
        report.failed(&plan.name, &found);
        Ok(false)
    }

    fn keep(
        &self,
        cluster: &Cluster,
        nodes: usize,
        plan: &Plan,
        recorded: Option<&Recorded>,
    ) -> anyhow::Result<PathBuf> {
        let folder = self.keep.join(&plan.name);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        for history in recorded.iter().flat_map(|recorded| &recorded.histories) {
            let file = folder.join(format!("history-{}", history.cache));
            std::fs::write(file, history.to_text())?;
        }
        for node in 0..nodes {
            let log = log_file(cluster.folder(), node);
            std::fs::copy(&log, log_file(&folder, node))
                .with_context(|| log.display().to_string())?;
        }
        Ok(folder)
    }
}

/// A line about a round.
fn figures(plan: &Plan, recorded: &Recorded) -> String {
    let mut text = plan.describe();
    for history in &recorded.histories {
        let answered = history.ops.iter().filter(|op| op.ok()).count();
        text += &format!(
            "; {}: {answered} of {} operations answered, {} claims of freshness, {}",
            history.cache,
            history.ops.len(),
            history.claims.len(),
            agreed(history)
        );
        let refused = history
            .ops
            .iter()
            .filter(|op| op.outcome == Outcome::Refused);
        match refused.count() {
            0 => {}
            refused => text += &format!(", {refused} refused"),
        }
        if history.cache.is_copies() {
            let outdated = check::copies::most_outdated(history) / 1_000;
            text += &format!(", the most outdated copy superseded for {outdated} ms");
        }
    }
    let mut reasons: Vec<_> = recorded.failures.iter().collect();
    reasons.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
    for (why, times) in reasons.into_iter().take(3) {
        text += &format!("; {times} × {why}");
    }
    text
}

fn agreed(history: &History) -> String {
    match history.converged {
        Some(at) => format!(
            "agreed after {} ms",
            at.saturating_sub(history.quiet) / 1_000
        ),
        None => "never agreed".to_owned(),
    }
}

impl Judge<'_> {
    /// Spoils a clean history in every way that a checker should find, and was not shown yet.
    fn show_that_checkers_bite(&mut self, history: &History, report: &mut Report) {
        let plants = planted::PLANTS
            .iter()
            .filter(|plant| plant.of.contains(&history.cache));
        for plant in plants {
            if self.shown.contains(&(history.cache, plant.name)) {
                continue;
            }
            // Not every round has what it takes.
            let Some(spoiled) = (plant.spoil)(history) else {
                continue;
            };
            let name = format!("planted: {}: {}", history.cache, plant.name);
            let found = check::all(&spoiled);
            match found.iter().find(|found| plant.rules.contains(&found.rule)) {
                Some(violation) => report.passed(&name, &format!("found: {violation}")),
                None => report.failed(&name, &["no checker complained".to_owned()]),
            }
            self.shown.insert((history.cache, plant.name));
        }
    }

    /// What no round had anything to spoil for was not shown.
    fn tell_what_was_not_shown(&self, report: &mut Report) {
        for plant in &planted::PLANTS {
            for cache in plant.of {
                if !self.shown.contains(&(*cache, plant.name)) {
                    let name = format!("planted: {cache}: {}", plant.name);
                    report.failed(&name, &["no round has anything to spoil".to_owned()]);
                }
            }
        }
    }
}

/// A node that stays cut off must be complained about.
fn left_partitioned(
    cluster: &mut Cluster,
    board: &Board,
    report: &mut Report,
) -> anyhow::Result<()> {
    let last = board.nodes() - 1;
    let plan = Plan {
        name: "planted: a node left partitioned".to_owned(),
        caches: vec![Cache::Replicated],
        seed: 1,
        faults: vec![plan::Timed {
            fault: plan::apart(&[last], board.nodes()),
            from: 0,
            to: 1_000,
        }],
    };
    let recorded = round::play(cluster, board, usize::MAX, &plan, true)?;
    let found: Vec<_> = recorded.histories.iter().flat_map(check::all).collect();
    match found.iter().find(|found| found.rule == "R1") {
        Some(violation) => report.passed(&plan.name, &format!("found: {violation}")),
        None => report.failed(&plan.name, &["no checker complained".to_owned()]),
    }
    Ok(())
}
