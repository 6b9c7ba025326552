//! Shows that nothing is left behind when the harness is killed in the middle.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::machine::command;
use crate::machine::network::Network;
use crate::machine::reaper::Reaper;
use crate::report::Report;

/// How long cleaning up may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes namespaces with a process inside, says so, and waits.
///
/// # Errors
/// When the machine refuses.
pub(crate) fn wait_to_be_killed() -> anyhow::Result<()> {
    let owner = std::process::id();
    let network = Network::of(owner, 2);
    let _reaper = Reaper::start(&network.namespaces(), &crate::make_folder(owner)?)?;
    network.build()?;
    let mut inside = Command::new("ip")
        .args(["netns", "exec", &network.node(0), "sleep", "60"])
        .spawn()?;
    println!("ready");
    inside.wait()?;
    Ok(())
}

/// Has a second harness killed and looks for what it made.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn show_that_nothing_is_left(report: &mut Report) -> anyhow::Result<()> {
    const NAME: &str = "nothing is left after SIGKILL";
    let mut child = Command::new(std::env::current_exe()?)
        .arg("hold")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let output = child.stdout.take().context("no output")?;
    BufReader::new(output).read_line(&mut line)?;
    let namespaces = Network::of(child.id(), 2).namespaces();
    let count = || {
        let list = command::line("ip netns list").unwrap_or_default();
        let names = list.lines().filter_map(|line| line.split(' ').next());
        names
            .filter(|name| namespaces.iter().any(|made| made == name))
            .count()
    };
    let made = count();
    child.kill()?;
    child.wait()?;
    let killed = Instant::now();
    while count() > 0 && killed.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    match (made == namespaces.len(), count()) {
        (true, 0) => report.passed(NAME, &format!("{made} namespaces gone")),
        (_, left) => report.failed(NAME, &[format!("{made} made, {left} left")]),
    }
    Ok(())
}
