//! The work of a round: clients that read, write and remove through all nodes, and watchers that ask the nodes how fresh they
//! are. All record what they saw.
//!
//! Three kinds of keys. *Pinned* keys are written by one client through one node only, one write after the other, so
//! that the order of their versions is known. *Shared* keys are written and removed by everybody everywhere.
//! *Stable* keys are written before the first fault and then only read.

mod ages;
mod board;
mod client;
mod copies;
mod http;
mod keys;
mod record;

pub(crate) use ages::Watcher;
pub(crate) use board::Board;
pub(crate) use client::Client;
pub(crate) use keys::Keys;
pub(crate) use record::Record;
