//! A PostgreSQL server in a folder of its own, which ends with the process that started it.
//!
//! `initdb` makes a database in a temporary folder, and the server listens on a socket in it and nowhere else. As root, whom
//! PostgreSQL refuses, both run as the user `postgres`, or `nobody`. A shell stands in between: it waits for the end of
//! its input and then ends the server, so that none is left however the tests end.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

/// Any error, in a form that a loader may fail with.
pub(crate) type AnyError = Box<dyn Error + Send + Sync>;

/// How long the server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a server until its input ends.
const GUARD: &str = r#""$@" & server=$!; read -r _; kill -INT $server; wait $server"#;

/// A server and its data.
pub(crate) struct Server {
    /// Gone when this is dropped, after the server has ended.
    folder: TempDir,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    guard: Option<Child>,
}

impl Server {
    /// A server with an empty database, or `None` where PostgreSQL is not installed.
    pub(crate) async fn start() -> Result<Option<Self>, AnyError> {
        let Some(programs) = programs() else {
            return Ok(None);
        };
        let folder = tempfile::Builder::new().prefix("nearcache-pg-").tempdir()?;
        let user = if geteuid().is_root() {
            let user = unprivileged()?;
            chown(folder.path(), Some(user.0), Some(user.1))?;
            Some(user)
        } else {
            None
        };
        let mut server = Self {
            folder,
            programs,
            user,
            guard: None,
        };
        let mut made = server.command(&server.programs.join("initdb"));
        made.args(["-U", "nearcache", "-A", "trust", "-E", "UTF8"])
            .args(["--locale=C", "--no-sync", "-D"])
            .arg(server.data());
        let made = made.output()?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            return Err(format!("initdb failed: {said}").into());
        }
        server.resume().await?;
        Ok(Some(server))
    }

    /// Starts the server again on the data that it had.
    pub(crate) async fn resume(&mut self) -> Result<(), AnyError> {
        self.stop()?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))?;
        let mut command = self.command(Path::new("sh"));
        command
            .args(["-c", GUARD, "guard"])
            .arg(self.programs.join("postgres"))
            // It survives its own end, not the machine's.
            .args(["-F", "-c", "listen_addresses=", "-c", "shared_buffers=16MB"])
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.guard = Some(command.spawn()?);
        let started = Instant::now();
        while let Err(error) = self.connect().await {
            if started.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.folder.path().join("log"))?;
                return Err(format!("the server does not answer: {error}\n{log}").into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Ends the server; its data stay. Its clients lose their connections.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        let Some(mut guard) = self.guard.take() else {
            return Ok(());
        };
        drop(guard.stdin.take());
        let asked = Instant::now();
        let mut insisted = false;
        while guard.try_wait()?.is_none() {
            if asked.elapsed() > PATIENCE {
                guard.kill()?;
                guard.wait()?;
                return Err(io::Error::other("the server does not end"));
            }
            if !insisted && asked.elapsed() > PATIENCE / 2 {
                insisted = true;
                if let Some(pid) = self.pid() {
                    kill_process(pid, Signal::QUIT)?;
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// How the server is reached.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new();
        config
            .host_path(self.folder.path())
            .user("nearcache")
            .dbname("postgres");
        config
    }

    /// A connection, served by a task of this runtime.
    pub(crate) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        connect(&self.config()).await
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The process that wrote its number into the data folder when it started.
    fn pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        Pid::from_raw(text.lines().next()?.trim().parse().ok()?)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.stop();
    }
}

/// A connection, served by a task of this runtime.
pub(crate) async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The folder with the server's programs: Debian keeps them off the search path, by version; others do not.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let mut folders: Vec<PathBuf> = versions
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    folders.sort();
    folders.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    let has = |folder: &Path, program: &str| folder.join(program).is_file();
    folders
        .into_iter()
        .find(|folder| has(folder, "initdb") && has(folder, "postgres"))
}

/// User and group that the server runs as instead of root.
fn unprivileged() -> Result<(u32, u32), AnyError> {
    let users = std::fs::read_to_string("/etc/passwd")?;
    for name in ["postgres", "nobody"] {
        for line in users.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [user, _, id, group, ..] = fields.as_slice()
                && *user == name
            {
                return Ok((id.parse()?, group.parse()?));
            }
        }
    }
    Err("PostgreSQL does not run as root, and there is no user postgres or nobody".into())
}
