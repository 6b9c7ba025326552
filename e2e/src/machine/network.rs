//! The network of a run: a hub with two bridges, a namespace per node, and one for the clients.
//!
//! ```text
//!            hub:   br-peers 10.91.0.0/24            br-clients 10.92.0.0/24
//!                    p1    p2    p3                   c0    c1    c2    c3
//!                    │     │     │                    │     │     │     │
//!                  node 1 node 2 node 3           clients node 1 node 2 node 3
//! ```
//!
//! Faults are put on the bridge of the peers, so that clients still see what the nodes do. No namespace has a
//! route anywhere else. Nodes are counted from 0 in the program, from 1 in names and addresses.

use std::net::{Ipv4Addr, SocketAddr};

use super::command::line;

/// First part of every name.
const NAME: &str = "nce2e";

/// The names of one run's namespaces, and what follows from them.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    prefix: String,
    nodes: usize,
}

impl Network {
    /// Names for `nodes` nodes that only the process `owner` uses.
    pub(crate) fn of(owner: u32, nodes: usize) -> Self {
        Self {
            prefix: format!("{NAME}-{owner}"),
            nodes,
        }
    }

    /// How many nodes there are.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes
    }

    /// Namespace of the bridges.
    pub(crate) fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    /// Namespace of the clients, in which the harness itself runs.
    pub(crate) fn clients(&self) -> String {
        format!("{}-clients", self.prefix)
    }

    /// Namespace of a node.
    pub(crate) fn node(&self, node: usize) -> String {
        format!("{}-node{}", self.prefix, node + 1)
    }

    /// Every namespace of the run.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        let mut names = vec![self.hub(), self.clients()];
        names.extend((0..self.nodes).map(|node| self.node(node)));
        names
    }

    /// Where a node listens for peers.
    pub(crate) fn peer_address(node: usize) -> SocketAddr {
        SocketAddr::from((host(91, node), 7801))
    }

    /// Where a node listens for RESP.
    pub(crate) fn client_address(node: usize) -> SocketAddr {
        SocketAddr::from((host(92, node), 7001))
    }

    /// Where it listens for HTTP.
    pub(crate) fn http_address(node: usize) -> SocketAddr {
        SocketAddr::from((host(92, node), 8001))
    }

    /// A node's interface to its peers, as the hub names it.
    pub(crate) fn port(node: usize) -> String {
        format!("p{}", node + 1)
    }

    /// Makes the namespaces, bridges and links.
    ///
    /// # Errors
    /// When the machine refuses one of them.
    pub(crate) fn build(&self) -> anyhow::Result<()> {
        let hub = self.hub();
        for name in self.namespaces() {
            line(&format!("ip netns add {name}"))?;
            line(&format!("ip -n {name} link set lo up"))?;
        }
        for bridge in ["br-peers", "br-clients"] {
            line(&format!("ip -n {hub} link add {bridge} type bridge"))?;
            line(&format!("ip -n {hub} link set {bridge} up"))?;
        }
        let clients = self.clients();
        self.link(
            "br-clients",
            "c0",
            &clients,
            "eth1",
            Ipv4Addr::new(10, 92, 0, 200),
        )?;
        for node in 0..self.nodes {
            let name = self.node(node);
            self.link("br-peers", &Self::port(node), &name, "eth0", host(91, node))?;
            let port = format!("c{}", node + 1);
            self.link("br-clients", &port, &name, "eth1", host(92, node))?;
        }
        Ok(())
    }

    /// A pair of interfaces: `port` on the bridge in the hub, `interface` with the address in `namespace`.
    fn link(
        &self,
        bridge: &str,
        port: &str,
        namespace: &str,
        interface: &str,
        address: Ipv4Addr,
    ) -> anyhow::Result<()> {
        let hub = self.hub();
        line(&format!(
            "ip -n {hub} link add {port} type veth peer name {interface} netns {namespace}"
        ))?;
        line(&format!("ip -n {hub} link set {port} master {bridge} up"))?;
        line(&format!(
            "ip -n {namespace} addr add {address}/24 dev {interface}"
        ))?;
        line(&format!("ip -n {namespace} link set {interface} up"))?;
        Ok(())
    }
}

fn host(net: u8, node: usize) -> Ipv4Addr {
    let last = u8::try_from(node + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, net, 0, last)
}
