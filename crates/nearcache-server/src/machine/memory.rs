//! How much memory this process may use, as the system tells it in files.
//!
//! ```text
//! /proc/meminfo ─────────── the machine's memory ──┐
//! /proc/self/cgroup ─┬─ v2: memory.max ────────────┼── the least of them
//!                    └─ v1: limit_in_bytes ────────┘
//! ```
//!
//! A container is a control group: its limit is usually far below the machine's memory, and passing it
//! ends the process.

use std::fmt;
use std::path::{Path, PathBuf};

/// What is assumed where the system tells nothing.
const ASSUMED_BYTES: u64 = 1 << 30;

/// The memory this process may use, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Bytes.
    pub bytes: u64,
    /// Where that was found.
    pub source: Source,
}

/// Where the amount of memory comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// The machine has no more.
    Machine,
    /// This file limits a control group that the process is in.
    ControlGroup(PathBuf),
    /// Nothing could be read: a cautious guess.
    Assumed,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            bytes: ASSUMED_BYTES,
            source: Source::Assumed,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("memory of this machine"),
            Self::ControlGroup(path) => write!(f, "limit in {}", path.display()),
            Self::Assumed => f.write_str("assumed, this system does not tell"),
        }
    }
}

impl Memory {
    /// What this process may use. Reads a few small files; never fails.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::read(Path::new("/"))
    }

    /// As [`of_this_process`](Self::of_this_process), from a system whose files lie below `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let machine = machine_bytes(root).map(|bytes| Self {
            bytes,
            source: Source::Machine,
        });
        let groups = control_groups(root).into_iter().filter_map(|path| {
            let text = std::fs::read_to_string(root.join(&path)).ok()?;
            Some(Self {
                // `max` in version 2 is no limit; version 1 writes a number beyond any machine.
                bytes: text.trim().parse().ok()?,
                source: Source::ControlGroup(Path::new("/").join(path)),
            })
        });
        // Of equal amounts the machine's is told: a limit that changes nothing explains nothing.
        machine
            .into_iter()
            .chain(groups)
            .filter(|memory| memory.bytes > 0)
            .min_by_key(|memory| memory.bytes)
            .filter(|memory| memory.bytes < u64::MAX / 4)
            .unwrap_or_default()
    }
}

fn machine_bytes(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1_024)
}

/// The files, relative to the root, that may limit this process: those of its own control groups and
/// of all groups around them. Inside a container the path of the group may be the host's and lead
/// nowhere here; the limit then lies at the top.
fn control_groups(root: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut files = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (top, file) = if controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(
            group
                .ancestors()
                .map(|ancestor| Path::new(top).join(ancestor).join(file)),
        );
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// What is read from a folder made of these files.
    fn read(files: &[(&str, &str)]) -> (u64, String) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let memory = Memory::read(root.path());
        (memory.bytes, memory.source.to_string())
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:        8388608 kB\nMemFree:          123 kB\n",
    );

    #[test]
    fn without_a_control_group_it_is_the_machines() {
        let machine = (8 * GIB, "memory of this machine".to_owned());
        assert_eq!(read(&[MEMINFO]), machine);
        let unlimited = [
            MEMINFO,
            ("proc/self/cgroup", "0::/user.slice\n"),
            ("sys/fs/cgroup/user.slice/memory.max", "max\n"),
        ];
        assert_eq!(read(&unlimited), machine);
    }

    #[test]
    fn version_2_the_tightest_group_around_the_process_counts() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/pods/mine/app\n"),
            ("sys/fs/cgroup/pods/mine/app/memory.max", "max\n"),
            ("sys/fs/cgroup/pods/mine/memory.max", "536870912\n"),
            ("sys/fs/cgroup/pods/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/pods/other/memory.max", "1\n"),
        ];
        let expected = "limit in /sys/fs/cgroup/pods/mine/memory.max";
        assert_eq!(read(&files), (GIB / 2, expected.to_owned()));
    }

    #[test]
    fn version_2_in_a_container_that_sees_itself_as_the_top() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "2147483648\n"),
        ];
        let expected = "limit in /sys/fs/cgroup/memory.max";
        assert_eq!(read(&files), (2 * GIB, expected.to_owned()));
    }

    #[test]
    fn version_1_also_where_the_hosts_path_leads_nowhere() {
        let files = [
            MEMINFO,
            (
                "proc/self/cgroup",
                "5:cpu,cpuacct:/docker/1\n4:hugetlb,memory:/docker/1\n1:name=systemd:/\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
            ("sys/fs/cgroup/cpu/memory.limit_in_bytes", "1\n"),
        ];
        let expected = "limit in /sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(read(&files), (GIB, expected.to_owned()));
    }

    #[test]
    fn version_1_without_a_limit_writes_a_number_beyond_any_machine() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "4:memory:/\n"),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ];
        assert_eq!(read(&files).0, 8 * GIB);
        assert_eq!(
            read(&files[1..]),
            (GIB, "assumed, this system does not tell".to_owned())
        );
    }

    #[test]
    fn what_cannot_be_read_is_assumed() {
        let assumed = (GIB, "assumed, this system does not tell".to_owned());
        assert_eq!(read(&[]), assumed);
        let nonsense = [
            ("proc/meminfo", "MemTotal: lots\n"),
            ("proc/self/cgroup", "nonsense\n0::/\n"),
            ("sys/fs/cgroup/memory.max", "-3\n"),
        ];
        assert_eq!(read(&nonsense), assumed);
    }
}
