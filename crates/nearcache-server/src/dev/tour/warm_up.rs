//! A node stopped, its memory dropped, started again and filled by its peers.

use std::time::Instant;

use tokio::time::timeout;

use super::entries::{holds_all, value};
use super::{PREFIX, STILL_TIMEOUT, seconds};
use crate::dev::cluster::Cluster;
use crate::dev::terminal::Terminal;
use crate::failure::Failure;
use crate::http::figures::grouped;

/// Stops the last node, drops what it holds, starts it again and waits until it is warm.
pub(super) async fn show(
    cluster: &mut Cluster,
    entries: usize,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let last = cluster.len() - 1;
    let progress = terminal.progress(&format!("Stopping node {}", last + 1));
    cluster.stop_node(last).await;
    // Written while the node is away: the transfer has to bring it as well.
    let missed = format!("{PREFIX}missed");
    cluster
        .cache(0)?
        .put(missed.as_bytes(), value(0))
        .await
        .map_err(Failure::failed)?;
    progress.clear();
    let progress = terminal.progress(&format!("Starting node {} with nothing", last + 1));
    let start = Instant::now();
    cluster.start_node(last).await?;
    let serving = start.elapsed();
    let cache = cluster.cache(last)?;
    let at_start = cache.len();
    holds_all(&cache, last, entries, |done| progress.share(done, entries)).await?;
    let full = start.elapsed();
    let node = cluster.server(last)?.node().clone();
    if timeout(STILL_TIMEOUT, node.ready()).await.is_err() {
        return Err(Failure::failed(format!(
            "node {} holds everything and is not ready",
            last + 1
        )));
    }
    let ready = start.elapsed();
    progress.clear();
    if cache.peek(missed.as_bytes()).is_none() {
        return Err(Failure::failed(
            "an entry written while the node was away did not come",
        ));
    }
    terminal.result(
        &format!(
            "Node {} stopped, its memory dropped, started again",
            last + 1
        ),
        &[
            format!(
                "{} entries at its start, serving after {}",
                grouped(at_start as u64),
                seconds(serving)
            ),
            format!(
                "{} entries back after {}, ready after {}",
                grouped(entries as u64),
                seconds(full),
                seconds(ready)
            ),
        ],
    );
    terminal.remark(
        "every key looked up on the restarted node itself; filled by its peers over the network",
    );
    Ok(())
}
