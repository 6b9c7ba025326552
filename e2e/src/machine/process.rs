//! A real `nearcache serve` in its namespace: started, stopped, continued, killed, its wall clock moved.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::command;
use super::network::Network;
use crate::cache::Cache;

/// How long a process may take until it answers, and until it has left in order.
const PATIENCE: Duration = Duration::from_secs(20);

/// What all nodes of a run share.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The server.
    pub(crate) binary: PathBuf,
    /// Where logs and clocks lie.
    pub(crate) folder: PathBuf,
    /// The file with the clients' token.
    pub(crate) token_file: PathBuf,
    /// The library that moves clocks.
    pub(crate) clock: Option<PathBuf>,
    /// The namespaces.
    pub(crate) network: Network,
}

impl Setup {
    /// Has the server make certificates and a secret for its nodes.
    ///
    /// # Errors
    /// When it cannot.
    pub(crate) fn make_certificates(&self) -> anyhow::Result<()> {
        let (binary, into) = (
            self.binary.to_string_lossy(),
            self.certificates().to_string_lossy().into_owned(),
        );
        let names: Vec<String> = (0..self.network.nodes())
            .map(|node| format!("node-{}", node + 1))
            .collect();
        let mut words: Vec<&str> = vec![&binary, "certs", "--dir", &into];
        words.extend(names.iter().map(String::as_str));
        command::run(&words).map(|_| ())
    }

    /// Writes what the configurations of all nodes have in common.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_configuration(&self) -> anyhow::Result<()> {
        let file = self.configuration();
        std::fs::write(&file, Cache::configuration()).with_context(|| file.display().to_string())
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("nearcache.toml")
    }

    fn certificates(&self) -> PathBuf {
        self.folder.join("certs")
    }
}

/// One node's process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    setup: Setup,
    node: usize,
    child: Option<Child>,
}

impl Process {
    /// A node that does not run yet.
    ///
    /// # Errors
    /// When its clock cannot be set.
    pub(crate) fn new(setup: &Setup, node: usize) -> anyhow::Result<Self> {
        let process = Self {
            setup: setup.clone(),
            node,
            child: None,
        };
        process.set_clock(0)?;
        Ok(process)
    }

    /// Starts it; returns when the process exists.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let (setup, node) = (&self.setup, self.node);
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &setup.network.node(node)])
            .arg(&setup.binary)
            .args(["serve", "--name", &format!("node-{}", node + 1)])
            .args(["--resp-listen", &Network::client_address(node).to_string()])
            .args(["--peer-listen", &Network::peer_address(node).to_string()])
            .args(["--http-listen", &Network::http_address(node).to_string()])
            .arg("--config")
            .arg(setup.configuration())
            .args(["--set", "auth.allow_plaintext=true"])
            .arg("--set")
            .arg(format!("auth.token_file={}", setup.token_file.display()));
        command.args(self.peer_security());
        for peer in (0..setup.network.nodes()).filter(|peer| *peer != node) {
            command.args(["--join", &Network::peer_address(peer).to_string()]);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("NEARCACHE_") {
                command.env_remove(name);
            }
        }
        if let Some(library) = &setup.clock {
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", self.clock_file())
                .env("FAKETIME_CACHE_DURATION", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("DONT_FAKE_MONOTONIC", "1");
        }
        let log = self.log()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting a node")?;
        self.child = Some(child);
        Ok(())
    }

    /// Settings by which peers prove who they are.
    fn peer_security(&self) -> Vec<String> {
        let folder = self.setup.certificates();
        let name = format!("node-{}", self.node + 1);
        let files = [
            ("certificate_file", format!("{name}.pem")),
            ("key_file", format!("{name}.key")),
            ("ca_file", "ca.pem".to_owned()),
            ("secret_file", "secret".to_owned()),
        ];
        files
            .into_iter()
            .flat_map(|(setting, file)| {
                let path = folder.join(file);
                [
                    "--set".to_owned(),
                    format!("peers.tls.{setting}={}", path.display()),
                ]
            })
            .collect()
    }

    /// Ends it at once, whether stopped or not.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to leave and waits until it has.
    ///
    /// # Errors
    /// When it does not, or not with success.
    pub(crate) fn leave(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        command::signal("TERM", child.id())?;
        let asked = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                anyhow::ensure!(status.success(), "node {} left with {status}", self.node);
                return Ok(());
            }
            if asked.elapsed() > PATIENCE {
                let _ = child.kill();
                bail!("node {} did not leave within {PATIENCE:?}", self.node);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it where it is.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        self.signal("STOP")
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn go_on(&self) -> anyhow::Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> anyhow::Result<()> {
        match &self.child {
            Some(child) => command::signal(name, child.id()),
            None => Ok(()),
        }
    }

    /// Whether it ended although nobody asked for it.
    ///
    /// # Errors
    /// When the system does not say.
    pub(crate) fn has_crashed(&mut self) -> anyhow::Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?.is_some()),
            None => Ok(false),
        }
    }

    /// Moves its wall clock to `seconds` from the real one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn set_clock(&self, seconds: i64) -> anyhow::Result<()> {
        let file = self.clock_file();
        let written = file.with_extension("new");
        std::fs::write(&written, format!("{seconds:+}\n"))?;
        std::fs::rename(&written, &file).with_context(|| file.display().to_string())
    }

    fn clock_file(&self) -> PathBuf {
        self.setup.folder.join(format!("clock-{}", self.node + 1))
    }

    fn log(&self) -> anyhow::Result<File> {
        let path = log_file(&self.setup.folder, self.node);
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| path.display().to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Where a node's log lies.
pub(crate) fn log_file(folder: &Path, node: usize) -> PathBuf {
    folder.join(format!("node-{}.log", node + 1))
}
