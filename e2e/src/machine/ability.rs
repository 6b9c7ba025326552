//! What this machine can do, found out by doing it in namespaces made for that.

use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};

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
    /// Tries each means in `network`, which is built.
    pub(crate) fn probe(network: &Network) -> Self {
        let works = |tool: cut::Tool, percent: u8| {
            let drops = Drops::from([((0, 1), percent)]);
            let tried = cut::apply(tool, network, &drops)
                .and_then(|()| cut::apply(tool, network, &Drops::new()));
            tried.is_ok()
        };
        let cut = [cut::Tool::NftBridge, cut::Tool::Iptables]
            .into_iter()
            .find(|tool| works(*tool, 100));
        let slow = [slow::Tool::Netem, slow::Tool::Tbf]
            .into_iter()
            .find(|tool| {
                let set = slow::set(*tool, network, 0, true);
                set.and_then(|()| slow::set(*tool, network, 0, false))
                    .is_ok()
            });
        let reset = cut::reset(network, 0, true).and_then(|()| cut::reset(network, 0, false));
        Self {
            cut,
            reset: reset.is_ok(),
            loss: cut.is_some_and(|tool| works(tool, 20)),
            slow,
            clock: clock_library(),
        }
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
