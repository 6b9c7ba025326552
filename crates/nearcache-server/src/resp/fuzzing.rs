//! What the fuzz targets call: arbitrary bytes into the parser, and into a whole conversation.
//!
//! The oracles: no panic, the same meaning however the bytes are cut, no more memory than twice what
//! arrived and 64 KiB.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use nearcache::{Mode, Node, Raw, RawValue};
use tokio::runtime::Runtime;

use crate::limits::{ConnectionBudget, Limits, MemoryBudget};

use super::{
    Context, Metrics, Server,
    buffers::{BufferPool, Input},
    commands::Reply,
    conversation::{Conversation, Step},
    error::CommandError,
    parser::{Bounds, Parser, Progress, ProtocolError},
    session::Session,
    writer::{Protocol, Writer},
};

/// Parses `data` at once and in two parts cut where its first byte says, and compares.
///
/// # Panics
///
/// When the two differ: that is what a fuzz target is for.
pub fn resp_command(data: &[u8]) {
    let Some((&cut, data)) = data.split_first() else {
        return;
    };
    let (start, end) = data.split_at(usize::from(cut).min(data.len()));
    assert_eq!(parse([data, &[]]), parse([start, end]));
}

type Parsed = (Vec<Result<Vec<Vec<u8>>, usize>>, Option<ProtocolError>);

fn parse(chunks: [&[u8]; 2]) -> Parsed {
    let limits = Limits {
        value_bytes: 100,
        key_bytes: 100,
        inline_bytes: 200,
        ..Limits::default()
    };
    let bounds = Bounds::authenticated(&limits);
    let (mut parser, mut held, mut requests) = (Parser::default(), Vec::new(), Vec::new());
    for chunk in chunks {
        held.extend_from_slice(chunk);
        loop {
            match parser.parse(&held, &bounds) {
                Ok(Progress::Incomplete { discard }) => {
                    held.drain(..discard);
                    break;
                }
                Ok(Progress::Request { len }) => {
                    let args = parser.args(&held).from(0).map(<[u8]>::to_vec).collect();
                    requests.push(Ok(args));
                    held.drain(..len);
                }
                Ok(Progress::Oversized { len, longest }) => {
                    requests.push(Err(longest));
                    held.drain(..len);
                }
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

/// A node with one cache, for all runs of a fuzz target.
struct Fixture {
    runtime: Runtime,
    server: Arc<Server>,
}

static FIXTURE: LazyLock<Mutex<Option<Fixture>>> =
    LazyLock::new(|| Mutex::new(Fixture::start().ok()));

impl Fixture {
    fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let server = runtime.block_on(async {
            let node = Node::builder("fuzzing")
                .listen("127.0.0.1:0")
                .start()
                .await?;
            let cache = node.cache::<Vec<u8>, RawValue>("default").codec::<Raw>();
            let cache = cache.mode(Mode::Local).allow_empty_key(true).open().await?;
            let limits = Limits {
                value_bytes: 1_000,
                ..Limits::default()
            };
            let metrics = Metrics::register(&mut node.metrics().lock());
            let context = Context {
                databases: vec![cache],
                node,
                connections: ConnectionBudget::new(&limits),
                memory: MemoryBudget::new(&limits),
                limits: Arc::new(limits),
                auth: None,
                metrics,
                http_address: None,
                threads: None,
            };
            anyhow::Ok(Server::new(Arc::new(context), 0))
        })?;
        Ok(Self { runtime, server })
    }
}

/// Has `data` answered as one client's bytes, in chunks as long as its first byte says.
///
/// # Panics
///
/// When memory outgrows its bound; when the fixture cannot be started.
#[expect(
    clippy::expect_used,
    reason = "a fuzz target without its fixture is no fuzz target"
)]
pub fn resp_session(data: &[u8]) {
    let Some((&chunk_bytes, data)) = data.split_first() else {
        return;
    };
    let fixture = FIXTURE.lock().unwrap_or_else(PoisonError::into_inner);
    let Fixture { runtime, server } = fixture.as_ref().expect("a node on loopback");
    let client = server.clients.open(None, 1);
    let counters = server.context.metrics.add_thread();
    let session = Session::new(Arc::clone(server), Arc::clone(&client), counters);
    let mut conversation = Conversation::new(session.expect("database 0"));
    let mut buffers = BufferPool::default().take();
    let mut writer = Writer::new(Vec::new(), Protocol::default());
    for chunk in data.chunks(usize::from(chunk_bytes).max(1)) {
        buffers.input.extend(chunk);
        if !answer(&mut conversation, &mut buffers.input, &mut writer, runtime) {
            break;
        }
        assert!(buffers.input.capacity() <= 2 * data.len() + (64 << 10));
    }
    server.clients.forget(client.id);
}

/// Answers what there is; `false` once the connection would be closed.
fn answer(
    conversation: &mut Conversation,
    input: &mut Input,
    writer: &mut Writer,
    runtime: &Runtime,
) -> bool {
    loop {
        match conversation.advance(input, writer) {
            Step::NeedInput => {
                conversation.flushed();
                writer.clear();
                return true;
            }
            Step::Flush => {
                conversation.flushed();
                writer.clear();
            }
            Step::Wait(waiting) => {
                let answer: Result<Reply, CommandError> = runtime.block_on(waiting);
                if conversation.answer(answer, writer).is_some() {
                    return false;
                }
            }
            Step::Close(_) => return false,
        }
    }
}
