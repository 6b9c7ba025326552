//! Two and three nodes in memory.

mod freshness;
mod joining;
mod leaving;
mod limits;
mod lists;
mod loads;
mod modify;
mod split;
mod streams;
mod transfers;
mod tree;
mod writes;

use std::time::Duration;

use crate::config::ReplicationConfig;

const SECOND: Duration = Duration::from_secs(1);
/// As long as a joining node waits for several peers to fill it, and a moment.
const GATHERS: Duration = Duration::from_millis(120);

fn config() -> ReplicationConfig {
    ReplicationConfig::default()
}

fn all(text: &str, n: usize) -> Vec<Option<String>> {
    vec![Some(text.to_owned()); n]
}
