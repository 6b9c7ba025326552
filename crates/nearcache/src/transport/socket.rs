//! Sockets to peers: which they are, and how they are set up.
//!
//! The one place that decides between the system's sockets and those of a simulated network (feature `turmoil`, for tests of
//! this crate). Everything else of the transport takes the types from here.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

#[cfg(not(feature = "turmoil"))]
pub(crate) use tokio::net::{TcpListener, TcpStream};
#[cfg(feature = "turmoil")]
pub(crate) use turmoil::net::{TcpListener, TcpStream};

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the kernel waits for a peer to acknowledge bytes before it breaks the connection.
#[cfg(not(feature = "turmoil"))]
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to `address` and sets the socket up.
pub(super) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    prepare(&stream)?;
    Ok(stream)
}

/// Sets up a socket, whoever opened it: small writes leave at once, and a peer that vanishes
/// without a word is noticed by the kernel too.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    give_up_after_silence(stream)
}

#[cfg(not(feature = "turmoil"))]
fn give_up_after_silence(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// A simulated connection has no such timer: it sends nothing again, and what is lost on it stays lost.
#[cfg(feature = "turmoil")]
#[expect(clippy::unnecessary_wraps, reason = "as with the system's sockets")]
const fn give_up_after_silence(_: &TcpStream) -> io::Result<()> {
    Ok(())
}
