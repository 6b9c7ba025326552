//! A node's link to its peers, made slow in both directions.

use super::command::line;
use super::network::Network;

/// Rate of a slow link, with a queue so deep that a full one delays by half a second.
const RATE: &str = "400kbit";

/// Who can slow a link down here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// The network emulator: delay and jitter beside the rate.
    Netem,
    /// The token bucket: a rate, and the delay that its queue makes.
    Tbf,
}

impl Tool {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Netem => "tc netem (400 kbit/s, 50 ± 10 ms)",
            Self::Tbf => "tc tbf (400 kbit/s, queue of 500 ms)",
        }
    }

    /// Words for `tc qdisc`.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Netem => format!("netem rate {RATE} delay 50ms 10ms"),
            Self::Tbf => format!("tbf rate {RATE} burst 8k latency 500ms"),
        }
    }
}

/// Makes the link of `node` slow, or as fast as it was.
///
/// # Errors
/// When `tc` fails.
pub(crate) fn set(tool: Tool, network: &Network, node: usize, slow: bool) -> anyhow::Result<()> {
    let ends = [
        (network.hub(), Network::port(node)),
        (network.node(node), "eth0".to_owned()),
    ];
    for (namespace, interface) in ends {
        if slow {
            let words = tool.words();
            line(&format!(
                "tc -n {namespace} qdisc replace dev {interface} root {words}"
            ))?;
        } else {
            line(&format!("tc -n {namespace} qdisc del dev {interface} root"))?;
        }
    }
    Ok(())
}
