//! The one shape of every state machine.
//!
//! ```text
//! message, now ──▶ handle ──▶ outputs          the shell (or the simulator) carries them out:
//!          now ──▶ tick   ──▶ outputs          it sends, wakes writers, answers waiters
//! ```

use nearcache_store::NodeId;

use crate::time::Time;

/// A piece of the protocol: messages and time in, outputs out.
///
/// Nothing here blocks, sleeps or reads a clock. Outputs are appended to `out`, which the caller empties in order.
pub trait Machine {
    /// What peers send it.
    type Message;
    /// What it asks its shell to do.
    type Output;

    /// Takes a message of peer `from`.
    fn handle(
        &mut self,
        now: Time,
        from: NodeId,
        message: Self::Message,
        out: &mut Vec<Self::Output>,
    );

    /// Lets time pass. Calling it too early or too often does no harm.
    fn tick(&mut self, now: Time, out: &mut Vec<Self::Output>);

    /// When [`tick`](Self::tick) should be called next; [`Time::MAX`] if nothing waits.
    fn next_tick(&self) -> Time;
}
