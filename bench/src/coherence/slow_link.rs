//! A network namespace beside this one, and a link to it that can be made slow: for a peer that gets 10 kB/s.
//!
//! Needs root, `ip` and `tc` with the token bucket. What is made goes when it is dropped.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::servers::free_port;

/// 10 kB/s, in bits.
const RATE: &str = "80kbit";
/// Whole packets, and a queue that delays by at most so long.
const QUEUE: &str = "burst 4k latency 500ms";

/// The namespace.
#[derive(Debug)]
pub(crate) struct SlowLink {
    name: String,
    /// Third part of the addresses.
    subnet: u8,
}

impl SlowLink {
    /// Makes it; the link is as fast as it can be.
    ///
    /// # Errors
    /// When the machine refuses: not root, or a tool is missing.
    pub(crate) fn make() -> anyhow::Result<Self> {
        let process = std::process::id();
        let link = Self {
            name: format!("ncb{process}"),
            subnet: u8::try_from(process % 250)?,
        };
        let (name, here, there) = (&link.name, link.here(), link.there());
        run(&format!("ip netns add {name}"))?;
        // From here on the namespace is removed whatever fails.
        for line in [
            format!("ip link add {name} type veth peer name eth0 netns {name}"),
            format!("ip addr add {here}/24 dev {name}"),
            format!("ip link set {name} up"),
            format!("ip -n {name} addr add {there}/24 dev eth0"),
            format!("ip -n {name} link set eth0 up"),
            format!("ip -n {name} link set lo up"),
        ] {
            run(&line)?;
        }
        link.set(true)?;
        link.set(false)?;
        Ok(link)
    }

    /// This side's address.
    pub(crate) fn here(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 93, self.subnet, 1)
    }

    fn there(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 93, self.subnet, 2)
    }

    /// An address inside that nobody listens at.
    ///
    /// # Errors
    /// When the system has no port.
    pub(crate) fn free_address(&self) -> anyhow::Result<SocketAddr> {
        Ok((self.there(), free_port()?).into())
    }

    /// A command that runs `program` inside.
    pub(crate) fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Makes the link slow in both directions, or as fast as it was.
    ///
    /// # Errors
    /// When `tc` fails.
    pub(crate) fn set(&self, slow: bool) -> anyhow::Result<()> {
        let name = &self.name;
        for (within, interface) in [
            (String::new(), name.as_str()),
            (format!("-n {name} "), "eth0"),
        ] {
            run(&match slow {
                true => {
                    format!("tc {within}qdisc replace dev {interface} root tbf rate {RATE} {QUEUE}")
                }
                false => format!("tc {within}qdisc del dev {interface} root"),
            })?;
        }
        Ok(())
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        let _ = run(&format!("ip netns del {}", self.name));
    }
}

fn run(line: &str) -> anyhow::Result<()> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap_or_default())
        .args(words)
        .stdin(Stdio::null())
        .output()
        .with_context(|| line.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {}", said.trim());
    Ok(())
}
