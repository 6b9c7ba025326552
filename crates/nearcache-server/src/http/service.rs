//! From a request to its answer: admission, route, method, resource.

use std::net::IpAddr;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::admission::{Admission, TokenRule};
use super::path::{PathError, Route};
use super::problem::Problem;
use super::{Body, Context, audit, describe, entries, group, openapi, refusal, status_page};
use crate::caches::RawCache;

/// Answers one request of `address`; every outcome is a response.
pub(super) async fn answer(
    context: &Context,
    admission: &Admission,
    address: IpAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let mut response = match route(context, admission, address, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    // Values share an origin with the status page: a browser must never run one.
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    context.metrics.answered(response.status());
    response
}

async fn route(
    context: &Context,
    admission: &Admission,
    address: IpAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let (head, body) = request.into_parts();
    let (uri, headers) = (&head.uri, &head.headers);
    let route = Route::parse(uri.path());
    // Probes of an orchestrator have no token; they tell nothing but yes or no.
    let token = match route {
        Ok(Route::Health | Route::Readiness) => None,
        _ => context.credentials.as_deref().map(|credentials| TokenRule {
            credentials,
            lockout: &context.lockout,
            address,
        }),
    };
    admission.check(uri, headers, token)?;
    let route = route.map_err(|error| match error {
        PathError::Unknown => Problem::new(
            StatusCode::NOT_FOUND,
            "NoResource",
            "there is nothing here; GET /openapi.json describes what there is",
        ),
        PathError::Encoding => refusal::broken_encoding(),
    })?;
    let query = uri.query().unwrap_or("");
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    match (&route, &head.method) {
        (Route::Entry(cache, key), _) if reads => {
            entries::get(context, find(context, cache)?, key, query, headers).await
        }
        (Route::Entry(cache, key), &Method::PUT) => {
            entries::put(context, find(context, cache)?, key, query, headers, body).await
        }
        (Route::Entry(cache, key), &Method::DELETE) => {
            entries::delete(find(context, cache)?, key, headers).await
        }
        (Route::Entries(cache), &Method::DELETE) => group::clear(find(context, cache)?).await,
        (Route::Invalidate(cache), &Method::POST) => {
            group::invalidate(context, find(context, cache)?, headers, body).await
        }
        (Route::StatusPage, _) if reads => Ok(status_page::render(context)),
        (Route::Health, _) if reads => Ok(text("ok\n")),
        (Route::Readiness, _) if reads => readiness(context),
        (Route::Metrics, _) if reads => exposition(context),
        (Route::OpenApi, _) if reads => Ok(openapi::document()),
        (Route::Node, _) if reads => Ok(describe::json(&describe::node(context))),
        (Route::Members, _) if reads => Ok(describe::json(&describe::members(context))),
        (Route::Caches, _) if reads => Ok(describe::json(&describe::caches(context))),
        (Route::Inspect(cache, key), _) if reads => {
            audit::inspect(context, find(context, cache)?, key).await
        }
        (Route::Audit, _) if reads => Ok(describe::json(&audit::reports(context))),
        (Route::Audit, &Method::POST) => audit::start(context, query),
        _ => Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            format!("this resource answers {}", route.allowed()),
        )
        .header(header::ALLOW, route.allowed())),
    }
}

fn find<'a>(context: &'a Context, name: &str) -> Result<&'a RawCache, Problem> {
    context
        .caches
        .get(name)
        .ok_or_else(|| refusal::no_cache(name))
}

fn readiness(context: &Context) -> Result<Response<Body>, Problem> {
    if context.node.is_ready() {
        return Ok(text("ready\n"));
    }
    Err(Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "NotReady",
        "this node is still being filled from its peers",
    ))
}

fn exposition(context: &Context) -> Result<Response<Body>, Problem> {
    let mut exposition = String::new();
    let registry = context.node.metrics();
    prometheus_client::encoding::text::encode(&mut exposition, &registry.lock()).map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal",
            "metrics cannot be written",
        )
    })?;
    let mut response = text(exposition);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
    );
    Ok(response)
}

fn text(text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(text.into()));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
