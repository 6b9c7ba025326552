//! How many files and sockets this process may hold open.
//!
//! Systems start a process with a low soft limit (1,024 on most) and leave it to the process to raise it
//! up to the hard one. Each client takes one; peers, disk and the process itself keep a reserve.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that clients leave to peers, disk and the process itself.
const RESERVE: u64 = 64;

/// The open files this process may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    limit: Option<u64>,
}

impl OpenFiles {
    /// Raises the soft limit to the hard one and tells what came of it. Never fails: where raising is
    /// refused, what there was stays.
    #[must_use]
    pub fn raise() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current != maximum {
            let wanted = Rlimit {
                current: maximum,
                maximum,
            };
            // Refused on systems whose kernel has a bound below the hard limit; what is read next is true.
            let _ = setrlimit(Resource::Nofile, wanted);
        }
        Self {
            limit: getrlimit(Resource::Nofile).current,
        }
    }

    /// The limit, if there is one.
    #[must_use]
    pub fn limit(self) -> Option<u64> {
        self.limit
    }

    /// How many of `wanted` client connections fit, the reserve kept; with hardly any files, clients get
    /// a quarter of them.
    #[must_use]
    pub fn clients(self, wanted: usize) -> usize {
        let Some(limit) = self.limit else {
            return wanted;
        };
        let room = limit.saturating_sub(RESERVE).max(limit / 4);
        usize::try_from(room).unwrap_or(usize::MAX).min(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(limit: Option<u64>, wanted: usize) -> usize {
        OpenFiles { limit }.clients(wanted)
    }

    #[test]
    fn limits_3_1_clients_leave_64_open_files_to_the_rest() {
        assert_eq!(clients(None, 4_096), 4_096);
        assert_eq!(clients(Some(1_048_576), 4_096), 4_096);
        assert_eq!(clients(Some(4_160), 4_096), 4_096);
        assert_eq!(clients(Some(4_159), 4_096), 4_095);
        assert_eq!(clients(Some(1_024), 4_096), 960);
        assert_eq!(clients(Some(64), 4_096), 16);
    }

    #[test]
    fn the_soft_limit_is_the_hard_limit_afterwards() {
        let files = OpenFiles::raise();
        assert_eq!(files.limit(), getrlimit(Resource::Nofile).maximum);
    }
}
