//! Update streams among more members than a full mesh may have: along a broadcast tree, and what replaces the rest of the mesh.
//!
//! ```text
//! origin ─ range ─▶ link ─ part of it ─▶ link ...        payload: once to every member (overlay)
//! link ◀─ Ask(since) ── link                              what have you got since I last asked?
//!      ── State(progress, members, ages) ─▶               a batch of "I have" for everything since then, and freshness
//! link ◀─ Want(stream, after, through) ── link            what the tree did not bring
//!      ── Relayed ─▶
//! ```
//!
//! A view that differs, an interior node that fails, a message that is lost: each loses a subrange of a broadcast, and nothing else. Streams
//! are numbered per origin, so the receiver sees the gap at the next update, or a neighbour tells that it is further. Who stays
//! behind for longer than `relay_patience` asks that neighbour for the piece (`repair`), and what its relay log no longer has is found
//! by anti-entropy.
//!
//! | file | concept |
//! |---|---|
//! | `forward` | passing on: who gets what from us, and taking in what comes |
//! | `talk` | asks and states between neighbours |
//! | `repair` | what the tree did not bring |
//! | `far` | freshness about members that we are not connected to |
//! | `log` | what is passed on and may be asked for again |
//! | `members` | who is alive and who runs the cache |
//! | `turn` | when the tree comes on, and when it goes |
//! | `state` | what is kept for all that |

mod far;
mod forward;
mod log;
mod members;
mod repair;
mod state;
mod talk;
mod turn;

pub(in crate::mode) use self::forward::Forwards;
pub(in crate::mode) use self::repair::Mends;
pub(in crate::mode) use self::state::{Branch, Relay};
pub(in crate::mode) use self::talk::Talks;
pub(in crate::mode) use self::turn::Turns;
