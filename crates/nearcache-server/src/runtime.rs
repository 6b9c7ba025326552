//! The threads of a server process.
//!
//! ```text
//! main        the node and its peers, the RESP listener and its first worker, signals
//! resp-1 ..   further RESP workers, on machines with four processors and more
//! http        HTTP, whose requests may take long: listings, figures, the status page
//! ```
//!
//! The thread that talks to the peers serves RESP connections too. A write that arrives there wakes no other
//! thread on its way to the peers, and all writes that arrive together leave as one message, because the
//! peers' writers have their turn after the connections that were ready. On the other side a peer's update is
//! applied by the thread that answers the clients who wait for it. Measured: decision 0006.

use std::io;
use std::num::NonZeroUsize;
use std::thread;

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

/// Ready tasks run between two looks at the sockets (tokio's default is 61): with all of perf-A6's
/// connections ready, one look finds them all.
const EVENT_INTERVAL: u32 = 256;

/// A runtime of the calling thread alone, for many sockets.
pub(crate) fn of_one_thread() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build()
}

/// Whether the current runtime has one thread: what is spawned on it does not run in parallel.
pub(crate) fn is_of_one_thread() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}

/// Threads beside the main one, for what must not hold it up: half as many as there are processors.
/// They end when it is dropped.
#[derive(Debug)]
pub(crate) struct SideThreads(Option<Runtime>);

impl SideThreads {
    /// Starts the threads, under this name.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Builder::new_multi_thread()
            .worker_threads((processors / 2).max(1))
            .thread_name(name)
            .enable_all()
            .build()
            .map(|runtime| Self(Some(runtime)))
    }

    /// Where to spawn; the current runtime once these threads end.
    pub(crate) fn handle(&self) -> Handle {
        self.0
            .as_ref()
            .map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for SideThreads {
    fn drop(&mut self) {
        // A runtime must not be waited for within another one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
