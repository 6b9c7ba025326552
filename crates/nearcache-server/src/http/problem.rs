//! Errors as `application/problem+json` (RFC 9457): every refusal says what, why and what to do.

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::Body;

/// One refusal on its way to a client.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    headers: Vec<(header::HeaderName, String)>,
    limit: Option<u64>,
    got: Option<u64>,
    closes: bool,
}

/// The document; `type` is an identifier to compare with, not an address to visit.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    got: Option<u64>,
}

impl Problem {
    /// A refusal of this kind, for example `ValueTooLarge`; kinds are part of the interface.
    pub(super) fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            detail: detail.into(),
            headers: Vec::new(),
            limit: None,
            got: None,
            closes: false,
        }
    }

    /// Adds a header.
    pub(super) fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds both sides of the comparison that failed; `got` is absent where it is not known.
    pub(super) fn exceeded(mut self, limit: usize, got: Option<u64>) -> Self {
        self.limit = Some(limit as u64);
        self.got = got;
        self
    }

    /// Closes the connection after the answer: what follows on it cannot be trusted or is not wanted.
    pub(super) fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// The answer.
    pub(super) fn into_response(self) -> Response<Body> {
        let document = Document {
            r#type: format!("urn:nearcache:problem:{}", self.kind),
            title: self.kind,
            status: self.status.as_u16(),
            detail: &self.detail,
            limit: self.limit,
            got: self.got,
        };
        let mut text = serde_json::to_vec(&document).unwrap_or_default();
        text.push(b'\n');
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        if self.closes {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
