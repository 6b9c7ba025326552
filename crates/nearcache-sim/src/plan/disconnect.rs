//! What becomes of copies in mode `invalidation` when the lease runs out.

use std::time::Duration;

use nearcache_protocol::announce::ModeKind;
use nearcache_protocol::config::OnDisconnect;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// For how long copies are served where that is asked for, in milliseconds.
const STALE_MS: std::ops::Range<u64> = 3_500..6_000;

/// Half of the runs keep what is the default.
pub(super) fn on_disconnect(seed: u64, mode: ModeKind) -> OnDisconnect {
    // Drawn apart, so that the plans of all seeds stay as they are in everything else.
    let mut rng = StdRng::seed_from_u64(seed ^ 0x6c61_7073);
    if mode != ModeKind::Invalidation {
        return OnDisconnect::Bypass;
    }
    match rng.random_range(0..4) {
        0..=1 => OnDisconnect::Bypass,
        2 => OnDisconnect::Flush,
        _ => OnDisconnect::ServeStale {
            max: Duration::from_millis(rng.random_range(STALE_MS)),
        },
    }
}
