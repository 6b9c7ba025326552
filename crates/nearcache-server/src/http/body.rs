//! Reading a request's body: bounded in bytes before it is held, and in time.

use bytes::{Buf, Bytes};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use super::problem::Problem;
use crate::limits::{Limits, MemoryBudget, MemoryCharge, Pressure};

/// Largest body of a request that is not a value: lists of tags.
pub(super) const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// Reads a body of at most `max_bytes`, charging what is held to `memory`.
///
/// A declared length over the bound is refused before a byte is read, and so is any body while the
/// process holds all it may. A body that is slower than [`Limits::body_bytes_per_second`] over any
/// [`Limits::body_timeout`] is given up.
///
/// # Errors
/// 413 `ValueTooLarge`, 408 `BodyTooSlow`, 400 `BrokenBody` or 503 `Busy`; all but `Busy` close the
/// connection, because the rest of the body is still on it.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Incoming,
    max_bytes: usize,
    limits: &Limits,
    memory: &std::sync::Arc<MemoryBudget>,
) -> Result<Held, Problem> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| {
        value
            .to_str()
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    });
    let declared = declared.or_else(|| body.size_hint().exact());
    if declared.is_some_and(|bytes| bytes > max_bytes as u64) {
        return Err(too_large(max_bytes, declared));
    }
    if memory.pressure() == Pressure::Full {
        return Err(busy().closing());
    }
    let mut held = Held {
        bytes: Vec::new(),
        charge: MemoryCharge::new(memory),
    };
    let mut window = Window::new(limits);
    loop {
        let Ok(frame) = timeout_at(window.ends, body.frame()).await else {
            if window.roll(limits) {
                continue;
            }
            return Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "BodyTooSlow",
                format!(
                    "a body must arrive with {} bytes/s or more",
                    limits.body_bytes_per_second
                ),
            )
            .closing());
        };
        match frame {
            None => return Ok(held),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                if held.bytes.len() + data.remaining() > max_bytes {
                    return Err(too_large(max_bytes, None));
                }
                window.arrived += data.remaining() as u64;
                held.bytes.extend_from_slice(&data);
                held.charge.set(held.bytes.capacity());
            }
            Some(Err(_)) => {
                return Err(Problem::new(
                    StatusCode::BAD_REQUEST,
                    "BrokenBody",
                    "the body ended early or is not encoded as it says",
                )
                .closing());
            }
        }
    }
}

/// A body and what it is charged.
#[derive(Debug)]
pub(super) struct Held {
    bytes: Vec<u8>,
    charge: MemoryCharge,
}

impl Held {
    /// The bytes; the charge is returned, as from here on they belong to the cache or are dropped.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        drop(self.charge);
        self.bytes
    }
}

/// The answer when too much is held for clients already.
pub(super) fn busy() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "Busy",
        "too many bytes are in flight; try again",
    )
    .header(header::RETRY_AFTER, "1")
}

fn too_large(limit: usize, got: Option<u64>) -> Problem {
    let detail = match got {
        Some(got) => format!("a body of {got} bytes exceeds the limit of {limit}"),
        None => format!("the body exceeds the limit of {limit} bytes"),
    };
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "ValueTooLarge", detail)
        .exceeded(limit, got)
        .closing()
}

/// A stretch of time over which a body must have made its progress.
struct Window {
    ends: Instant,
    arrived: u64,
}

impl Window {
    fn new(limits: &Limits) -> Self {
        Self {
            ends: Instant::now() + limits.body_timeout,
            arrived: 0,
        }
    }

    /// Starts the next stretch if enough has arrived in this one.
    fn roll(&mut self, limits: &Limits) -> bool {
        let millis = u64::try_from(limits.body_timeout.as_millis()).unwrap_or(u64::MAX);
        let wanted = limits.body_bytes_per_second.saturating_mul(millis) / 1_000;
        let enough = self.arrived >= wanted.max(1);
        *self = Self::new(limits);
        enough
    }
}

/// Bytes of a value that the cache and the response share.
pub(super) fn shared(value: impl AsRef<[u8]> + Send + 'static) -> Bytes {
    Bytes::from_owner(value)
}
