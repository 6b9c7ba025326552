//! Frees long values on a thread of their own.
//!
//! Giving tens of megabytes back to the kernel takes milliseconds, and an update that supersedes a long value comes in on the thread that
//! small updates come in on. With a 32 MiB value a second superseded on five nodes, nine of ten small updates that took longer
//! than a millisecond had waited for that (`cargo xtask bench large`).

use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

/// Values from this length on are freed elsewhere, bytes. Below, freeing takes less than handing over and waking a thread.
const LONG_BYTES: usize = 1 << 20;

/// Values that may wait to be freed; more are freed where they are.
const WAITING_MAX: usize = 64;

/// After each value the thread sleeps so many times as long as freeing it took: nodes that drop the same value at the same
/// moment would otherwise keep a core from everything else for as long as all of them take.
const REST: u32 = 10;

/// Frees `value`, which takes `bytes` bytes, if they are many: without holding up the caller. Others drop as ever.
pub(super) fn release<T: Send + 'static>(bytes: usize, value: impl FnOnce() -> T) {
    if bytes < LONG_BYTES {
        return;
    }
    let value = value();
    if let Some(thread) = thread() {
        // A full queue gives it back, and it is freed here.
        drop(thread.try_send(Box::new(value)));
    }
}

/// One for the process, started by the first long value that is freed, under the name `nearcache-free`; it only ever frees.
fn thread() -> Option<&'static SyncSender<Box<dyn Send>>> {
    static THREAD: OnceLock<Option<SyncSender<Box<dyn Send>>>> = OnceLock::new();
    let start = || {
        let (sender, values) = sync_channel::<Box<dyn Send>>(WAITING_MAX);
        let thread = std::thread::Builder::new().name("nearcache-free".into());
        let started = thread.spawn(move || {
            let_others_first();
            for value in values {
                let began = Instant::now();
                drop(value);
                std::thread::sleep(began.elapsed() * REST);
            }
        });
        started.is_ok().then_some(sender)
    };
    THREAD.get_or_init(start).as_ref()
}

/// Everything else this process does is more urgent. Refused, or elsewhere than on Linux, where it would concern the whole process, the
/// thread is as urgent as any.
fn let_others_first() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(19);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::ThreadId;
    use std::time::Duration;

    use super::*;

    struct Tells(Sender<ThreadId>);

    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send(std::thread::current().id());
        }
    }

    fn freed_by(told: &Receiver<ThreadId>) -> ThreadId {
        told.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    // One test, because there is one thread: others would fill its queue.
    #[test]
    fn c9_a_long_value_is_freed_by_another_thread_and_what_does_not_fit_its_queue_at_once() {
        let (sender, told) = channel();
        release(LONG_BYTES - 1, || -> Tells { unreachable!("it is short") });
        release(LONG_BYTES, || Tells(sender.clone()));
        assert_ne!(freed_by(&told), std::thread::current().id());
        for _ in 0..WAITING_MAX * 10 {
            release(LONG_BYTES, || Tells(sender.clone()));
        }
        for _ in 0..WAITING_MAX * 10 {
            freed_by(&told);
        }
    }
}
