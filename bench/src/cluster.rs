//! Three server processes that replicate: Redis with two replicas, or three Nearcache nodes.
//!
//! Both are driven over the Redis protocol: writes go to the first server, reads to the others.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::coherence::SlowLink;
use crate::resp_client::{Client, Reply};
use crate::servers::{Server, free_port};

/// Servers in a cluster.
pub(crate) const NODES: usize = 3;

/// Longest a cluster may take to form, or a write to reach every server.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Three servers, or more; what is written to the first reaches the others.
#[derive(Debug)]
pub(crate) struct Cluster {
    servers: Vec<Server>,
    /// Where Nearcache nodes listen for each other.
    peer_ports: Vec<u16>,
    /// Where they listen for HTTP.
    http_ports: Vec<u16>,
}

impl Cluster {
    /// Redis and two replicas of it.
    ///
    /// # Errors
    /// When one cannot be started, or the replicas do not catch up.
    pub(crate) fn redis() -> anyhow::Result<Self> {
        // The first copy to a replica would wait five seconds for further replicas.
        Self::redis_with_delay(0)
    }

    /// The same, with so many seconds that a copy to a replica waits for further replicas.
    ///
    /// # Errors
    /// As [`Self::redis`].
    pub(crate) fn redis_with_delay(seconds: u32) -> anyhow::Result<Self> {
        let seconds = seconds.to_string();
        let extra = ["--repl-diskless-sync-delay", seconds.as_str()];
        let primary = Server::redis(&extra)?;
        let port = primary.port().to_string();
        let replica =
            || Server::redis(&[&extra[..], &["--replicaof", "127.0.0.1", &port]].concat());
        let cluster = Self {
            servers: vec![primary, replica()?, replica()?],
            peer_ports: Vec::new(),
            http_ports: Vec::new(),
        };
        cluster.settle()?;
        Ok(cluster)
    }

    /// Three Nearcache nodes in `replicated` mode, each bounded to `max_bytes`.
    ///
    /// # Errors
    /// When one cannot be started, or they do not find each other.
    pub(crate) fn nearcache(max_bytes: u64) -> anyhow::Result<Self> {
        Self::nearcache_of(NODES, max_bytes)
    }

    /// As [`Self::nearcache`], of any size.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn nearcache_of(nodes: usize, max_bytes: u64) -> anyhow::Result<Self> {
        let mut peer_ports = Vec::new();
        for _ in 0..nodes {
            peer_ports.push(free_port()?);
        }
        let (mut servers, mut http_ports) = (Vec::new(), Vec::new());
        for (index, peer_port) in peer_ports.iter().enumerate() {
            let port = free_port()?;
            let http_port = free_port()?;
            let name = format!("n{}", index + 1);
            let ports = (*peer_port, port, http_port);
            let toml = node_toml(&name, Ipv4Addr::LOCALHOST, &peer_ports, ports, max_bytes);
            servers.push(Server::nearcache(port, &toml)?);
            http_ports.push(http_port);
        }
        http_ports.iter().copied().try_for_each(wait_until_ready)?;
        let cluster = Self {
            servers,
            peer_ports,
            http_ports,
        };
        cluster.settle()?;
        Ok(cluster)
    }

    /// As [`Self::nearcache_of`], with one node more behind `link`, which clients cannot reach. It is returned beside the cluster.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn nearcache_beside(
        link: &SlowLink,
        nodes: usize,
        max_bytes: u64,
    ) -> anyhow::Result<(Self, Server)> {
        let mut peer_ports = Vec::new();
        for _ in 0..nodes {
            peer_ports.push(free_port()?);
        }
        let (mut servers, mut http_ports) = (Vec::new(), Vec::new());
        for (index, peer_port) in peer_ports.iter().enumerate() {
            let (port, http_port) = (free_port()?, free_port()?);
            let name = format!("n{}", index + 1);
            let ports = (*peer_port, port, http_port);
            let toml = node_toml(&name, link.here(), &peer_ports, ports, max_bytes);
            servers.push(Server::nearcache(port, &toml)?);
            http_ports.push(http_port);
        }
        let behind = link.free_address()?;
        let (port, http_port) = (free_port()?, free_port()?);
        let ports = (behind.port(), port, http_port);
        let toml = node_toml("behind", link.here(), &peer_ports, ports, max_bytes);
        let listens = format!("listen = \"{}:{}\"", link.here(), behind.port());
        let toml = toml.replacen(&listens, &format!("listen = \"{behind}\""), 1);
        let behind = Server::nearcache_behind(link, port, &toml)?;
        http_ports.iter().copied().try_for_each(wait_until_ready)?;
        let cluster = Self {
            servers,
            peer_ports,
            http_ports,
        };
        cluster.settle()?;
        Ok((cluster, behind))
    }

    /// What the metrics of the first node say of each line that begins with `name`, with its labels.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn metrics(&self, name: &str) -> anyhow::Result<Vec<(String, f64)>> {
        let port = self.http_ports.first().context("a cluster of Nearcache")?;
        let text = get(*port, "/metrics")?;
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        let pairs =
            pairs.filter_map(|(labels, value)| Some((labels.to_owned(), value.parse().ok()?)));
        Ok(pairs.collect())
    }

    /// One more Nearcache node, and how long it took from the start of its process until it was ready. It is not one of those that
    /// this cluster is driven by.
    ///
    /// # Errors
    /// When it cannot be started or is not ready within a minute.
    pub(crate) fn add_nearcache(&self, max_bytes: u64) -> anyhow::Result<(Server, Duration)> {
        let (peer_port, port, http_port) = (free_port()?, free_port()?, free_port()?);
        let toml = node_toml(
            "joining",
            Ipv4Addr::LOCALHOST,
            &self.peer_ports,
            (peer_port, port, http_port),
            max_bytes,
        );
        let started = Instant::now();
        let server = Server::nearcache(port, &toml)?;
        wait_until_ready(http_port)?;
        Ok((server, started.elapsed()))
    }

    /// One more replica of Redis, and how long it took from the start of its process until it was in sync.
    ///
    /// # Errors
    /// When it cannot be started or is not in sync within a minute.
    pub(crate) fn add_replica(&self) -> anyhow::Result<(Server, Duration)> {
        let port = self.first().port().to_string();
        let started = Instant::now();
        let server = Server::redis(&["--replicaof", "127.0.0.1", &port])?;
        let mut client = Client::connect(server.port())?;
        loop {
            if let Reply::Bulk(info) = client.call(&[b"INFO", b"replication"])?
                && String::from_utf8_lossy(&info).contains("master_link_status:up")
            {
                return Ok((server, started.elapsed()));
            }
            ensure!(
                started.elapsed() < SETTLE_TIMEOUT,
                "a replica is not in sync within {SETTLE_TIMEOUT:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where each server speaks the Redis protocol.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.servers.iter().map(Server::port).collect()
    }

    /// The server that is written to.
    pub(crate) fn first(&self) -> &Server {
        &self.servers[0]
    }

    /// All servers, the first one first.
    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// A connection to each server, the first one first.
    ///
    /// # Errors
    /// When a server does not answer.
    pub(crate) fn connect(&self) -> anyhow::Result<Vec<Client>> {
        self.servers
            .iter()
            .map(|server| Client::connect(server.port()))
            .collect()
    }

    /// CPU time of all servers together.
    ///
    /// # Errors
    /// When a process is gone.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.servers.iter().map(Server::cpu).sum()
    }

    /// Waits until a write to the first server, and so all before it, can be read on the others.
    ///
    /// # Errors
    /// When that takes longer than a minute.
    pub(crate) fn settle(&self) -> anyhow::Result<()> {
        self.settle_from(0)
    }

    /// Waits until all writes to any server can be read on the others.
    ///
    /// # Errors
    /// When that takes longer than a minute.
    pub(crate) fn settle_all(&self) -> anyhow::Result<()> {
        (0..self.servers.len()).try_for_each(|writer| self.settle_from(writer))
    }

    /// Updates of one server arrive in their order: when its last one is there, all are.
    fn settle_from(&self, writer: usize) -> anyhow::Result<()> {
        let mut clients = self.connect()?;
        let marker = format!("{writer} {:?}", Instant::now());
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        clients[writer].expect_ok(&[b"SET", b"bench:settled", marker.as_bytes()])?;
        for client in &mut clients {
            while client.call(&[b"GET", b"bench:settled"])? != Reply::Bulk(marker.clone().into()) {
                if Instant::now() > deadline {
                    bail!("a write did not reach every server within {SETTLE_TIMEOUT:?}");
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(())
    }
}

/// The configuration of a node that knows those who listen at `seeds`.
fn node_toml(
    name: &str,
    address: Ipv4Addr,
    seeds: &[u16],
    (peer_port, port, http_port): (u16, u16, u16),
    max_bytes: u64,
) -> String {
    let seeds: Vec<String> = seeds
        .iter()
        .map(|port| format!("\"{address}:{port}\""))
        .collect();
    let insecure = !address.is_loopback();
    format!(
        "[node]\nname = \"{name}\"\ncluster = \"bench\"\n\
         [peers]\nlisten = \"{address}:{peer_port}\"\nallow_insecure_network = {insecure}\nseeds = [{}]\n\
         [resp]\nlisten = \"127.0.0.1:{port}\"\n[http]\nlisten = \"127.0.0.1:{http_port}\"\n\
         [caches.default]\nmode = \"replicated\"\nmax_bytes = \"{max_bytes}B\"\n",
        seeds.join(", "),
    )
}

/// Waits until the node that serves HTTP on `port` has joined: before that it asks its peers for what it
/// does not hold, and a read says nothing about what has arrived.
fn wait_until_ready(port: u16) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    while !is_ready(port)? {
        ensure!(
            Instant::now() < deadline,
            "a node is not ready within {SETTLE_TIMEOUT:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn is_ready(port: u16) -> anyhow::Result<bool> {
    Ok(get(port, "/readyz")?.starts_with("HTTP/1.1 200"))
}

/// A whole answer, headers included.
fn get(port: u16, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
