//! `nearcache serve`: one node, from start to a clean end.

use std::path::Path;

use super::{ServeArgs, StopSignals, check};
use crate::config::{Loaded, units};
use crate::failure::Failure;
use crate::http::Addresses;
use crate::limits::Limits;
use crate::logging;
use crate::machine::files::OpenFiles;
use crate::runtime;
use crate::server::Server;

/// Runs until a signal asks it to stop.
pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let mut loaded = check::load(&args.config)?;
    logging::start(&loaded.config.log);
    fit_clients(&mut loaded.config.limits);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime::of_one_thread().map_err(|error| Failure::no_threads(&error))?;
    runtime.block_on(async {
        let mut signals = StopSignals::catch()?;
        let server = Server::start(&loaded.config, None).await?;
        announce(&server);
        announce_bounds(&loaded);
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

/// Lets as many clients in as there can be open files.
fn fit_clients(limits: &mut Limits) {
    let files = OpenFiles::raise();
    let wanted = limits.client_connections;
    limits.client_connections = files.clients(wanted);
    if limits.client_connections < wanted {
        tracing::warn!(
            open_files = files.limit(),
            client_connections = limits.client_connections,
            configured = wanted,
            "too few open files for all clients: raise the hard limit (LimitNOFILE= in systemd, \
             --ulimit nofile= in Docker)"
        );
    }
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

/// What each cache and the requests may take, and why: nobody has to guess which limit was found.
fn announce_bounds(loaded: &Loaded) {
    for (name, cache) in &loaded.config.caches {
        let why = loaded.shares.why_cache(name);
        tracing::info!(
            cache = name,
            max_bytes = %units::show_size(cache.max_bytes),
            why = why.as_deref().unwrap_or("as configured"),
            "bound of a cache"
        );
    }
    tracing::info!(
        in_flight_bytes = %units::show_size(loaded.config.limits.in_flight_bytes as u64),
        why = loaded.shares.why_in_flight().unwrap_or("as configured"),
        "bound of requests in flight"
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
