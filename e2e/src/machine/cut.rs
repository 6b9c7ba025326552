//! Packets between pairs of nodes, dropped: all of them (a partition) or some (loss).
//!
//! One table is written anew at each change, so that what holds is what was asked for last. With nftables that is one
//! transaction on the hub's bridge; with iptables, a list in the receiving node.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::command;
use super::network::Network;

/// Who can drop packets here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// nftables, at the bridge.
    NftBridge,
    /// iptables, in the node that receives.
    Iptables,
}

impl Tool {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NftBridge => "nft, bridge family, in the hub",
            Self::Iptables => "iptables, INPUT of the receiving node",
        }
    }
}

/// Per cent of packets dropped, from one node to another.
pub(crate) type Drops = BTreeMap<(usize, usize), u8>;

/// Makes `drops` hold, and nothing else.
///
/// # Errors
/// When the tool fails.
pub(crate) fn apply(tool: Tool, network: &Network, drops: &Drops) -> anyhow::Result<()> {
    match tool {
        Tool::NftBridge => {
            let hub = network.hub();
            command::run_with_input(
                &["ip", "netns", "exec", &hub, "nft", "-f", "-"],
                &nft(drops),
            )
            .map(|_| ())
        }
        Tool::Iptables => {
            for node in 0..network.nodes() {
                let within = format!("ip netns exec {}", network.node(node));
                command::line(&format!("{within} iptables -w -F INPUT"))?;
                for ((from, _), percent) in drops.iter().filter(|((_, to), _)| *to == node) {
                    let source = Network::peer_address(*from).ip();
                    command::line(&format!(
                        "{within} iptables -w -A INPUT -s {source} {} -j DROP",
                        chance(*percent)
                    ))?;
                }
            }
            Ok(())
        }
    }
}

/// Answers what peers send to `node` over TCP with a reset, or no longer. With nftables in the node only.
///
/// # Errors
/// When the tool fails.
pub(crate) fn reset(network: &Network, node: usize, on: bool) -> anyhow::Result<()> {
    let mut text = "add table inet nearcache\n\
                    add chain inet nearcache refuse { type filter hook input priority 0 ; policy accept ; }\n\
                    flush chain inet nearcache refuse\n"
        .to_owned();
    if on {
        text += "add rule inet nearcache refuse iifname \"eth0\" meta l4proto tcp reject with tcp reset\n";
    }
    let within = ["ip", "netns", "exec", &network.node(node), "nft", "-f", "-"];
    command::run_with_input(&within, &text).map(|_| ())
}

fn chance(percent: u8) -> String {
    match percent {
        100.. => String::new(),
        _ => format!("-m statistic --mode random --probability 0.{percent:02}"),
    }
}

fn nft(drops: &Drops) -> String {
    let mut text = "add table bridge nearcache\n\
                    add chain bridge nearcache cut { type filter hook forward priority 0 ; policy accept ; }\n\
                    flush chain bridge nearcache cut\n"
        .to_owned();
    for ((from, to), percent) in drops {
        let chance = match percent {
            100.. => String::new(),
            _ => format!("numgen random mod 100 < {percent} "),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "add rule bridge nearcache cut iifname \"{}\" oifname \"{}\" {chance}drop",
            Network::port(*from),
            Network::port(*to)
        );
    }
    text
}
