//! The nodes of the cluster to try: started, stopped and started again one by one.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::timeout;

use super::terminal::Terminal;
use super::{DevArgs, RESP_THREADS};
use crate::caches::RawCache;
use crate::config::{CacheMode, Config, DEFAULT_CACHE};
use crate::failure::Failure;
use crate::server::Server;

/// How long the nodes get to find each other and to fill up; in practice well under a second.
const FORMING_TIMEOUT: Duration = Duration::from_secs(30);

/// Servers in this process that know of each other only what comes over their sockets.
#[derive(Debug)]
pub(super) struct Cluster {
    servers: Vec<Option<Server>>,
    configs: Vec<Config>,
}

impl Cluster {
    /// Starts all nodes, each with a cache of at most `max_bytes`, and waits until each sees all others
    /// and is filled.
    ///
    /// # Errors
    /// When a port is taken or the nodes do not find each other.
    pub(super) async fn start(
        args: &DevArgs,
        max_bytes: u64,
        terminal: &Terminal,
    ) -> Result<Self, Failure> {
        let starting = terminal.progress(&format!("Starting {}", count(args.nodes.into())));
        let mut cluster = Self {
            servers: Vec::new(),
            configs: Vec::new(),
        };
        for index in 0..args.nodes {
            let mut config = config(args, index, max_bytes);
            config.peers.seeds = cluster.peer_addresses();
            let server = match Server::start(&config, Some(RESP_THREADS)).await {
                Ok(server) => server,
                Err(failure) => {
                    starting.clear();
                    cluster.stop().await;
                    return Err(with_flags(failure));
                }
            };
            // What the system chose is what the node gets again when it is restarted.
            let addresses = server.addresses();
            config.resp.listen = addresses.resp.unwrap_or(config.resp.listen);
            config.http.listen = addresses.http.unwrap_or(config.http.listen);
            config.peers.listen = addresses.peers;
            cluster.servers.push(Some(server));
            cluster.configs.push(config);
        }
        let formed = timeout(FORMING_TIMEOUT, cluster.formed()).await;
        starting.clear();
        if formed.is_err() {
            cluster.stop().await;
            return Err(Failure::failed(
                "the nodes did not find each other; try --log-level debug",
            ));
        }
        Ok(cluster)
    }

    /// Prints where everything listens and what to try.
    pub(super) fn introduce(&self, terminal: &Terminal) {
        let mode = self
            .configs
            .first()
            .map_or(CacheMode::Replicated, |config| {
                config
                    .caches
                    .get(DEFAULT_CACHE)
                    .map_or(CacheMode::Replicated, |cache| cache.mode)
            });
        terminal.heading(&format!(
            "Nearcache {}: {} in this process, cache `{DEFAULT_CACHE}`, mode {}",
            env!("CARGO_PKG_VERSION"),
            count(self.servers.len()),
            mode.as_str(),
        ));
        let mut ports = Vec::new();
        for server in self.servers.iter().flatten() {
            let addresses = server.addresses();
            let (Some(resp), Some(http)) = (addresses.resp, addresses.http) else {
                continue;
            };
            terminal.line(&format!(
                "  {:<8} RESP {resp:<17} HTTP http://{http:<17} peers {}",
                server.node().name(),
                addresses.peers,
            ));
            ports.push((resp.port(), http.port()));
        }
        let (Some(first), Some(last)) = (ports.first(), ports.last()) else {
            return;
        };
        let second = ports.get(1).unwrap_or(first);
        terminal.line("");
        terminal.line("Try it from another terminal:");
        terminal.command(&format!(
            "redis-cli -p {} set greeting hello ex 60",
            first.0
        ));
        terminal.command(&format!(
            "curl -i http://127.0.0.1:{}/v1/caches/{DEFAULT_CACHE}/entries/greeting",
            second.1
        ));
        terminal.command(&format!(
            "{} get greeting --url http://127.0.0.1:{}",
            program(),
            last.1
        ));
        terminal.line(&format!(
            "or look at http://127.0.0.1:{}/ in a browser.",
            first.1
        ));
    }

    /// How many nodes there are, running or not.
    pub(super) fn len(&self) -> usize {
        self.servers.len()
    }

    /// The server of this index, from 0.
    ///
    /// # Errors
    /// When it is stopped.
    pub(super) fn server(&self, index: usize) -> Result<&Server, Failure> {
        self.servers
            .get(index)
            .and_then(Option::as_ref)
            .ok_or_else(|| Failure::failed(format!("node {} is not running", index + 1)))
    }

    /// The cache `default` as node `index` holds it.
    ///
    /// # Errors
    /// When the node is stopped.
    pub(super) fn cache(&self, index: usize) -> Result<RawCache, Failure> {
        let cache = self.server(index)?.default_cache().cloned();
        cache.ok_or_else(|| Failure::failed("there is no cache `default`"))
    }

    /// Stops a node and drops all it holds: its caches, its sockets, its part of the cluster.
    pub(super) async fn stop_node(&mut self, index: usize) {
        if let Some(server) = self.servers.get_mut(index).and_then(Option::take) {
            server.stop().await;
        }
    }

    /// Starts a stopped node on the ports it had, with nothing but its configuration.
    ///
    /// # Errors
    /// When it cannot be started again.
    pub(super) async fn start_node(&mut self, index: usize) -> Result<(), Failure> {
        let seeds = self.peer_addresses();
        let (Some(slot), Some(config)) = (self.servers.get_mut(index), self.configs.get_mut(index))
        else {
            return Ok(());
        };
        config.peers.seeds = seeds;
        *slot = Some(
            Server::start(config, Some(RESP_THREADS))
                .await
                .map_err(with_flags)?,
        );
        Ok(())
    }

    /// Stops all nodes, one after the other.
    pub(super) async fn stop(&mut self) {
        for index in 0..self.servers.len() {
            self.stop_node(index).await;
        }
    }

    /// Waits until every node sees every other and is filled.
    async fn formed(&self) {
        for server in self.servers.iter().flatten() {
            server.node().ready().await;
            while connected(server) < self.servers.len() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn peer_addresses(&self) -> Vec<String> {
        let running = self.servers.iter().flatten();
        running
            .map(|server| server.addresses().peers.to_string())
            .collect()
    }
}

/// How this program is called from here: by its name where the shell finds it, by its path where not.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else {
        return "nearcache".to_owned();
    };
    let searched = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&searched).any(|folder| path.parent() == Some(folder.as_path())) {
        return "nearcache".to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here)
        .unwrap_or(&path)
        .display()
        .to_string()
}

fn count(nodes: usize) -> String {
    if nodes == 1 {
        "1 node".to_owned()
    } else {
        format!("{nodes} nodes")
    }
}

/// Members a node is connected to, itself included.
fn connected(server: &Server) -> usize {
    let members = server.node().members();
    members
        .iter()
        .filter(|member| member.state != nearcache::MemberState::Unconnected)
        .count()
}

fn config(args: &DevArgs, index: u16, max_bytes: u64) -> Config {
    let mut config = Config::default();
    config.node.name = Some(format!("node-{}", index + 1));
    config.node.new_identity = true;
    config.node.cluster = "dev".to_owned();
    let port = |base: u16| if base == 0 { 0 } else { base + index };
    let loopback = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    config.peers.listen = loopback(0);
    config.resp.listen = loopback(port(args.resp_port));
    config.http.listen = loopback(port(args.http_port));
    let cache = config.caches.entry(DEFAULT_CACHE.to_owned()).or_default();
    cache.mode = args.mode;
    cache.max_bytes = max_bytes;
    config
}

/// Names the flags of this command where the settings of a configuration are named.
fn with_flags(mut failure: Failure) -> Failure {
    for line in &mut failure.lines {
        *line = line
            .replace("(resp.listen)", "(--resp-port)")
            .replace("(http.listen)", "(--http-port)");
    }
    failure
}
