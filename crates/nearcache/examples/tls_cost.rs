//! What mutual TLS costs: how long a write takes to be seen on another node, and how many a second
//! arrive, with and without it, turn by turn in one run.
//!
//! ```sh
//! cargo run --release -p nearcache --example tls_cost
//! ```
#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nearcache::{Ack, Cache, Node, PeerTls, PeerTlsFiles, PutOptions, StaticPeers};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Turns of each side.
const ROUNDS: usize = 5;

/// Writes of a turn that are waited for one by one.
const WRITES: u32 = 1_000;

/// Writes of a turn that are sent as fast as they go.
const UPDATES: u32 = 50_000;

/// Two nodes and their cache.
struct Pair {
    nodes: [Node; 2],
    here: Cache<u32, String>,
    there: Cache<u32, String>,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder = std::env::temp_dir().join(format!("nearcache-tls-cost-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let files = certificates(&folder)?;
    let plain = Pair::start(None).await?;
    let secured = Pair::start(Some(files)).await?;
    let sides = [("without TLS", &plain), ("with TLS", &secured)];
    let mut figures = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        for ((_, pair), figures) in sides.iter().zip(&mut figures) {
            figures.push((pair.visible().await?, pair.per_second().await?));
        }
    }
    for ((name, pair), figures) in sides.iter().zip(&mut figures) {
        figures.sort_by_key(|(visible, _)| *visible);
        let (p50, _) = figures[ROUNDS / 2];
        figures.sort_by_key(|(_, per_second)| *per_second);
        let (_, per_second) = figures[ROUNDS / 2];
        println!("{name:12} seen after p50 {p50:?}, {per_second} updates/s");
        for node in &pair.nodes {
            node.shutdown().await;
        }
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

impl Pair {
    async fn start(files: Option<[PeerTlsFiles; 2]>) -> Outcome<Self> {
        let [first, second] = match files {
            Some(files) => files.map(|files| Some(PeerTls::new(files))),
            None => [None, None],
        };
        let one = node("one", first, StaticPeers::default()).await?;
        let two = node("two", second, StaticPeers::new([one.local_addr()])).await?;
        let here = one.cache("things").open().await?;
        let there: Cache<u32, String> = two.cache("things").open().await?;
        there.ready().await;
        Ok(Self {
            nodes: [one, two],
            here,
            there,
        })
    }

    /// Median time from before a write until another node has it.
    async fn visible(&self) -> Outcome<Duration> {
        let mut times = Vec::new();
        for i in 0..WRITES {
            let value = format!("{i:0>100}");
            let started = Instant::now();
            self.here.put(&0, value.clone()).await?;
            while self.there.peek(&0).is_none_or(|found| *found != value) {
                tokio::task::yield_now().await;
            }
            times.push(started.elapsed());
        }
        times.sort();
        Ok(times[times.len() / 2])
    }

    /// Updates that arrive per second.
    async fn per_second(&self) -> Outcome<u64> {
        let started = Instant::now();
        for i in 0..UPDATES {
            let options = if i % 4_096 == 4_095 || i + 1 == UPDATES {
                PutOptions::new().ack(Ack::All)
            } else {
                PutOptions::new()
            };
            self.here.put_with(&i, "x".repeat(100), options).await?;
        }
        let nanos = started.elapsed().as_nanos().max(1);
        Ok(u64::try_from(u128::from(UPDATES) * 1_000_000_000 / nanos)?)
    }
}

async fn node(name: &str, tls: Option<PeerTls>, peers: StaticPeers) -> Outcome<Node> {
    let mut builder = Node::builder("cost").name(name).discovery(peers);
    if let Some(tls) = tls {
        builder = builder.tls(tls);
    }
    Ok(builder.start().await?)
}

/// Certificates of two nodes, as `nearcache certs` makes them.
fn certificates(folder: &Path) -> Outcome<[PeerTlsFiles; 2]> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Outcome::Ok(path)
    };
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let ca = write("ca.pem", &authority.pem())?;
    let secret = write(
        "secret",
        &KeyPair::generate()?
            .serialize_pem()
            .replace(['\n', ' '], ""),
    )?;
    let files = |node: &str| {
        let mut params = CertificateParams::default();
        let name = PeerTls::uri_name("cost", node);
        params.subject_alt_names = vec![SanType::URI(name.try_into()?)];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        Outcome::Ok(PeerTlsFiles {
            certificate: write(&format!("{node}.pem"), &certificate.pem())?,
            key: write(&format!("{node}.key"), &key.serialize_pem())?,
            ca: ca.clone(),
            secret: secret.clone(),
        })
    };
    Ok([files("one")?, files("two")?])
}
