//! Leaving without losing what is on its way.

use std::time::Duration;

use super::links::Links;

/// How long to wait for what is on its way (reliability specification, section 3.2).
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Lets every writer send what waits and close its side, then waits until the peers have read to
/// the end and closed theirs, for at most 10 s.
pub(crate) async fn drain(links: &Links) {
    let all = links.all();
    for link in &all {
        link.finish();
    }
    let drained = async {
        for link in &all {
            link.closed.cancelled().await;
        }
    };
    if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
        tracing::warn!("not all peers have taken what was on its way to them");
    }
}
