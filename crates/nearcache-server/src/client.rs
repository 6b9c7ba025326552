//! A request to a node over HTTP, with every wait bounded.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::auth::Credentials;
use crate::failure::{Failure, chain};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole request may take; the node's own limits are shorter.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer accepted: beyond the largest value a node can be configured to take.
const ANSWER_BYTES_MAX: usize = 80 << 20;

/// Asks one node.
#[derive(Debug)]
pub(crate) struct Client {
    base: String,
    authority: String,
    address: String,
    credentials: Option<Credentials>,
}

/// What is asked.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            body: Vec::new(),
        }
    }
}

/// What the node answered.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether it is a problem of this kind.
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.problem("title").as_deref() == Some(kind)
    }

    /// The problem as a line for the user; what the node says is shown without control characters.
    pub(crate) fn failure(&self) -> Failure {
        let line = match (self.problem("title"), self.problem("detail")) {
            (Some(title), Some(detail)) => format!("{title}: {detail}"),
            _ => format!("the node answered {}", self.status),
        };
        Failure::failed(line.chars().filter(|c| !c.is_control()).collect::<String>())
    }

    fn problem(&self, field: &str) -> Option<String> {
        let document: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        document.get(field)?.as_str().map(str::to_owned)
    }
}

impl Client {
    /// Prepares to ask the node at `url`.
    ///
    /// # Errors
    /// When the address is none, or the token file cannot be used.
    pub(crate) fn new(url: &str, token_file: Option<&Path>) -> Result<Self, Failure> {
        let wrong = |reason: &str| {
            Failure::misuse(format!(
                "--url {url}: {reason}; write for example http://127.0.0.1:8001"
            ))
        };
        let uri: Uri = url.parse().map_err(|_| wrong("not an address"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(wrong("TLS for clients is not in this version")),
            _ => return Err(wrong("must begin with http://")),
        }
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("must not contain a password; use --token-file"));
        }
        let credentials = match token_file {
            Some(path) => Some(Credentials::from_file(path).map_err(Failure::misuse)?),
            None => None,
        };
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self {
            base: uri.path().trim_end_matches('/').to_owned(),
            address: format!("{}:{port}", authority.host()),
            authority: authority.to_string(),
            credentials,
        })
    }

    /// Sends one request over a connection of its own.
    ///
    /// # Errors
    /// When the node cannot be reached or does not answer in time; any answer is a success here.
    pub(crate) async fn send(&self, request: Request) -> Result<Response, Failure> {
        match timeout(REQUEST_TIMEOUT, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::failed(format!("{} does not answer", self.address))),
        }
    }

    async fn exchange(&self, request: Request) -> Result<Response, Failure> {
        let unreachable = |reason: String| {
            Failure::failed(format!(
                "cannot reach {}: {reason}; is the node running?",
                self.address
            ))
        };
        let socket = timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.address))
            .await
            .map_err(|_| unreachable("no answer".to_owned()))?
            .map_err(|error| unreachable(error.to_string()))?;
        let broken = |error: &dyn std::error::Error| {
            Failure::failed(format!(
                "{} ended the exchange: {}",
                self.address,
                chain(error)
            ))
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|e| broken(&e))?;
        let driver = tokio::spawn(connection);
        let mut builder = http::Request::builder()
            .method(request.method)
            .uri(format!("{}{}", self.base, request.path))
            .header(header::HOST, &self.authority)
            .header(
                header::USER_AGENT,
                concat!("nearcache/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(credentials) = &self.credentials {
            let mut value = b"Bearer ".to_vec();
            value.extend_from_slice(credentials.expose());
            builder = builder.header(header::AUTHORIZATION, value);
        }
        let request = builder
            .body(Full::new(Bytes::from(request.body)))
            .map_err(|error| Failure::misuse(format!("cannot be asked over HTTP: {error}")))?;
        let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| Failure::failed(format!("{}: {error}", self.address)))?;
        driver.abort();
        Ok(Response {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}
