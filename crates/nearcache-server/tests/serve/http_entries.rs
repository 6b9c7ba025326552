//! Entries over HTTP: the life of a value, preconditions, groups, descriptions.

use std::time::Duration;

use crate::process::{Serve, until};

const ENTRY: &str = "/v1/caches/default/entries/k";

#[test]
fn a_value_is_written_read_and_removed_with_its_headers() {
    let serve = Serve::start(&[]);
    serve.get(ENTRY).assert_problem(404, "NoEntry");
    let put = serve.put(ENTRY, "Cache-Control: max-age=60\r\n", b"hello");
    assert_eq!(put.status, 204, "{put:?}");
    let tag = put.header("etag").unwrap().to_owned();
    assert_eq!(tag.len(), 34);
    let get = serve.get(ENTRY);
    assert_eq!((get.status, get.body.as_str()), (200, "hello"));
    assert_eq!(get.header("etag"), Some(tag.as_str()));
    assert_eq!(get.header("content-type"), Some("application/octet-stream"));
    assert_eq!(get.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(get.header("cache-control"), Some("max-age=60"));
    let remaining: u64 = get.header("nearcache-ttl-ms").unwrap().parse().unwrap();
    assert!((30_000..=60_000).contains(&remaining), "{get:?}");
    let age: u64 = get.header("age").unwrap().parse().unwrap();
    assert!((60 - age) * 1_000 <= remaining, "{get:?}");
    let head = serve.request("HEAD", ENTRY, "", b"");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), Some("5"));
    assert_eq!(serve.request("DELETE", ENTRY, "", b"").status, 204);
    serve.get(ENTRY).assert_problem(404, "NoEntry");
    serve
        .request("DELETE", ENTRY, "", b"")
        .assert_problem(404, "NoEntry");
}

#[test]
fn an_entry_without_expiry_says_so_and_one_with_is_gone_after_it() {
    let serve = Serve::start(&[]);
    serve.put(ENTRY, "", b"stays");
    let get = serve.get(ENTRY);
    assert_eq!(get.header("cache-control"), Some("no-cache"));
    assert_eq!(get.header("nearcache-ttl-ms"), None);
    assert_eq!(
        serve.put(&format!("{ENTRY}?ttl=200ms"), "", b"goes").status,
        204
    );
    assert_eq!(serve.get(ENTRY).body, "goes");
    until(|| (serve.get(ENTRY).status == 404).then_some(()));
}

#[test]
fn preconditions_decide_reads_and_writes() {
    let serve = Serve::start(&[]);
    let first = serve.put(ENTRY, "If-None-Match: *\r\n", b"1");
    assert_eq!(first.status, 204, "{first:?}");
    let tag = first.header("etag").unwrap().to_owned();
    let lost = serve.put(ENTRY, "If-None-Match: *\r\n", b"2");
    lost.assert_problem(412, "PreconditionFailed");
    assert_eq!(lost.header("etag"), Some(tag.as_str()));
    let unchanged = serve.request(
        "GET",
        ENTRY,
        &format!("If-None-Match: \"x\", {tag}\r\n"),
        b"",
    );
    assert_eq!((unchanged.status, unchanged.body.as_str()), (304, ""));
    assert_eq!(unchanged.header("etag"), Some(tag.as_str()));
    let second = serve.put(ENTRY, &format!("If-Match: {tag}\r\n"), b"3");
    assert_eq!(second.status, 204, "{second:?}");
    let changed = serve.request("GET", ENTRY, &format!("If-None-Match: {tag}\r\n"), b"");
    assert_eq!((changed.status, changed.body.as_str()), (200, "3"));
    serve
        .put(ENTRY, &format!("If-Match: {tag}\r\n"), b"4")
        .assert_problem(412, "PreconditionFailed");
    serve
        .put(ENTRY, "If-Match: \"nonsense\"\r\n", b"4")
        .assert_problem(412, "PreconditionFailed");
    serve
        .put(ENTRY, "If-Match: *\r\nIf-None-Match: *\r\n", b"4")
        .assert_problem(400, "UnsupportedPrecondition");
    let stale = serve.request("DELETE", ENTRY, &format!("If-Match: {tag}\r\n"), b"");
    stale.assert_problem(412, "PreconditionFailed");
    assert_eq!(serve.get(ENTRY).body, "3");
    let newest = second.header("etag").unwrap();
    assert_eq!(
        serve
            .request("DELETE", ENTRY, &format!("If-Match: {newest}\r\n"), b"")
            .status,
        204
    );
    serve
        .put(ENTRY, "If-Match: *\r\n", b"5")
        .assert_problem(412, "PreconditionFailed");
}

#[test]
fn row_16_keys_are_any_bytes_within_the_limit() {
    let serve = Serve::start(&[]);
    let path = |key: &str| format!("/v1/caches/default/entries/{key}");
    for key in [
        "%00",
        "%FF%FE",
        "a%2Fb",
        "a%20b",
        "%25",
        "a+b",
        "..",
        &"k".repeat(4_096),
    ] {
        assert_eq!(
            serve.put(&path(key), "", key.as_bytes()).status,
            204,
            "{key}"
        );
        assert_eq!(serve.get(&path(key)).body, key);
    }
    let long = "k".repeat(4_097);
    for method in ["GET", "PUT", "DELETE"] {
        let answer = serve.request(method, &path(&long), "", b"");
        answer.assert_problem(400, "KeyTooLong");
        assert_eq!(
            (
                answer.json()["limit"].as_u64(),
                answer.json()["got"].as_u64()
            ),
            (Some(4_096), Some(4_097))
        );
        serve
            .request(method, &path(""), "", b"")
            .assert_problem(400, "EmptyKey");
        serve
            .request(method, &path("%zz"), "", b"")
            .assert_problem(400, "BrokenEncoding");
    }
}

#[test]
fn row_17_a_value_over_the_limit_is_refused() {
    let serve = Serve::start(&["--set", "limits.value_bytes=1KiB"]);
    assert_eq!(serve.put(ENTRY, "", &[b'v'; 1_024]).status, 204);
    let refused = serve.put(ENTRY, "", &[b'w'; 1_025]);
    refused.assert_problem(413, "ValueTooLarge");
    assert_eq!(
        (
            refused.json()["limit"].as_u64(),
            refused.json()["got"].as_u64()
        ),
        (Some(1_024), Some(1_025))
    );
    assert_eq!(serve.get(ENTRY).body, "v".repeat(1_024));
}

#[test]
fn row_18_an_impossible_time_to_live_is_refused_and_nothing_written() {
    let serve = Serve::start(&[]);
    for value in ["0", "-1", "NaN", "315360001", "18446744073709551616", ""] {
        let header = format!("Cache-Control: max-age={value}\r\n");
        serve
            .put(ENTRY, &header, b"v")
            .assert_problem(400, "InvalidTtl");
    }
    for value in ["0s", "-1s", "NaN", "4000d", "5", "1ns", ""] {
        serve
            .put(&format!("{ENTRY}?ttl={value}"), "", b"v")
            .assert_problem(400, "InvalidTtl");
    }
    assert_eq!(serve.get(ENTRY).status, 404);
}

#[test]
fn tags_and_prefixes_are_invalidated_and_clearing_takes_the_rest() {
    let serve = Serve::start(&[]);
    let path = |key: &str| format!("/v1/caches/default/entries/{key}");
    let present = |keys: &[&str]| -> Vec<bool> {
        keys.iter()
            .map(|key| serve.get(&path(key)).status == 200)
            .collect()
    };
    for (key, query) in [
        ("a", "?tag=x&tag=y"),
        ("b", "?tag=y"),
        ("user:1", ""),
        ("c", ""),
    ] {
        assert_eq!(
            serve.put(&format!("{}{query}", path(key)), "", b"v").status,
            204
        );
    }
    let keys = ["a", "b", "user:1", "c"];
    let invalidate =
        |body: &str| serve.request("POST", "/v1/caches/default/invalidate", "", body.as_bytes());
    assert_eq!(invalidate(r#"{"tags": ["x"]}"#).status, 204);
    assert_eq!(present(&keys), [false, true, true, true]);
    assert_eq!(
        invalidate(r#"{"tags": ["y"], "prefix": "user:"}"#).status,
        204
    );
    assert_eq!(present(&keys), [false, false, false, true]);
    for wrong in ["", "{}", "[]", r#"{"tag": "x"}"#, r#"{"tags": "x"}"#] {
        invalidate(wrong).assert_problem(400, "InvalidDocument");
    }
    invalidate(r#"{"tags": [""]}"#).assert_problem(400, "InvalidTag");
    assert_eq!(
        serve
            .request("DELETE", "/v1/caches/default/entries", "", b"")
            .status,
        204
    );
    assert_eq!(present(&keys), [false; 4]);
}

#[test]
fn what_is_not_there_or_not_allowed_says_so() {
    let serve = Serve::start(&[]);
    serve.get("/nope").assert_problem(404, "NoResource");
    serve
        .get("/v1/caches/nope/entries/k")
        .assert_problem(404, "NoCache");
    for (method, path, allow) in [
        ("POST", ENTRY, "GET, HEAD, PUT, DELETE"),
        ("GET", "/v1/caches/default/entries", "DELETE"),
        ("GET", "/v1/caches/default/invalidate", "POST"),
        ("DELETE", "/healthz", "GET, HEAD"),
        ("OPTIONS", "/", "GET, HEAD"),
    ] {
        let answer = serve.request(method, path, "", b"");
        answer.assert_problem(405, "MethodNotAllowed");
        assert_eq!(answer.header("allow"), Some(allow));
    }
    serve
        .put(&format!("{ENTRY}?tll=1s"), "", b"v")
        .assert_problem(400, "UnknownParameter");
    serve
        .put(&format!("{ENTRY}?ack=most"), "", b"v")
        .assert_problem(400, "InvalidAck");
    assert_eq!(serve.put(&format!("{ENTRY}?ack=all"), "", b"v").status, 204);
}

#[test]
fn the_server_describes_itself() {
    let serve = Serve::start(&["--name", "one"]);
    serve.put(ENTRY, "", b"value");
    serve.get(ENTRY);
    let node = serve.get("/v1/node").json();
    assert_eq!(
        (node["name"].as_str(), node["ready"].as_bool()),
        (Some("one"), Some(true))
    );
    assert_eq!(node["addresses"]["http"], serve.http.to_string());
    assert_eq!(serve.get("/v1/members").json()[0]["state"], "myself");
    let caches = serve.get("/v1/caches").json();
    assert_eq!(
        (caches[0]["name"].as_str(), caches[0]["entries"].as_u64()),
        (Some("default"), Some(1))
    );
    let page = serve.get("/");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .contains("default-src 'none'")
    );
    assert!(
        page.body.contains("one") && page.body.contains("default"),
        "{}",
        page.body
    );
    assert!(
        !page.body.contains("<script") && !page.body.contains("http://"),
        "{}",
        page.body
    );
    assert_eq!(serve.get("/openapi.json").json()["openapi"], "3.1.0");
    let metrics = serve.get("/metrics");
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(metrics.body.ends_with("# EOF\n"), "{}", metrics.body);
    assert!(
        metrics
            .body
            .contains("nearcache_http_requests_total{status=\"200\"}"),
        "{}",
        metrics.body
    );
    assert_eq!(serve.get("/healthz").body, "ok\n");
    assert_eq!(serve.get("/readyz").body, "ready\n");
}

#[test]
fn keys_and_values_are_not_logged() {
    let serve = Serve::start(&["--log-level", "trace"]);
    serve.put("/v1/caches/default/entries/canarykey", "", b"canaryvalue");
    serve.get("/v1/caches/default/entries/canarykey");
    std::thread::sleep(Duration::from_millis(50));
    assert!(!serve.log().contains("canary"), "{}", serve.log());
}

#[test]
fn c11_a_reader_can_demand_how_far_behind_an_answer_may_be() {
    let serve = Serve::start(&[]);
    serve.put(ENTRY, "", b"v");
    for demand in [
        "no-cache",
        "max-age=0",
        "max-stale=5",
        "max-stale",
        "only-if-cached",
    ] {
        let header = format!("Cache-Control: {demand}\r\n");
        let get = serve.request("GET", ENTRY, &header, b"");
        assert_eq!((get.status, get.body.as_str()), (200, "v"), "{demand}");
        assert_eq!(get.header("nearcache-behind-ms"), Some("0"), "{demand}");
        assert!(get.header("age").is_some());
    }
    for demand in ["max-age=x", "max-stale=-1"] {
        let header = format!("Cache-Control: {demand}\r\n");
        let get = serve.request("GET", ENTRY, &header, b"");
        get.assert_problem(400, "InvalidCacheControl");
    }
}

#[test]
fn c1_a_fill_is_kept_unless_the_key_was_written_since_its_token_was_given() {
    let serve = Serve::start(&[]);
    let miss = || {
        let get = serve.get(&format!("{ENTRY}?fill"));
        get.assert_problem(404, "NoEntry");
        get.header("nearcache-fill-token").unwrap().to_owned()
    };
    assert_eq!(serve.get(ENTRY).header("nearcache-fill-token"), None);
    let fill = |token: &str| serve.put(&format!("{ENTRY}?fill={token}&ttl=1m"), "", b"loaded");
    let stale = miss();
    assert_eq!(serve.put(ENTRY, "", b"written").status, 204);
    fill(&stale).assert_problem(409, "FillOvertaken");
    assert_eq!(serve.get(ENTRY).body, "written");
    assert_eq!(serve.request("DELETE", ENTRY, "", b"").status, 204);
    until(|| (fill(&miss()).status == 204).then_some(()));
    let get = serve.get(ENTRY);
    assert_eq!(
        (get.body.as_str(), get.header("cache-control")),
        ("loaded", Some("max-age=60"))
    );
    serve
        .put(&format!("{ENTRY}?fill=nonsense"), "", b"x")
        .assert_problem(400, "InvalidFillToken");
    serve
        .put(&format!("{ENTRY}?fill={stale}&ack=all"), "", b"x")
        .assert_problem(400, "InvalidFillToken");
}
