//! Two and three nodes in memory.

mod freshness;
mod joining;
mod limits;
mod modify;
mod split;
mod streams;
mod writes;

use std::time::Duration;

use crate::config::ReplicationConfig;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> ReplicationConfig {
    ReplicationConfig::default()
}

fn all(text: &str, n: usize) -> Vec<Option<String>> {
    vec![Some(text.to_owned()); n]
}
