//! Stops the node when nobody can use it any more.

use std::sync::Arc;

use super::shared::NodeShared;
use crate::clock::Ticker;

/// What every handle of a node and of its caches holds; the last one to go stops the node.
#[derive(Debug)]
pub(crate) struct NodeGuard {
    shared: Arc<NodeShared>,
    /// Ends the clock thread when it is dropped, which is after the node has stopped.
    _ticker: Ticker,
}

impl NodeGuard {
    pub(crate) const fn new(shared: Arc<NodeShared>, ticker: Ticker) -> Self {
        Self {
            shared,
            _ticker: ticker,
        }
    }

    pub(crate) const fn shared(&self) -> &Arc<NodeShared> {
        &self.shared
    }
}

impl Drop for NodeGuard {
    fn drop(&mut self) {
        self.shared.stop();
    }
}
