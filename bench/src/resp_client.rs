//! A small blocking Redis client: pipelines of commands, replies, nothing more.
//!
//! It fills servers, measures round trips and replays traces. It knows the reply kinds that the
//! measurements meet, and none of the parsing of the server under test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// Longest a server may take for one reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR ..`
    Error(String),
    /// `:7`
    Integer(i64),
    /// `$3 ..`
    Bulk(Vec<u8>),
    /// `$-1` or `_`
    Null,
    /// `*2 ..`
    Array(Vec<Self>),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
    out: Vec<u8>,
    line: Vec<u8>,
}

impl Client {
    /// Connects, with Nagle's algorithm off.
    ///
    /// # Errors
    /// When nobody listens there.
    pub(crate) fn connect(port: u16) -> anyhow::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Self {
            reader: BufReader::with_capacity(64 << 10, stream),
            out: Vec::with_capacity(64 << 10),
            line: Vec::new(),
        })
    }

    /// Appends a command to the pipeline; nothing is sent yet.
    pub(crate) fn queue(&mut self, words: &[&[u8]]) {
        encode(&mut self.out, words);
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.reader
            .get_mut()
            .write_all(&self.out)
            .context("sending")?;
        self.out.clear();
        Ok(())
    }

    /// Sends one command and waits for its reply.
    ///
    /// # Errors
    /// When the connection is broken; an error reply is a reply.
    pub(crate) fn call(&mut self, words: &[&[u8]]) -> anyhow::Result<Reply> {
        self.queue(words);
        self.flush()?;
        self.reply()
    }

    /// Waits for one reply.
    ///
    /// # Errors
    /// When the connection is broken or what arrives is no reply.
    pub(crate) fn reply(&mut self) -> anyhow::Result<Reply> {
        self.line.clear();
        self.reader
            .read_until(b'\n', &mut self.line)
            .context("reading a reply")?;
        let line = std::str::from_utf8(&self.line)
            .context("a reply line that is not text")?
            .trim_end_matches("\r\n");
        let Some(kind) = line.chars().next() else {
            bail!("the server closed the connection");
        };
        let rest = &line[kind.len_utf8()..];
        Ok(match kind {
            '+' => Reply::Simple(rest.to_owned()),
            '-' => Reply::Error(rest.to_owned()),
            ':' => Reply::Integer(rest.parse().context("an integer reply")?),
            '_' => Reply::Null,
            '$' => match usize::try_from(rest.parse::<i64>().context("a length")?) {
                Err(_) => Reply::Null,
                Ok(len) => {
                    let mut bytes = vec![0; len + 2];
                    self.reader
                        .read_exact(&mut bytes)
                        .context("reading a value")?;
                    bytes.truncate(len);
                    Reply::Bulk(bytes)
                }
            },
            '*' => match usize::try_from(rest.parse::<i64>().context("a length")?) {
                Err(_) => Reply::Null,
                Ok(len) => Reply::Array((0..len).map(|_| self.reply()).collect::<Result<_, _>>()?),
            },
            other => bail!("a reply of unknown kind {other:?}"),
        })
    }

    /// Sends one command and checks that its reply is no error.
    ///
    /// # Errors
    /// When the connection is broken or the server refuses.
    pub(crate) fn expect_ok(&mut self, words: &[&[u8]]) -> anyhow::Result<Reply> {
        match self.call(words)? {
            Reply::Error(error) => bail!("the server refused: {error}"),
            reply => Ok(reply),
        }
    }

    /// Sets `count` entries `key(i)` = `value`, in pipelines of [`FILL_PIPELINE`].
    ///
    /// # Errors
    /// When the connection breaks or the server refuses an entry.
    pub(crate) fn fill(
        &mut self,
        count: u64,
        key: impl Fn(u64) -> Vec<u8>,
        value: &[u8],
    ) -> anyhow::Result<()> {
        let mut next = 0;
        while next < count {
            let end = count.min(next + FILL_PIPELINE);
            for i in next..end {
                self.queue(&[b"SET", &key(i), value]);
            }
            self.flush()?;
            for _ in next..end {
                if let Reply::Error(error) = self.reply()? {
                    bail!("the server refused an entry: {error}");
                }
            }
            next = end;
        }
        Ok(())
    }
}

/// Commands sent before their replies are read, while filling.
const FILL_PIPELINE: u64 = 256;

/// Appends `words` as an array of bulk strings.
pub(crate) fn encode(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn replies_of_each_kind_are_read() -> anyhow::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let server = std::thread::spawn(move || -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.write_all(b"+OK\r\n-ERR no\r\n:7\r\n$3\r\na\nb\r\n$-1\r\n*2\r\n:1\r\n_\r\n")
        });
        let mut client = Client::connect(port)?;
        assert_eq!(client.reply()?, Reply::Simple("OK".to_owned()));
        assert_eq!(client.reply()?, Reply::Error("ERR no".to_owned()));
        assert_eq!(client.reply()?, Reply::Integer(7));
        assert_eq!(client.reply()?, Reply::Bulk(b"a\nb".to_vec()));
        assert_eq!(client.reply()?, Reply::Null);
        assert_eq!(
            client.reply()?,
            Reply::Array(vec![Reply::Integer(1), Reply::Null])
        );
        assert!(
            client.reply().is_err(),
            "the end of the connection is an error"
        );
        server
            .join()
            .map_err(|_| anyhow::anyhow!("the server panicked"))??;
        Ok(())
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut out = Vec::new();
        encode(&mut out, &[b"GET", b"k"]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }
}
