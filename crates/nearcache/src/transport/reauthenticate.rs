//! Opens sessions anew when they have lasted long enough, so that a certificate or secret that was
//! taken away stops working.
//!
//! The side that dialled dials again and the new session takes the place of the old one, which is
//! closed only then; updates that were on their way are sent again by their numbers. If the peer no
//! longer proves who it is, the old session ends all the same. The other side ends a session that
//! its dialer has not renewed in time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::links::Link;
use crate::node::NodeShared;
use crate::random::random;

/// The part of its time after which a session is renewed at the earliest: sessions that began
/// together do not all end together.
const EARLIEST: f64 = 0.9;

/// How much longer than its time the side that accepted keeps a session that is not renewed.
const GRACE: f64 = 1.1;

/// The least of that, for times that are short.
const GRACE_MIN: Duration = Duration::from_secs(5);

/// Renews or ends `link` when its time has come. `address` is where its peer listens.
pub(super) async fn run(shared: Arc<NodeShared>, link: Arc<Link>, address: SocketAddr) {
    let Some(security) = shared.security() else {
        return;
    };
    let after = security.reauthenticate_after();
    let is_dialer = link.dialer == shared.id();
    let wait = if is_dialer {
        after.mul_f64(EARLIEST + (1.0 - EARLIEST) * random::<f64>())
    } else {
        after.mul_f64(GRACE).max(after + GRACE_MIN)
    };
    let closed = link.closed.clone();
    let is_over = closed
        .run_until_cancelled(tokio::time::sleep(wait))
        .await
        .is_none();
    if is_over {
        return;
    }
    if !is_dialer {
        tracing::warn!(peer = %link.peer, "the peer did not prove again who it is: disconnecting");
    } else if let Err(error) = super::dial(&shared, address).await {
        tracing::warn!(peer = %link.peer, %error, "cannot open the session anew: disconnecting");
    } else {
        tracing::debug!(peer = %link.peer, "opened the session anew");
    }
    // Whether or not another one has taken its place.
    link.closed.cancel();
}
