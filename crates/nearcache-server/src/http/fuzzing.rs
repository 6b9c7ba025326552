//! What the fuzz target of HTTP calls: arbitrary bytes as one client's connection.
//!
//! The oracles: no panic, an answer that is HTTP or none, no answer 500, and nothing still held or
//! counted as open once the connection is over.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Instant;

use http::StatusCode;
use nearcache::{Mode, Node, Raw, RawValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::{Addresses, Context, Metrics, connection};
use crate::caches::Caches;
use crate::config::Config;
use crate::limits::{ConnectionBudget, Limits, Lockout, MemoryBudget};

/// Bytes that lie between client and server.
const PIPE_BYTES: usize = 64 << 10;

/// A node with one cache, for all runs of a fuzz target.
struct Fixture {
    runtime: Runtime,
    context: Arc<Context>,
    admission: Arc<Admission>,
}

static FIXTURE: LazyLock<Mutex<Option<Fixture>>> =
    LazyLock::new(|| Mutex::new(Fixture::start().ok()));

impl Fixture {
    fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let context = runtime.block_on(async {
            let node = Node::builder("fuzzing")
                .listen("127.0.0.1:0")
                .start()
                .await?;
            let cache = node.cache::<Vec<u8>, RawValue>("default").codec::<Raw>();
            let mut caches = Caches::default();
            caches.insert(cache.mode(Mode::Local).open().await?);
            let limits = Limits {
                value_bytes: 1_000,
                ..Limits::default()
            };
            let metrics = Metrics::register(&mut node.metrics().lock());
            anyhow::Ok(Context {
                addresses: Addresses {
                    resp: None,
                    http: None,
                    peers: node.local_addr(),
                },
                caches,
                config: Config::default().http,
                connections: ConnectionBudget::new(&limits),
                memory: MemoryBudget::new(&limits),
                lockout: Lockout::new(&limits),
                limits: Arc::new(limits),
                credentials: None,
                metrics,
                node,
                started: Instant::now(),
            })
        })?;
        Ok(Self {
            admission: Arc::new(Admission::new(&context.config)),
            runtime,
            context: Arc::new(context),
        })
    }
}

/// Has `data` answered as one client's bytes, in chunks as long as its first byte says.
///
/// # Panics
///
/// When an oracle does not hold; when the fixture cannot be started.
#[expect(
    clippy::expect_used,
    reason = "a fuzz target without its fixture is no fuzz target"
)]
pub fn http_request(data: &[u8]) {
    let Some((&chunk_bytes, data)) = data.split_first() else {
        return;
    };
    let fixture = FIXTURE.lock().unwrap_or_else(PoisonError::into_inner);
    let Fixture {
        runtime,
        context,
        admission,
    } = fixture.as_ref().expect("a node on loopback");
    let (client, server) = duplex(PIPE_BYTES);
    let serving = connection::connection(
        server,
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        Arc::clone(context),
        Arc::clone(admission),
        CancellationToken::new(),
    );
    let answers = runtime.block_on(async {
        let (mut reading, mut writing) = tokio::io::split(client);
        let asking = async {
            for chunk in data.chunks(usize::from(chunk_bytes).max(1)) {
                // A server that refused early has closed its side.
                if writing.write_all(chunk).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let _ = writing.shutdown().await;
        };
        let mut answers = Vec::new();
        let listening = async {
            let _ = reading.read_to_end(&mut answers).await;
        };
        tokio::join!(serving, asking, listening);
        answers
    });
    assert!(
        answers.is_empty() || answers.starts_with(b"HTTP/1."),
        "an answer that is not HTTP"
    );
    let broken = context.metrics.answers(StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(broken, 0, "an input is never answered 500");
    assert_eq!(context.metrics.connections.get(), 0);
    assert_eq!(context.memory.held_bytes(), 0);
}
