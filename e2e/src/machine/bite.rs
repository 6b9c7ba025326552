//! Whether a fault that the machine's tools say they have made is there: what comes back from one node to another is counted.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::command;
use super::network::Network;

/// Datagrams of one measurement, one each millisecond.
const DATAGRAMS: u16 = 150;
/// Bytes of each.
const BYTES: usize = 1_000;
/// How long answers to the last are waited for.
const PATIENCE: Duration = Duration::from_millis(400);
/// Where the reflecting node listens.
const PORT: u16 = 7_999;

/// The node that measures, and the one that sends back.
pub(crate) const FROM: usize = 0;
/// See [`FROM`].
pub(crate) const TO: usize = 1;

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// So many datagrams.
    answers: u16,
    /// Half of them within so many milliseconds.
    median_ms: u16,
    /// Whether a TCP connection was accepted.
    connects: bool,
}

impl Seen {
    /// Whether the link is as it should be.
    pub(crate) fn is_well(self) -> bool {
        self.connects && u32::from(self.answers) * 20 >= u32::from(DATAGRAMS) * 19
    }

    /// Whether nothing gets through.
    pub(crate) fn is_cut(self) -> bool {
        self.answers == 0 && !self.connects
    }

    /// Whether some gets through, and some does not.
    pub(crate) fn is_lossy(self) -> bool {
        (DATAGRAMS / 2..DATAGRAMS * 19 / 20).contains(&self.answers)
    }

    /// Whether it takes its time.
    pub(crate) fn is_slow(self) -> bool {
        self.answers <= DATAGRAMS / 2 && self.median_ms >= 20
    }

    /// Whether connections are refused, and they only.
    pub(crate) fn is_reset(self) -> bool {
        !self.connects && self.answers >= DATAGRAMS / 2
    }

    fn of_line(line: &str) -> Option<Self> {
        let mut parts = line.split_whitespace().map(str::parse::<u16>);
        let mut next = || parts.next()?.ok();
        Some(Self {
            answers: next()?,
            median_ms: next()?,
            connects: next()? == 1,
        })
    }

    /// For people.
    pub(crate) fn describe(self) -> String {
        let connects = if self.connects { "" } else { ", no connection" };
        let (answers, median_ms) = (self.answers, self.median_ms);
        format!("{answers} of {DATAGRAMS} came back, half of them within {median_ms} ms{connects}")
    }
}

impl fmt::Display for Seen {
    /// As [`of_line`](Self::of_line) reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connects = u16::from(self.connects);
        write!(f, "{} {} {connects}", self.answers, self.median_ms)
    }
}

/// A node that sends back what it gets, until it is dropped.
#[derive(Debug)]
pub(crate) struct Mirror {
    child: Child,
}

impl Mirror {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started in its namespace.
    pub(crate) fn start(network: &Network) -> anyhow::Result<Self> {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &network.node(TO)])
            .arg(std::env::current_exe()?)
            .args(["reflect", &address().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting what sends back")?;
        let mut line = String::new();
        let output = child.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "what sends back did not start");
        Ok(Self { child })
    }

    /// What comes back from there just now.
    ///
    /// # Errors
    /// When it cannot be measured.
    pub(crate) fn look(&self, network: &Network) -> anyhow::Result<Seen> {
        let program = std::env::current_exe()?;
        let program = program.to_str().context("the program has a strange name")?;
        let (node, at) = (network.node(FROM), address().to_string());
        let printed = command::run(&["ip", "netns", "exec", &node, program, "measure", &at])?;
        Seen::of_line(&printed).context("nothing was measured")
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn address() -> SocketAddr {
    SocketAddr::new(Network::peer_address(TO).ip(), PORT)
}

/// Sends datagrams back and accepts connections at `at`, until standard input ends.
///
/// # Errors
/// When the address cannot be listened at.
pub(crate) fn reflect(at: SocketAddr) -> anyhow::Result<()> {
    let (datagrams, connections) = (UdpSocket::bind(at)?, TcpListener::bind(at)?);
    std::thread::spawn(move || connections.incoming().for_each(drop));
    std::thread::spawn(move || {
        let mut buffer = [0; BYTES];
        while let Ok((bytes, from)) = datagrams.recv_from(&mut buffer) {
            // One that cannot be sent counts as one that was lost.
            let _ = datagrams.send_to(buffer.get(..bytes).unwrap_or_default(), from);
        }
    });
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Sends datagrams to `at` and counts what comes back; then connects.
///
/// # Errors
/// When there is no socket to be had.
pub(crate) fn measure(at: SocketAddr) -> anyhow::Result<Seen> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect(at)?;
    let mut took: Vec<Duration> = Vec::new();
    let mut sent: Vec<Instant> = Vec::new();
    let mut buffer = [0; BYTES];
    let mut take = |wait: Duration, sent: &[Instant]| {
        // Zero would be without end.
        socket
            .set_read_timeout(Some(wait.max(Duration::from_micros(50))))
            .ok()?;
        socket.recv(&mut buffer).ok()?;
        let number = u16::from_be_bytes([buffer[0], buffer[1]]);
        let at = sent.get(usize::from(number))?;
        Some(at.elapsed())
    };
    let began = Instant::now();
    for number in 0..DATAGRAMS {
        let mut datagram = [0; BYTES];
        datagram[..2].copy_from_slice(&number.to_be_bytes());
        sent.push(Instant::now());
        // A filter may refuse it: it does not come back then.
        let _ = socket.send(&datagram);
        let next = began + Duration::from_millis(u64::from(number) + 1);
        while Instant::now() < next {
            took.extend(take(next.saturating_duration_since(Instant::now()), &sent));
        }
    }
    let last = Instant::now() + PATIENCE;
    while Instant::now() < last && took.len() < usize::from(DATAGRAMS) {
        took.extend(take(last.saturating_duration_since(Instant::now()), &sent));
    }
    took.sort_unstable();
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    Ok(Seen {
        answers: u16::try_from(took.len())?,
        median_ms: u16::try_from(median.as_millis())?,
        connects: TcpStream::connect_timeout(&at, PATIENCE).is_ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(answers: u16, median_ms: u16, connects: bool) -> Seen {
        Seen {
            answers,
            median_ms,
            connects,
        }
    }

    #[test]
    fn a_link_that_is_well_shows_no_fault_and_a_fault_is_told_from_others() {
        let well = seen(150, 0, true);
        assert!(well.is_well());
        let faults = [Seen::is_cut, Seen::is_lossy, Seen::is_slow, Seen::is_reset];
        assert!(faults.iter().all(|is| !is(well)));
        assert!(seen(0, 0, false).is_cut());
        assert!(seen(120, 0, true).is_lossy() && !seen(120, 0, true).is_well());
        assert!(seen(40, 300, true).is_slow());
        assert!(seen(150, 0, false).is_reset());
    }

    #[test]
    fn what_is_printed_is_read() {
        let some = seen(40, 300, false);
        assert_eq!(Seen::of_line(&format!("{some}\n")), Some(some));
        assert_eq!(Seen::of_line("40"), None);
    }
}
