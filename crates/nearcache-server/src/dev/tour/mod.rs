//! The tour: what the cluster does, shown with figures measured as it does it.
//!
//! ```text
//! 1  visibility   write on node 1, see on the others; or, in mode invalidation, see their copies go
//! 2  reads        the cost of a read in process
//! 3  warm-up      a node stopped, its memory dropped, started again and filled by its peers
//! ```
//!
//! Every figure says how it was measured. All keys begin with [`PREFIX`] and are dropped at the end.

mod entries;
mod invalidation;
mod reads;
mod visibility;
mod warm_up;

use std::time::Duration;

use super::DevArgs;
use super::cluster::Cluster;
use super::terminal::Terminal;
use crate::config::CacheMode;
use crate::failure::Failure;

/// What the keys of the tour begin with.
const PREFIX: &str = "tour:";
/// How long one write may take to be seen, and how long a step may stand still, before the tour says
/// that something is wrong.
const STILL_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes the tour.
///
/// # Errors
/// When a node does not show what it should: the line says which and what.
pub(super) async fn take(
    cluster: &mut Cluster,
    args: &DevArgs,
    terminal: &Terminal,
) -> Result<(), Failure> {
    terminal.line("");
    terminal.heading("Tour");
    let shared = args.mode == CacheMode::Replicated && cluster.len() > 1;
    if shared {
        visibility::show(cluster, args.tour_writes as usize, terminal).await?;
    } else if args.mode == CacheMode::Invalidation && cluster.len() > 1 {
        invalidation::show(cluster, args.tour_writes as usize, terminal).await?;
    } else {
        terminal.line(
            "- visibility and warm-up: nothing to show without several nodes in mode replicated",
        );
    }
    entries::fill(cluster, args.tour_entries as usize, shared, terminal).await?;
    // Where values do not travel, the first node is the one that holds them.
    let reader = if shared { cluster.len() - 1 } else { 0 };
    reads::show(cluster, reader, args.tour_entries as usize, terminal).await?;
    if shared {
        warm_up::show(cluster, args.tour_entries as usize, terminal).await?;
    }
    let cache = cluster.cache(0)?;
    cache
        .invalidate_prefix(PREFIX)
        .await
        .map_err(Failure::failed)?;
    terminal.line("");
    terminal.line(&format!(
        "The entries of the tour are dropped again: invalidate_prefix(\"{PREFIX}\")."
    ));
    Ok(())
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
