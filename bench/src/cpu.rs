//! CPU time of this process, this thread and other processes.
//!
//! Where client and server share the cores, the CPU seconds of the server are the figure that
//! the neighbours disturb least.

use std::time::Duration;

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};

/// CPU time this process has used, of all threads, user and system.
pub(crate) fn of_this_process() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// CPU time the calling thread has used, user and system.
pub(crate) fn of_this_thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// CPU time the process `pid` has used, user and system, finished threads included; resolution
/// is the kernel's clock tick, 10 ms.
///
/// # Errors
/// When the process is gone or `/proc` does not say what it should.
pub(crate) fn of_process(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let ticks = ticks_of(&stat).with_context(|| format!("unexpected text in {path}"))?;
    Ok(Duration::from_millis(ticks * MILLIS_PER_TICK))
}

/// `USER_HZ` is 100 on every Linux architecture we build for.
const MILLIS_PER_TICK: u64 = 10;

/// Fields 14 and 15 of proc(5) `stat`. The command name in field 2 may hold spaces and brackets,
/// so counting starts after its last closing bracket.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn read(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks_of(stat), Some(300));
    }

    #[test]
    fn this_process_is_found_in_proc() -> anyhow::Result<()> {
        of_process(std::process::id())?;
        Ok(())
    }
}
