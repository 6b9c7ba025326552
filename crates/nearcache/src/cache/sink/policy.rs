//! How writes reach the system of record: every knob, with its default.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nearcache_protocol::write::backoff::Backoff;
use nearcache_protocol::write::queue::QueueConfig;

use crate::limits::{
    JOURNAL_BYTES_DEFAULT, JOURNAL_BYTES_MIN, OPERATION_TIMEOUT_DEFAULT, SINK_CALLS_DEFAULT,
    SINK_QUEUED_DEFAULT, SINK_TIMEOUT_DEFAULT,
};
use crate::persistence::journal::{DiskHook, StepHook};

/// A setting out of its range: its name, value and what is allowed.
type Invalid = Option<(&'static str, String, &'static str)>;

/// Write-through: a write is answered when the system of record has it. `new()` is safe as it stands.
///
/// ```
/// use std::time::Duration;
/// use nearcache::WriteThrough;
///
/// let policy = WriteThrough::new().timeout(Duration::from_secs(3)).calls_max(16);
/// # let _ = policy;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a policy does nothing until a cache is opened with it"]
pub struct WriteThrough {
    pub(crate) timeout: Duration,
    pub(crate) calls_max: usize,
    pub(crate) queued_max: usize,
    pub(crate) wait: Duration,
    pub(crate) keeps: bool,
}

impl Default for WriteThrough {
    fn default() -> Self {
        Self::new()
    }
}

impl WriteThrough {
    /// The defaults, which each method names.
    pub const fn new() -> Self {
        Self {
            timeout: SINK_TIMEOUT_DEFAULT,
            calls_max: SINK_CALLS_DEFAULT,
            queued_max: SINK_QUEUED_DEFAULT,
            wait: OPERATION_TIMEOUT_DEFAULT,
            keeps: true,
        }
    }

    /// How long one call of the sink may take; then its outcome is unknown. Default 10 s; 1 ms to 10 min.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Calls of the sink at once, of this cache on this node. Default 64; at least 1.
    pub const fn calls_max(mut self, calls: usize) -> Self {
        self.calls_max = calls;
        self
    }

    /// Writes that wait for a call, or for an earlier write of their key. Default 1,024; more are refused with
    /// [`WriteError::SinkOverloaded`](crate::WriteError::SinkOverloaded).
    pub const fn queued_max(mut self, writes: usize) -> Self {
        self.queued_max = writes;
        self
    }

    /// How long a write waits for its turn before it is refused in the same way. Default 2 s.
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Whether the cache keeps what was written. Default: yes. If not, each write drops the key on all nodes, and the next reader loads
    /// it: set it so where several nodes write the same key within a network round trip, or where the system of record changes
    /// what it is given. Without it, such nodes may leave the one value in the cache and the other in the system of record.
    pub const fn keeps(mut self, keeps: bool) -> Self {
        self.keeps = keeps;
        self
    }

    pub(crate) fn invalid(&self) -> Invalid {
        if self.calls_max == 0 {
            return Some(("calls_max", "0".to_owned(), "at least 1"));
        }
        invalid_timeout(self.timeout)
    }
}

/// Write-behind: a write is answered when it is queued here (and in the journal, if there is one), and reaches the system of record
/// later. `new()` keeps the queue in memory: **a crash loses what was not written yet**. With a [`journal`](Self::journal) it does not.
///
/// ```
/// use std::time::Duration;
/// use nearcache::WriteBehind;
///
/// let policy = WriteBehind::new()
///     .journal("/var/lib/shop/journal")
///     .delay(Duration::from_secs(1))
///     .batch_max(500);
/// # let _ = policy;
/// ```
#[derive(Clone)]
#[must_use = "a policy does nothing until a cache is opened with it"]
pub struct WriteBehind {
    pub(crate) queue: QueueConfig,
    pub(crate) timeout: Duration,
    pub(crate) wait: Duration,
    pub(crate) journal: Option<PathBuf>,
    pub(crate) journal_bytes_max: u64,
    pub(crate) hook: Option<StepHook>,
    pub(crate) disk_hook: Option<DiskHook>,
}

impl std::fmt::Debug for WriteBehind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteBehind")
            .field("queue", &self.queue)
            .field("timeout", &self.timeout)
            .field("wait", &self.wait)
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

impl Default for WriteBehind {
    fn default() -> Self {
        Self::new()
    }
}

impl WriteBehind {
    /// The defaults, which each method names.
    pub fn new() -> Self {
        Self {
            queue: QueueConfig::default(),
            timeout: SINK_TIMEOUT_DEFAULT,
            wait: OPERATION_TIMEOUT_DEFAULT,
            journal: None,
            journal_bytes_max: JOURNAL_BYTES_DEFAULT,
            hook: None,
            disk_hook: None,
        }
    }

    /// Keeps what was accepted and is not written yet in this folder: a write is answered when it is on the disk there, which costs a sync
    /// that writes of the same moment share. After a crash, of the process or the machine, opening the cache again on a node of the same
    /// name writes what is left. Each cache of each node needs a folder of its own; the node needs a
    /// [name](crate::NodeBuilder::name). What is recorded has a later version than all that was recorded before; where the clock was set
    /// back by too much for that, writes are [refused](crate::WriteError::ClockSkew) until it has caught up. Default: none.
    pub fn journal(mut self, folder: impl Into<PathBuf>) -> Self {
        self.journal = Some(folder.into());
        self
    }

    /// The most that the journal may take, in bytes. Default 256 MiB; at least 1 MiB. At the bound a write [waits](Self::wait) for room. Four times
    /// [`bytes_max`](Self::bytes_max) leaves room for what is written and not yet cleared away.
    pub const fn journal_bytes_max(mut self, bytes: u64) -> Self {
        self.journal_bytes_max = bytes;
        self
    }

    /// For tests that stop the process at each step.
    #[doc(hidden)]
    pub fn step_hook(mut self, hook: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
        self.hook = Some(std::sync::Arc::new(hook));
        self
    }

    /// For tests whose disk fails: asked before each step of the journal with a file, by name and path; answers how many bytes of a write
    /// are taken before it fails, and with what.
    #[doc(hidden)]
    pub fn disk_hook(
        mut self,
        hook: impl Fn(&'static str, &Path) -> Option<(usize, io::Error)> + Send + Sync + 'static,
    ) -> Self {
        self.disk_hook = Some(std::sync::Arc::new(hook));
        self
    }

    /// How long a write waits in the queue for later ones of its key, which take its place. Default 100 ms. Longer saves writes of busy
    /// keys, and makes the system of record that much older.
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.queue.delay = delay;
        self
    }

    /// The most writes of one call of the sink. Default 100; at least 1.
    pub const fn batch_max(mut self, writes: usize) -> Self {
        self.queue.batch_max = writes;
        self
    }

    /// Calls of the sink at once, of this cache on this node. Default 4; at least 1.
    pub const fn calls_max(mut self, calls: usize) -> Self {
        self.queue.batches_max = calls;
        self
    }

    /// How long one call of the sink may take; then it counts as failed. Default 10 s; 1 ms to 10 min.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Keys that may wait to be written. Default 10,000; at least 1. At the bound a write [waits](Self::wait) for room.
    pub const fn keys_max(mut self, keys: usize) -> Self {
        self.queue.keys_max = keys;
        self
    }

    /// Bytes of keys and values that may wait to be written. Default 64 MiB. At the bound a write [waits](Self::wait) for room.
    pub const fn bytes_max(mut self, bytes: u64) -> Self {
        self.queue.bytes_max = bytes;
        self
    }

    /// How long a write waits for room in the queue or the journal before it is refused with
    /// [`WriteError::SinkOverloaded`](crate::WriteError::SinkOverloaded). Default 2 s.
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// What failed is tried again after `first`, and twice as long after each further failure, up to `max`; half of each wait is chance.
    /// Default 100 ms to 30 s.
    pub const fn backoff(mut self, first: Duration, max: Duration) -> Self {
        self.queue.backoff = Backoff { first, max };
        self
    }

    /// For how long a write that fails is tried before it becomes a [dead letter](crate::Cache::dead_letters). Default 1 h: set it above
    /// the longest outage that shall need nobody's attention.
    pub const fn give_up_after(mut self, limit: Duration) -> Self {
        self.queue.give_up_after = limit;
        self
    }

    /// Dead letters that are kept. Default 1,000. Beyond it, writes that nobody takes are tried for ever and fill the queue: nothing that
    /// was accepted is thrown away.
    pub const fn dead_letters_max(mut self, letters: usize) -> Self {
        self.queue.dead_letters_max = letters;
        self
    }

    pub(crate) fn invalid(&self) -> Invalid {
        let numbers = [
            ("batch_max", self.queue.batch_max),
            ("calls_max", self.queue.batches_max),
            ("keys_max", self.queue.keys_max),
        ];
        if let Some((name, _)) = numbers.into_iter().find(|(_, number)| *number == 0) {
            return Some((name, "0".to_owned(), "at least 1"));
        }
        if self.journal_bytes_max < JOURNAL_BYTES_MIN {
            let value = self.journal_bytes_max.to_string();
            return Some(("journal_bytes_max", value, "at least 1,048,576"));
        }
        let Backoff { first, max } = self.queue.backoff;
        if first.is_zero() || first > max {
            let value = format!("{first:?} to {max:?}");
            return Some(("backoff", value, "more than zero, and first not above max"));
        }
        invalid_timeout(self.timeout)
    }
}

fn invalid_timeout(timeout: Duration) -> Invalid {
    let timeouts = Duration::from_millis(1)..=Duration::from_secs(600);
    (!timeouts.contains(&timeout)).then(|| ("timeout", format!("{timeout:?}"), "1 ms to 10 min"))
}
