//! The only place that knows how bytes reach the disk.
//!
//! `journal` keeps the writes that were acknowledged and are not in the system of record yet. What its bytes mean is
//! [`nearcache_protocol::write::record`]; here are files, syncing and locking.

pub(crate) mod journal;

pub use journal::JournalError;
