//! What is asked of the operating system: namespaces, filters, queues, clocks and processes.
//!
//! Everything lies in namespaces named after the process that made them, without any way out, and goes with them.

pub(crate) mod ability;
pub(crate) mod bite;
pub(crate) mod command;
pub(crate) mod cut;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod reaper;
pub(crate) mod slow;
