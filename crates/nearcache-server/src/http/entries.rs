//! One entry: `GET`, `HEAD`, `PUT`, `DELETE /v1/caches/{cache}/entries/{key}`.
//!
//! ```text
//! GET     store, or a peer while this node is being filled ── 200, 304 or 404
//! PUT     no precondition: written here, on its way to the peers ── 204
//!         If-Match / If-None-Match: decided at the key's home node ── 204 or 412
//! DELETE  likewise ── 204, 404 or 412
//! ```

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use nearcache::{
    Ack, Condition, Modified, Modify, ModifyError, PutOptions, Raw, RawValue, Version,
};

use super::problem::Problem;
use super::version_tag::{self, Precondition};
use super::{Body, Context, body, lifetime, refusal};
use crate::caches::RawCache;
use crate::limits::Pressure;

/// What a write asks for beside its value.
#[derive(Debug, Default)]
struct Wishes {
    ttl: Option<Vec<u8>>,
    tags: Vec<Vec<u8>>,
    ack: Ack,
}

/// Answers `GET` and `HEAD`; hyper leaves the body out for the latter.
pub(super) async fn get(
    context: &Context,
    cache: &RawCache,
    key: &[u8],
    headers: &HeaderMap,
) -> Result<Response<Body>, Problem> {
    check_key(cache, key)?;
    if context.memory.pressure() >= Pressure::Shed {
        return Err(body::busy());
    }
    let Some(value) = cache.get(key).await.map_err(refusal::of_read)? else {
        return Err(refusal::no_entry());
    };
    let version = value.version();
    let mut response = Response::new(Body::default());
    let headers_out = response.headers_mut();
    headers_out.insert(header::ETAG, tag_value(version));
    let expiry = value.expiry();
    lifetime::announce(
        headers_out,
        version.time.millis(),
        (!expiry.is_never()).then(|| expiry.as_millis()),
        context.node.clock().now_ms(),
    );
    if version_tag::reader_has(headers, version) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    headers_out.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    *response.body_mut() = Body::new(body::shared(SharedValue(value)));
    Ok(response)
}

/// Answers `PUT`.
pub(super) async fn put(
    context: &Context,
    cache: &RawCache,
    key: &[u8],
    query: &str,
    headers: &HeaderMap,
    incoming: Incoming,
) -> Result<Response<Body>, Problem> {
    check_key(cache, key)?;
    let wishes = wishes(query)?;
    let ttl = lifetime::requested(headers, wishes.ttl.as_deref())
        .map_err(|error| refusal::invalid_ttl(&error.given))?;
    let precondition = precondition(headers)?;
    let limit = cache.max_value_bytes().min(context.limits.value_bytes);
    let value = body::read(headers, incoming, limit, &context.limits, &context.memory).await?;
    let value = RawValue::from(value.into_bytes());
    let condition = match precondition {
        Precondition::None => {
            let mut options = PutOptions::new().tags(&wishes.tags).ack(wishes.ack);
            if let Some(ttl) = ttl {
                options = options.ttl(ttl);
            }
            let version = cache
                .put_with(key, value, options)
                .await
                .map_err(refusal::of_write)?;
            return Ok(written(Some(version)));
        }
        Precondition::Is(version) => Condition::IfVersion(version),
        Precondition::Exists => Condition::IfPresent,
        Precondition::Missing => Condition::IfAbsent,
        Precondition::Impossible => return Err(refusal::precondition_failed(None)),
    };
    let mut change = Modify::set(value).only_if(condition).tags(&wishes.tags);
    if let Some(ttl) = ttl {
        change = change.ttl(ttl);
    }
    decided(cache.modify(key, change).await)
}

/// Answers `DELETE`.
pub(super) async fn delete(
    cache: &RawCache,
    key: &[u8],
    headers: &HeaderMap,
) -> Result<Response<Body>, Problem> {
    check_key(cache, key)?;
    let condition = match precondition(headers)? {
        Precondition::None => {
            let was_here = cache.remove(key).await.map_err(refusal::of_write)?;
            return if was_here {
                Ok(written(None))
            } else {
                Err(refusal::no_entry())
            };
        }
        Precondition::Is(version) => Condition::IfVersion(version),
        Precondition::Exists => Condition::IfPresent,
        Precondition::Missing | Precondition::Impossible => {
            return Err(refusal::precondition_failed(None));
        }
    };
    decided(cache.modify(key, Modify::remove().only_if(condition)).await)
}

fn decided(
    outcome: Result<Modified<RawValue, Raw>, ModifyError>,
) -> Result<Response<Body>, Problem> {
    let modified = outcome.map_err(refusal::of_modify)?;
    let version = modified.current.as_ref().map(nearcache::Cached::version);
    if modified.applied {
        Ok(written(version))
    } else {
        Err(refusal::precondition_failed(version.map(version_tag::tag)))
    }
}

fn written(version: Option<Version>) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Some(version) = version {
        response
            .headers_mut()
            .insert(header::ETAG, tag_value(version));
    }
    response
}

fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    version_tag::precondition(headers).map_err(|version_tag::Unsupported| {
        refusal::bad_request(
            "UnsupportedPrecondition",
            "a write takes one of: If-Match with one entity tag, If-Match: *, If-None-Match: *",
        )
    })
}

/// Refuses a key before its value is read. RESP takes the empty key as Redis does; HTTP does not, where a
/// missing key is more likely a slip.
fn check_key(cache: &RawCache, key: &[u8]) -> Result<(), Problem> {
    let limit = cache.max_key_bytes();
    if key.is_empty() {
        return Err(refusal::empty_key());
    }
    if key.len() > limit {
        Err(refusal::key_too_long(key.len(), limit))
    } else {
        Ok(())
    }
}

fn wishes(query: &str) -> Result<Wishes, Problem> {
    let mut wishes = Wishes::default();
    for (name, value) in super::path::query_pairs(query).ok_or_else(refusal::broken_encoding)? {
        match name.as_str() {
            "ttl" => wishes.ttl = Some(value),
            "tag" => wishes.tags.push(value),
            "ack" => wishes.ack = ack(&value)?,
            _ => {
                return Err(refusal::bad_request(
                    "UnknownParameter",
                    "a write takes the parameters ttl, tag and ack",
                ));
            }
        }
    }
    Ok(wishes)
}

fn ack(value: &[u8]) -> Result<Ack, Problem> {
    match value {
        b"local" => Ok(Ack::Local),
        b"all" => Ok(Ack::All),
        _ => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok())
            .map(Ack::Peers)
            .ok_or_else(|| {
                refusal::bad_request("InvalidAck", "ack is `local`, `all` or a number of peers")
            }),
    }
}

fn tag_value(version: Version) -> HeaderValue {
    HeaderValue::try_from(version_tag::tag(version)).unwrap_or(HeaderValue::from_static("\"\""))
}

/// A value read from the cache, as bytes to be sent without copying them.
struct SharedValue(nearcache::Cached<RawValue, Raw>);

impl AsRef<[u8]> for SharedValue {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
