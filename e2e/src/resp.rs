//! The little of the Redis protocol that the clients need, with a limit on every wait.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::cache::Cache;

/// How long a client waits for an answer; well beyond the node's own limits for an operation.
pub(crate) const PATIENCE: Duration = Duration::from_millis(2_500);

/// How long it waits for a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// How a node begins its answer to a write that it refuses because it is apart from most of its cluster.
pub(crate) const READ_ONLY: &str = "READONLY";

/// Longest answer accepted.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Most parts of a list that are accepted.
const LIST_MAX: usize = 1_000;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `+OK` and the like.
    Simple(String),
    /// A number.
    Integer(i64),
    /// A value, or that there is none.
    Bulk(Option<Vec<u8>>),
    /// Several answers. What is a map in RESP3 comes as a list of its names and values.
    Array(Vec<Self>),
    /// The node refused.
    Error(String),
}

/// One connection. After an error it must not be used again: an answer may still be under way (C6).
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to a cache and authenticates; answers are waited for as long as `patience`.
    ///
    /// # Errors
    /// When the node cannot be reached, does not answer in time or refuses the token.
    pub(crate) fn open(
        address: SocketAddr,
        token: &str,
        cache: Cache,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut connection = Self {
            stream: BufReader::new(stream),
        };
        let database = cache.database();
        let begins: [&[&str]; 2] = [&["AUTH", token], &["SELECT", &database]];
        match connection.call(&begins)?.as_slice() {
            [Reply::Simple(_), Reply::Simple(_)] => Ok(connection),
            other => bail!("AUTH and SELECT: {other:?}"),
        }
    }

    /// Sends commands together and waits for their answers.
    ///
    /// # Errors
    /// When the connection breaks, an answer is late or is not RESP.
    pub(crate) fn call(&mut self, commands: &[&[&str]]) -> anyhow::Result<Vec<Reply>> {
        let mut bytes = String::new();
        for words in commands {
            bytes += &format!("*{}\r\n", words.len());
            for word in *words {
                bytes += &format!("${}\r\n{word}\r\n", word.len());
            }
        }
        self.stream.get_mut().write_all(bytes.as_bytes())?;
        commands.iter().map(|_| self.receive()).collect()
    }

    fn receive(&mut self) -> anyhow::Result<Reply> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let line = line.trim_end();
        let rest = line.get(1..).unwrap_or_default();
        Ok(match line.as_bytes().first() {
            Some(b'+') => Reply::Simple(rest.to_owned()),
            Some(b'-') => Reply::Error(rest.to_owned()),
            Some(b':') => Reply::Integer(rest.parse()?),
            Some(b'$') if rest == "-1" => Reply::Bulk(None),
            Some(b'$') => {
                let length: usize = rest.parse().context("length of a bulk")?;
                anyhow::ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Reply::Bulk(Some(bytes))
            }
            Some(b'*') => {
                let length: usize = rest.parse().context("length of a list")?;
                anyhow::ensure!(length <= LIST_MAX, "an answer of {length} parts");
                let parts: anyhow::Result<Vec<Reply>> =
                    (0..length).map(|_| self.receive()).collect();
                Reply::Array(parts?)
            }
            None => bail!("the connection was closed"),
            Some(_) => bail!("not RESP: {line:?}"),
        })
    }
}
