//! Deterministic simulation of whole Nearcache clusters.
//!
//! A run draws a plan from a seed (who writes what, which faults strike), lets real nodes carry it out in
//! virtual time over a network that delays, loses, reorders, cuts and breaks, and shows everything to
//! checkers, one per rule. What runs is what ships: the handshake, the membership, the machines of the
//! caches over the real store, every message through the real wire code.
//!
//! ```text
//! seed ─▶ plan ─▶ cluster (hosts, sessions, queue) ─▶ checkers ─▶ report
//! ```
//!
//! A seed reproduces a run in all its detail; a failure prints the seed, the plan and the command that
//! replays it. Planted [bugs](Bug) prove that the checkers bite, [places](Place) that the runs reach what
//! they are meant to reach.
#![forbid(unsafe_code)]

mod bug;
mod check;
mod cluster;
mod crossing;
mod long;
mod meter;
mod node;
mod plan;
mod queue;
mod run;
mod scale;
mod session;
mod sometimes;
mod trace;
mod value;
mod violation;

pub use self::bug::Bug;
pub use self::check::members::noticed_late;
pub use self::check::refresh::Refreshes;
pub use self::crossing::{Counted, Crossing, cross};
pub use self::run::{Failure, Find, Options, Report, hunt, run, run_text};
pub use self::scale::{Row, Scale, Verdict, judge, measure, to_json};
pub use self::sometimes::{Place, Sometimes};
pub use self::violation::Violation;
