//! What this machine can do, found out by doing it in namespaces made for that.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use rustix::time::{ClockId, clock_gettime};

use super::bite::{self, Mirror, Seen};
use super::cut::{self, Drops};
use super::network::Network;
use super::{command, slow};

/// The means found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Abilities {
    /// For partitions.
    pub(crate) cut: Option<cut::Tool>,
    /// For loss; the same tool with a random choice.
    pub(crate) loss: bool,
    /// For resets: nftables in a node.
    pub(crate) reset: bool,
    /// For slow links.
    pub(crate) slow: Option<slow::Tool>,
    /// For clock jumps: the libfaketime library.
    pub(crate) clock: Option<PathBuf>,
    /// What was measured under each fault of the network.
    pub(crate) seen: Vec<String>,
}

/// Why no namespaces can be made here, or `None` when they can.
pub(crate) fn why_not() -> Option<String> {
    for tool in ["ip", "tc", "timeout", "sh", "id"] {
        if on_path(tool).is_none() {
            return Some(format!("{tool} is not installed"));
        }
    }
    if command::line("id -u").ok().as_deref().map(str::trim) != Some("0") {
        return Some("not running as root".to_owned());
    }
    None
}

impl Abilities {
    /// Tries each means in `network`, which is built: what a tool has made counts when it shows in what comes back from another node.
    ///
    /// # Errors
    /// When nodes do not hear each other without any fault, before or afterwards.
    pub(crate) fn probe(network: &Network) -> anyhow::Result<Self> {
        let mirror = Mirror::start(network)?;
        let well = mirror.look(network)?;
        ensure!(well.is_well(), "a link without faults: {}", well.describe());
        let mut lines = vec![format!("no fault: {}", well.describe())];
        let mut bites = |what: &str, made: anyhow::Result<()>, is: fn(Seen) -> bool| {
            let seen = made.and_then(|()| mirror.look(network));
            let (told, is) = match seen {
                Ok(seen) => (seen.describe(), is(seen)),
                Err(error) => (format!("{error:#}"), false),
            };
            let verdict = if is { "" } else { ": NOT THERE" };
            lines.push(format!("{what}{verdict}: {told}"));
            is
        };
        let mut works = |tool: cut::Tool, percent: u8, is: fn(Seen) -> bool| {
            let drops = Drops::from([((bite::FROM, bite::TO), percent)]);
            let what = format!("{percent} % dropped by {}", tool.name());
            let there = bites(&what, cut::apply(tool, network, &drops), is);
            cut::apply(tool, network, &Drops::new()).is_ok() && there
        };
        let cut = [cut::Tool::NftBridge, cut::Tool::Iptables]
            .into_iter()
            .find(|tool| works(*tool, 100, Seen::is_cut));
        let loss = cut.is_some_and(|tool| works(tool, 20, Seen::is_lossy));
        let slow = [slow::Tool::Netem, slow::Tool::Tbf]
            .into_iter()
            .find(|tool| {
                let made = slow::set(*tool, network, bite::FROM, true);
                let there = bites(tool.name(), made, Seen::is_slow);
                slow::set(*tool, network, bite::FROM, false).is_ok() && there
            });
        let made = cut::reset(network, bite::TO, true);
        let reset = bites("reset by nft", made, Seen::is_reset);
        let reset = cut::reset(network, bite::TO, false).is_ok() && reset;
        let well = mirror.look(network)?;
        ensure!(
            well.is_well(),
            "a link after all faults: {}",
            well.describe()
        );
        Ok(Self {
            cut,
            reset,
            loss,
            slow,
            clock: clock_library(),
            seen: lines,
        })
    }

    /// One line for each fault: what makes it, or that nothing does.
    pub(crate) fn describe(&self) -> Vec<String> {
        let cut = self.cut.map(cut::Tool::name);
        let lines = [
            ("partition, one-way partition", cut.map(str::to_owned)),
            (
                "loss",
                cut.filter(|_| self.loss)
                    .map(|tool| format!("{tool}, at random")),
            ),
            (
                "reset",
                self.reset.then(|| "nft reject, in the node".to_owned()),
            ),
            ("slow link", self.slow.map(|tool| tool.name().to_owned())),
            (
                "clock jump",
                self.clock.as_ref().map(|path| path.display().to_string()),
            ),
            ("kill, stop, restart", Some("signals".to_owned())),
        ];
        lines
            .into_iter()
            .map(|(fault, means)| {
                let means = means.unwrap_or_else(|| "nothing on this machine".to_owned());
                format!("{fault}: {means}")
            })
            .chain(self.seen.iter().map(|line| format!("measured: {line}")))
            .collect()
    }
}

/// Where `program` lies on the search path.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// libfaketime, where Debian and others put it, if it moves the clocks that a node reads.
fn clock_library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten();
    let mut candidates: Vec<PathBuf> = folders
        .map(|folder| folder.path().join("faketime/libfaketime.so.1"))
        .collect();
    candidates.push("/usr/lib/faketime/libfaketime.so.1".into());
    candidates
        .into_iter()
        .filter(|path| path.is_file())
        .find(|path| moves_clock(path))
}

/// The wall clock as a node reads it.
pub(crate) fn wall_seconds() -> i64 {
    clock_gettime(ClockId::RealtimeCoarse).tv_sec
}

/// Whether the library moves the clock of a program that reads it as a node does.
fn moves_clock(library: &Path) -> bool {
    let preload = format!("LD_PRELOAD={}", library.display());
    let Some(program) = std::env::current_exe().ok() else {
        return false;
    };
    let program = program.display().to_string();
    let seconds = |words: &[&str]| {
        let printed = command::run(words).ok()?;
        printed.trim().parse::<i64>().ok()
    };
    let moved = seconds(&["env", &preload, "FAKETIME=+3600", &program, "clock"]);
    moved.is_some_and(|moved| (3_500..3_700).contains(&(moved - wall_seconds())))
}
