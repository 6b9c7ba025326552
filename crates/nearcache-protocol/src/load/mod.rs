//! Loading from the system of record, as state machines without I/O: the shell calls the loader, these decide.
//!
//! ```text
//! miss ─▶ flights: join ─▶ follows: waits for the flight's end
//!                    └───▶ leads ─▶ breaker: admit ─▶ (mode: begin_load ─▶ the key's home node)
//!                                        ─▶ fence: begin ─▶ the loader is called ─▶ fence: keep ─▶ store
//!                                        ─▶ flights: land ─▶ everybody who waits, and who may start next
//! ```
//!
//! | file | concept |
//! |---|---|
//! | `fence` | whether what was read may be kept: nothing that covers the key may have been invalidated meanwhile |
//! | `flights` | one load of a key at a time on this node, few at a time of a cache |
//! | `lease` | one load of a key at a time in the cluster: the words of mode `replicated` |
//! | `breaker` | whether the system of record is asked at all |
//! | `early` | when an entry is loaded anew before it expires |
//! | `source` | the newest version of the system of record that was seen of a key |

pub mod breaker;
pub mod early;
pub mod fence;
pub mod flights;
pub mod lease;
#[cfg(all(test, feature = "shuttle"))]
mod shuttle_test;
pub mod source;
