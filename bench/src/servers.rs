//! Server processes to measure: real Redis, and the release build of `nearcache serve`.
//!
//! Each listens on a free loopback port, keeps its files in a folder of its own and ends when it
//! is dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::coherence::SlowLink;
use crate::cpu;
use crate::resp_client::{Client, Reply};

/// Longest a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A server process that speaks the Redis protocol.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Server {
    /// Starts Redis without persistence; `extra` are further arguments, such as a replica's.
    ///
    /// # Errors
    /// When Redis is not installed or does not answer.
    pub(crate) fn redis(extra: &[&str]) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command.args(extra);
        Self::start(command, "redis", port)
    }

    /// Starts `nearcache serve` with the configuration `toml`, which must make it listen for the
    /// Redis protocol on `port`.
    ///
    /// # Errors
    /// When it is not built or does not answer.
    pub(crate) fn nearcache(port: u16, toml: &str) -> anyhow::Result<Self> {
        let folder = own_folder("nearcache", port)?;
        let config = folder.join("nearcache.toml");
        std::fs::write(&config, toml).with_context(|| format!("writing {}", config.display()))?;
        let mut command = Command::new(nearcache_binary()?);
        command.arg("serve").arg("--config").arg(&config);
        Self::start(command, "nearcache", port)
    }

    /// Starts `nearcache serve` inside `link`; it is not asked whether it answers, because it cannot be reached from here.
    ///
    /// # Errors
    /// When it is not built.
    pub(crate) fn nearcache_behind(link: &SlowLink, port: u16, toml: &str) -> anyhow::Result<Self> {
        let folder = own_folder("nearcache", port)?;
        let config = folder.join("nearcache.toml");
        std::fs::write(&config, toml).with_context(|| format!("writing {}", config.display()))?;
        let mut command = link.inside(nearcache_binary()?);
        command.arg("serve").arg("--config").arg(&config);
        Self::spawn(command, "nearcache", port)
    }

    fn start(command: Command, name: &str, port: u16) -> anyhow::Result<Self> {
        let mut server = Self::spawn(command, name, port)?;
        server.wait_until_it_answers()?;
        Ok(server)
    }

    fn spawn(mut command: Command, name: &str, port: u16) -> anyhow::Result<Self> {
        let folder = own_folder(name, port)?;
        let log = std::fs::File::create(folder.join("log")).context("making a log file")?;
        command
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing the log file")?)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().to_string_lossy()))?;
        Ok(Self {
            child,
            port,
            folder,
        })
    }

    fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            if let Ok(mut client) = Client::connect(self.port)
                && let Ok(Reply::Simple(_)) = client.call(&[b"PING"])
            {
                return Ok(());
            }
            let ended = self
                .child
                .try_wait()
                .context("asking for the server's state")?;
            if ended.is_some() || started.elapsed() > START_TIMEOUT {
                let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                bail!("the server does not answer on port {}:\n{log}", self.port);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Stops the process where it is, as `SIGSTOP` does, or has it go on.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn pause(&self, paused: bool) -> anyhow::Result<()> {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(
            pid.context("a process without a number")?,
            signal,
        )?)
    }

    /// CPU time it has used, user and system.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu::of_process(self.child.id())
    }

    /// Memory of it that is in RAM, in bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        let kib: u64 = kib.and_then(|kib| kib.parse().ok()).with_context(|| path)?;
        Ok(kib * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Version of the Redis that is measured, for the notes.
pub(crate) fn redis_version() -> String {
    let output = Command::new("redis-server").arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let version = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="));
    format!("Redis {}", version.unwrap_or("of unknown version"))
}

/// A loopback port that was free a moment ago.
///
/// # Errors
/// When the system has none.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// The server built beside this program.
fn nearcache_binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    let path = own.parent().unwrap_or(Path::new(".")).join("nearcache");
    ensure!(
        path.is_file(),
        "{} is not built: use `cargo xtask bench`",
        path.display()
    );
    Ok(path)
}

fn own_folder(name: &str, port: u16) -> anyhow::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("nearcache-bench-{name}-{port}"));
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}
