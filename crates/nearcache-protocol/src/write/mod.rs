//! Writing the system of record later, as state machines without I/O: the shell calls the sink and the disk, these decide.
//!
//! ```text
//! put ─▶ queue: reserve ─▶ (journal: append, sync) ─▶ queue: put ─▶ acknowledged
//!                                                        │ a later write of the key takes the place of a waiting one
//!        queue: next_batch ─▶ the sink is called ─▶ queue: ended ─▶ written: settled, and its journal record dead
//!                                                        ├─▶ failed: again after a backoff
//!                                                        └─▶ rejected, or failing for too long: a dead letter
//! ```
//!
//! | file | concept |
//! |---|---|
//! | `queue` | what is to be written: one write of a key at a time, the newest; batches, bounds; `queue/ended`: what came of a batch, retries |
//! | `watched` | what was accepted of a key while a read-modify-write of it was being decided elsewhere |
//! | `backoff` | how long to wait after a failure |
//! | `dead` | writes that were given up, to be listed and replayed |
//! | `record` | what a journal looks like, byte for byte |
//! | `former` | the newest version that a journal has recorded: what is stamped after a restart is later |
//! | `ledger` | which of a journal's records are needed, and what is still to be written after a restart |

pub mod backoff;
pub mod dead;
pub mod former;
pub mod ledger;
pub mod queue;
pub mod record;
mod watched;
