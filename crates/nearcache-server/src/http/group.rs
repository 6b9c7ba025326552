//! Many entries at once: invalidation by tag or prefix, and clearing.

use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;

use super::problem::Problem;
use super::{Body, Context, body, refusal};
use crate::caches::RawCache;

/// The body of `POST …/invalidate`. Tags and the prefix are text here; one with other bytes can be
/// named by a Rust program only.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Invalidation {
    #[serde(default)]
    tags: Vec<String>,
    prefix: Option<String>,
}

/// Answers `POST /v1/caches/{cache}/invalidate`.
///
/// Entries written before this moment that carry one of the tags, or whose key starts with the prefix,
/// are gone on this node when it returns, and on the others when the invalidation reaches them.
pub(super) async fn invalidate(
    context: &Context,
    cache: &RawCache,
    headers: &HeaderMap,
    incoming: Incoming,
) -> Result<Response<Body>, Problem> {
    let text = body::read(
        headers,
        incoming,
        body::DOCUMENT_BYTES_MAX,
        &context.limits,
        &context.memory,
    )
    .await?
    .into_bytes();
    let Ok(invalidation) = serde_json::from_slice::<Invalidation>(&text) else {
        return Err(refusal::bad_request(
            "InvalidDocument",
            r#"send {"tags": ["a", "b"]}, {"prefix": "user:"} or both"#,
        ));
    };
    if invalidation.tags.is_empty() && invalidation.prefix.is_none() {
        return Err(refusal::bad_request(
            "InvalidDocument",
            "name tags or a prefix; to drop everything, DELETE /v1/caches/{cache}/entries",
        ));
    }
    cache
        .invalidate_tags(&invalidation.tags)
        .await
        .map_err(refusal::of_write)?;
    if let Some(prefix) = &invalidation.prefix {
        cache
            .invalidate_prefix(prefix)
            .await
            .map_err(refusal::of_write)?;
    }
    Ok(done())
}

/// Answers `DELETE /v1/caches/{cache}/entries`: every entry older than this moment goes, everywhere.
pub(super) async fn clear(cache: &RawCache) -> Result<Response<Body>, Problem> {
    cache.clear().await.map_err(refusal::of_write)?;
    Ok(done())
}

fn done() -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
