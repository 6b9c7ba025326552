//! One entry: `GET`, `HEAD`, `PUT`, `DELETE /v1/caches/{cache}/entries/{key}`.
//!
//! ```text
//! GET     store, or a peer while this node is being filled ── 200, 304 or 404
//!         Cache-Control: peers are asked if this node is too far behind ── or 504
//! PUT     no precondition: written here, on its way to the peers ── 204
//!         If-Match / If-None-Match: decided at the key's home node ── 204 or 412
//!         fill: kept here unless the key was invalidated since the token was given ── 204 or 409
//! DELETE  likewise ── 204, 404 or 412
//! ```

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use nearcache::{
    Ack, Cached, Condition, FillToken, Lookup, Modified, Modify, ModifyError, PutOptions, Raw,
    RawValue, Version, age_ms,
};

use super::demand::{self, Demand};
use super::problem::Problem;
use super::version_tag::{self, Precondition};
use super::{Body, Context, body, lifetime, refusal};
use crate::caches::RawCache;
use crate::limits::Pressure;

/// How far the answer may be behind the other nodes, in milliseconds; absent when it is not known.
const BEHIND: HeaderName = HeaderName::from_static("nearcache-behind-ms");
/// What a client that loads a missing value must bring back with it.
const FILL_TOKEN: HeaderName = HeaderName::from_static("nearcache-fill-token");

/// What a write asks for beside its value.
#[derive(Debug, Default)]
struct Wishes {
    ttl: Option<Vec<u8>>,
    tags: Vec<Vec<u8>>,
    ack: Option<Ack>,
    fill: Option<FillToken>,
}

/// Answers `GET` and `HEAD`; hyper leaves the body out for the latter.
pub(super) async fn get(
    context: &Context,
    cache: &RawCache,
    key: &[u8],
    query: &str,
    headers: &HeaderMap,
) -> Result<Response<Body>, Problem> {
    check_key(cache, key)?;
    let demand = demand::of(headers).map_err(|error| refusal::invalid_demand(&error.given))?;
    if context.memory.pressure() >= Pressure::Shed {
        return Err(body::busy());
    }
    // Before the read: what is read is no further behind than this.
    let age = cache.age();
    let Some(value) = read(cache, key, demand).await? else {
        return Err(missing(cache, key, query));
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
    if let Some(age) = age {
        headers_out.insert(BEHIND, HeaderValue::from(age_ms(age)));
    }
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

/// The entry, if it is as fresh as was demanded.
async fn read(
    cache: &RawCache,
    key: &[u8],
    demand: Demand,
) -> Result<Option<Cached<RawValue, Raw>>, Problem> {
    let Some(age_max) = demand.age_max else {
        return cache.get(key).await.map_err(refusal::of_read);
    };
    let found = if demand.only_if_cached {
        cache.try_get_fresh(key, age_max)
    } else {
        cache.lookup_fresh(key, age_max).await
    };
    match found.map_err(refusal::of_read)? {
        Lookup::Hit(value) => Ok(Some(value)),
        Lookup::Miss => Ok(None),
        Lookup::Ask => Err(refusal::not_fresh(cache.age())),
    }
}

/// There is no such entry; with `?fill`, here is what to bring back with the value that is loaded now.
fn missing(cache: &RawCache, key: &[u8], query: &str) -> Problem {
    let problem = refusal::no_entry();
    let wants_token = query
        .split('&')
        .any(|pair| pair.split('=').next() == Some("fill"));
    match cache.begin_fill(key) {
        Ok(fill) if wants_token => problem.header(FILL_TOKEN, fill.token().to_string()),
        _ => problem,
    }
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
    if wishes.fill.is_some() && (precondition != Precondition::None || wishes.ack.is_some()) {
        return Err(refusal::invalid_fill_token());
    }
    let limit = cache.max_value_bytes().min(context.limits.value_bytes);
    let value = body::read(headers, incoming, limit, &context.limits, &context.memory).await?;
    let value = RawValue::from(value.into_bytes());
    let condition = match precondition {
        Precondition::None => {
            let ack = wishes.ack.unwrap_or_default();
            let mut options = PutOptions::new().tags(&wishes.tags).ack(ack);
            if let Some(ttl) = ttl {
                options = options.ttl(ttl);
            }
            if let Some(token) = wishes.fill {
                return fill(cache, key, token, value, &options);
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

/// Keeps what a client has loaded from the system of record.
fn fill(
    cache: &RawCache,
    key: &[u8],
    token: FillToken,
    value: RawValue,
    options: &PutOptions,
) -> Result<Response<Body>, Problem> {
    let fill = cache.resume_fill(key, token).map_err(refusal::of_read)?;
    let kept = match fill {
        Some(fill) => fill.put(value, options).map_err(refusal::of_write)?,
        None => false,
    };
    if kept {
        Ok(written(None))
    } else {
        Err(refusal::fill_overtaken())
    }
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
    let version = modified.current.as_ref().map(Cached::version);
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
            "ack" => wishes.ack = Some(ack(&value)?),
            "fill" => {
                let token = FillToken::parse(&value).ok_or_else(refusal::invalid_fill_token)?;
                wishes.fill = Some(token);
            }
            _ => {
                return Err(refusal::bad_request(
                    "UnknownParameter",
                    "a write takes the parameters ttl, tag, and ack or fill",
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
struct SharedValue(Cached<RawValue, Raw>);

impl AsRef<[u8]> for SharedValue {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
