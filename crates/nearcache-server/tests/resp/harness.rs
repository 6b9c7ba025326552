//! A server for one test, and a client that speaks bytes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use nearcache::{Mode, Node, Raw, RawValue};
use nearcache_server::{
    auth::Credentials,
    limits::{ConnectionBudget, Limits, MemoryBudget},
    resp::{self, Context},
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Nothing here may take longer; most of it takes milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A running server; stopped when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) node: Node,
    stop: CancellationToken,
    serving: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
    runtime: Option<Runtime>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(Limits::default(), None)
    }

    pub(crate) fn with_limits(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        Self::with(limits, None)
    }

    pub(crate) fn with_password(password: &str) -> Self {
        Self::with(Limits::default(), Some(password))
    }

    pub(crate) fn with(limits: Limits, password: Option<&str>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let (address, node, serving) = runtime.block_on(async {
            let node = Node::builder("resp-tests")
                .listen("127.0.0.1:0")
                .start()
                .await
                .unwrap();
            let mut databases = Vec::new();
            for name in ["default", "second"] {
                let cache = node
                    .cache::<Vec<u8>, RawValue>(name)
                    .codec::<Raw>()
                    .mode(Mode::Local)
                    .allow_empty_key(true)
                    .max_bytes(256 << 20)
                    .open()
                    .await
                    .unwrap();
                databases.push(cache);
            }
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let metrics = resp::Metrics::register(&mut node.metrics().lock());
            let context = Context {
                databases,
                node: node.clone(),
                connections: ConnectionBudget::new(&limits),
                memory: MemoryBudget::new(&limits),
                limits: Arc::new(limits),
                auth: password.map(|password| Arc::new(Credentials::new(password.as_bytes()))),
                metrics,
                http_address: Some("127.0.0.1:8001".parse().unwrap()),
                threads: std::num::NonZeroUsize::new(1),
            };
            let serving = tokio::spawn(resp::serve(listener, Arc::new(context), stop.clone()));
            (address, node, serving)
        });
        Self {
            address,
            node,
            stop,
            serving: Some(serving),
            runtime: Some(runtime),
        }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// The sum of the samples of `metric` whose labels contain `label`.
    pub(crate) fn metric(&self, metric: &str, label: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.node.metrics().lock()).unwrap();
        let samples = text
            .lines()
            .filter(|line| line.starts_with(metric) && line.contains(label));
        samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Waits until `metric` has this value.
    pub(crate) fn wait_for_metric(&self, metric: &str, label: &str, wanted: u64) {
        let start = Instant::now();
        while self.metric(metric, label) != wanted {
            assert!(
                start.elapsed() < PATIENCE,
                "{metric} {label} is not {wanted}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops the server and waits for it; says how long that took.
    pub(crate) fn stop(&mut self) -> Duration {
        let start = Instant::now();
        self.stop.cancel();
        if let (Some(runtime), Some(serving)) = (&self.runtime, self.serving.take()) {
            runtime.block_on(serving).unwrap().unwrap();
        }
        start.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A connection that sends and reads bytes as they are.
pub(crate) struct Client {
    socket: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            received: Vec::new(),
        }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends bytes; that the server closed meanwhile is for the reading side to find out.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(bytes.as_ref());
    }

    /// Sends a request of these arguments and returns its whole reply, undecoded.
    pub(crate) fn ask<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        self.send(request(args));
        self.reply()
    }

    /// As [`Self::ask`], for a request and a reply of text.
    pub(crate) fn text(&mut self, command: &str) -> String {
        let args: Vec<&str> = command.split(' ').collect();
        String::from_utf8_lossy(&self.ask(&args)).into_owned()
    }

    /// The next reply, undecoded.
    pub(crate) fn reply(&mut self) -> Vec<u8> {
        loop {
            if let Some(len) = reply_len(&self.received) {
                return self.received.drain(..len).collect();
            }
            let mut chunk = [0; 16 << 10];
            let read = self
                .socket
                .read(&mut chunk)
                .expect("a reply before the timeout");
            assert!(
                read > 0,
                "closed within a reply, after {:?}",
                String::from_utf8_lossy(&self.received)
            );
            self.received.extend_from_slice(&chunk[..read]);
        }
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.received);
        let mut chunk = [0; 16 << 10];
        loop {
            match self.socket.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => rest.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("the connection was not closed: {error}"),
            }
        }
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// Encodes a request.
pub(crate) fn request<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The length of the first whole reply in `bytes`.
fn reply_len(bytes: &[u8]) -> Option<usize> {
    let line_end = bytes.windows(2).position(|end| end == b"\r\n")? + 2;
    let number = || {
        std::str::from_utf8(&bytes[1..line_end - 2])
            .ok()?
            .parse::<i64>()
            .ok()
    };
    let elements = match bytes[0] {
        b'$' | b'=' => {
            let len = match usize::try_from(number()?) {
                Ok(len) => line_end + len + 2,
                Err(_) => line_end,
            };
            return (bytes.len() >= len).then_some(len);
        }
        b'*' | b'~' | b'>' => number()?.max(0),
        b'%' => number()? * 2,
        _ => 0,
    };
    let mut len = line_end;
    for _ in 0..elements {
        len += reply_len(&bytes[len..])?;
    }
    Some(len)
}

/// Where a tool is, or `None` with a printed reason; fails if the set-up promised it.
pub(crate) fn tool(test: &str, name: &str) -> Option<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        skip(test, &format!("{name} is not installed"));
    }
    found
}

/// The Python that has redis-py, under the same rules as [`tool`].
pub(crate) fn python(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("XTASK_PYTHON").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/venv/bin/python"),
        PathBuf::from,
    );
    let has_redis = Command::new(&path)
        .args(["-c", "import redis"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !has_redis {
        skip(
            test,
            "no python with redis-py: run `cargo xtask test`, which installs it",
        );
    }
    has_redis.then_some(path)
}

fn skip(test: &str, why: &str) {
    assert_ne!(
        std::env::var("XTASK_TOOLS").as_deref(),
        Ok("required"),
        "{test}: {why}"
    );
    println!("skipped: {test}: {why}");
}
