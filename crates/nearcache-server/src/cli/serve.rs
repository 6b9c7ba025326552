//! `nearcache serve`: one node, from start to a clean end.

use std::path::Path;

use super::{ServeArgs, StopSignals, check, runtime};
use crate::failure::Failure;
use crate::http::Addresses;
use crate::logging;
use crate::server::Server;

/// Runs until a signal asks it to stop.
pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let loaded = check::load(&args.config)?;
    logging::start(&loaded.config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    runtime()?.block_on(async {
        let mut signals = StopSignals::catch()?;
        let server = Server::start(&loaded.config, None).await?;
        announce(&server);
        if let Some(path) = &args.addresses {
            write_addresses(path, server.addresses())?;
        }
        let ready = server.node().clone();
        tokio::select! {
            () = ready.ready() => {
                tracing::info!(members = ready.members().len(), "ready");
                stopping(signals.received().await);
            }
            signal = signals.received() => stopping(signal),
        }
        // A second signal ends the wait for clients and peers.
        tokio::select! {
            () = server.stop() => tracing::info!("stopped"),
            signal = signals.received() => {
                return Err(Failure::failed(format!("a second {signal} cut the shutdown short")));
            }
        }
        Ok(())
    })
}

fn stopping(signal: &str) {
    tracing::info!(
        signal,
        "stopping: finishing requests, then leaving the cluster"
    );
}

fn announce(server: &Server) {
    let addresses = server.addresses();
    let shown = |address: Option<std::net::SocketAddr>| {
        address.map_or_else(|| "off".to_owned(), |address| address.to_string())
    };
    tracing::info!(
        node = server.node().name(),
        cluster = server.node().cluster(),
        resp = %shown(addresses.resp),
        http = %shown(addresses.http),
        peers = %addresses.peers,
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
}

/// Writes the file whole or not at all: a reader that sees it sees all of it.
fn write_addresses(path: &Path, addresses: &Addresses) -> Result<(), Failure> {
    let mut text = serde_json::to_string(addresses).unwrap_or_default();
    text.push('\n');
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|error| Failure::misuse(format!("cannot write {}: {error}", path.display())))
}
