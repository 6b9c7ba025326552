//! Opens sessions anew when they have lasted long enough, so that a certificate or secret that was
//! taken away stops working.
//!
//! The side that dialled dials again and the new session takes the place of the old one, which is
//! closed only then; updates that were on their way are sent again by their numbers. If the peer no
//! longer proves who it is, the old session ends all the same; where it merely cannot be reached, it is tried again until the
//! other side would end the session, as it does with one that its dialer has not renewed in time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::links::Link;
use crate::node::{ConnectError, NodeShared};
use crate::random::random;
use crate::security::Distrust;

/// The part of its time after which a session is renewed at the earliest: sessions that began
/// together do not all end together.
const EARLIEST: f64 = 0.9;

/// How much longer than its time the side that accepted keeps a session that is not renewed.
const GRACE: f64 = 1.1;

/// The least of that, for times that are short.
const GRACE_MIN: Duration = Duration::from_secs(5);

/// The first pause between two attempts; each is twice as long as the one before (a guess).
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The longest.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Renews or ends `link` when its time has come. `address` is where its peer listens.
pub(super) async fn run(shared: Arc<NodeShared>, link: Arc<Link>, address: SocketAddr) {
    let Some(security) = shared.security() else {
        return;
    };
    let after = security.reauthenticate_after();
    let ends_after = after.mul_f64(GRACE).max(after + GRACE_MIN);
    let (begun, closed) = (Instant::now(), link.closed.clone());
    let renewal = async {
        if link.dialer == shared.id() {
            let wait = after.mul_f64(EARLIEST + (1.0 - EARLIEST) * random::<f64>());
            tokio::time::sleep(wait).await;
            renew(&shared, &link, address, begun + ends_after).await;
        } else {
            tokio::time::sleep(ends_after).await;
            tracing::warn!(peer = %link.peer, "the peer did not prove again who it is: disconnecting");
        }
    };
    if closed.run_until_cancelled(renewal).await.is_some() {
        // Whether or not another one has taken its place.
        link.closed.cancel();
    }
}

/// Whether somebody has said no, or said something that proves nothing. Who merely ends the connection may be busy, or about to restart.
const fn is_answer(error: &ConnectError) -> bool {
    match error {
        ConnectError::Untrusted { reason, .. } => !matches!(reason, Distrust::Hangs),
        error => error.is_refusal(),
    }
}

/// Opens the session anew. Tries again until `until` where nobody answers, because that says nothing of who the peer is.
async fn renew(shared: &Arc<NodeShared>, link: &Link, address: SocketAddr, until: Instant) {
    let mut pause = RETRY_PAUSE;
    loop {
        let Err(error) = super::dial(shared, address).await else {
            tracing::debug!(peer = %link.peer, "opened the session anew");
            return;
        };
        if is_answer(&error) || Instant::now() + pause >= until {
            tracing::warn!(peer = %link.peer, %error, "cannot open the session anew: disconnecting");
            return;
        }
        tracing::debug!(peer = %link.peer, %error, "cannot open the session anew: trying again");
        tokio::time::sleep(pause.mul_f64(0.5 + random::<f64>())).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}
