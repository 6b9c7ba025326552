//! Running the binary, asking it over plain sockets, and ending it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// No single step of a test may take longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The binary under test, without the settings of whoever runs the tests.
pub(crate) fn nearcache() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nearcache"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NEARCACHE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// What a command that ended said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary to its end.
pub(crate) fn run(args: &[&str]) -> Ended {
    run_command(nearcache().args(args))
}

/// Runs a command to its end; one that does not end fails the test.
pub(crate) fn run_command(command: &mut Command) -> Ended {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = std::thread::spawn(move || read_all(&mut stdout));
    let err = std::thread::spawn(move || read_all(&mut stderr));
    let status = wait(&mut child, 4 * PATIENCE);
    Ended {
        code: status.code(),
        stdout: out.join().unwrap(),
        stderr: err.join().unwrap(),
    }
}

/// Asserts the shape of every mistake: nothing on standard output, one line on standard error that
/// says all of `parts`, exit code 2.
pub(crate) fn assert_one_line(ended: &Ended, parts: &[&str]) {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(ended.stdout, "", "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(ended.stderr.starts_with("nearcache: "), "{ended:?}");
    for part in parts {
        assert!(ended.stderr.contains(part), "{part:?} is not in {ended:?}");
    }
}

/// A running `nearcache serve`.
#[derive(Debug)]
pub(crate) struct Serve {
    child: Child,
    pub(crate) resp: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) peers: SocketAddr,
    directory: tempfile::TempDir,
}

impl Serve {
    /// Starts a node on ports the system chooses and waits until clients can connect.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_as(nearcache(), args)
    }

    /// As [`Serve::start`], where `command` runs the binary with whatever is added to it.
    pub(crate) fn start_as(mut command: Command, args: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("addresses");
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let any = "127.0.0.1:0";
        let child = command
            .args([
                "serve",
                "--resp-listen",
                any,
                "--http-listen",
                any,
                "--peer-listen",
                any,
            ])
            .arg("--addresses")
            .arg(&file)
            .args(args)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        // Held from here on, so that a test that fails below does not leave the process behind.
        let mut serve = Self {
            child,
            resp: ([127, 0, 0, 1], 0).into(),
            http: ([127, 0, 0, 1], 0).into(),
            peers: ([127, 0, 0, 1], 0).into(),
            directory,
        };
        let text = until(|| {
            std::fs::read_to_string(&file).ok().or_else(|| {
                let ended = serve.child.try_wait().unwrap();
                assert!(ended.is_none(), "the server ended: {}", serve.log());
                None
            })
        });
        let addresses: serde_json::Value = serde_json::from_str(&text).unwrap();
        let address = |name: &str| addresses[name].as_str().unwrap().parse().unwrap();
        serve.resp = address("resp");
        serve.http = address("http");
        serve.peers = address("peers");
        serve
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.pid());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for the process to end by itself.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        wait(&mut self.child, PATIENCE).code()
    }

    /// Sends `request` as it is over a connection of its own and reads until it is closed.
    pub(crate) fn raw(&self, request: &[u8]) -> String {
        let mut socket = connect(self.http);
        // A server that refuses early may have closed its side already.
        let _ = socket.write_all(request);
        read_all(&mut socket)
    }

    /// A request with `Host` and `Connection: close`, and whatever else is in `headers`.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        if !body.is_empty() || method == "PUT" || method == "POST" {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        request += headers;
        request += "\r\n";
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        Answer::parse(&self.raw(&bytes))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "", b"")
    }

    pub(crate) fn put(&self, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.request("PUT", path, headers, body)
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of the server:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP answer whose body is text.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Self {
            status: status.unwrap_or_else(|| panic!("no answer in {text:?}")),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// A header by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Asserts that it is a problem of this status and kind.
    pub(crate) fn assert_problem(&self, status: u16, kind: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        assert_eq!(self.json()["title"], kind, "{self:?}");
        assert_eq!(self.json()["status"], status, "{self:?}");
    }
}

/// A socket that never waits longer than a test may.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Everything until the end of the stream, or until the connection breaks.
pub(crate) fn read_all(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&bytes).into_owned(),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Asks again and again until there is an answer.
pub(crate) fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "nothing for {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file with `text` in a directory that goes when the test ends.
pub(crate) fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    (directory, path)
}

/// Whether a tool of the machine can be used; where the harness says that all are there, it must be.
pub(crate) fn has_tool(tool: &str, test: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        assert_ne!(
            std::env::var("XTASK_TOOLS").as_deref(),
            Ok("required"),
            "{tool} is missing"
        );
        println!("skipped: {test}: {tool} is not installed");
    }
    found
}

/// Runs a tool that must succeed and gives what it wrote.
pub(crate) fn tool(tool: &str, args: &[&str]) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(tool).args(args).output().unwrap();
    assert!(
        status.success(),
        "{tool} {args:?}: {}",
        String::from_utf8_lossy(&stderr)
    );
    String::from_utf8_lossy(&stdout).into_owned()
}

fn wait(child: &mut Child, patience: Duration) -> std::process::ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > patience {
            let _ = child.kill();
            panic!("the process did not end within {patience:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
