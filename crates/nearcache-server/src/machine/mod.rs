//! What the machine lets this process have: memory, and open files.
//!
//! Read once at start; configuration turns it into defaults, `serve` and `check` say what came of it.

pub mod files;
pub mod memory;
