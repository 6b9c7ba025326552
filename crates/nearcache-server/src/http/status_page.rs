//! The page at `/`: members, caches and figures for a person, from this node's point of view.
//!
//! Made on the server, whole in itself: no script, no font, no image, nothing from elsewhere, and a
//! policy that lets nothing else in. It asks for itself again every few seconds.

use std::fmt::Write;

use http::{HeaderValue, Response, header};

use super::describe::{self, CacheDocument, MemberDocument};
use super::figures::{grouped, rounded_size};
use super::{Body, Context};
use crate::config::units;

const STYLE: &str = include_str!("status_page.css");

pub(super) fn render(context: &Context) -> Response<Body> {
    let node = describe::node(context);
    let mut page = String::with_capacity(8 << 10);
    let title = escape(&node.name);
    let (state, word) = if node.ready {
        ("good", "ready")
    } else {
        ("wait", "being filled")
    };
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"5\"><title>{title} · Nearcache</title>\
         <style>{STYLE}</style></head>\n<body><main>\n\
         <header><h1>{title}</h1><p><b class=\"{state}\">{word}</b> · cluster {} · \
         version {} · up {} · {} client connections</p></header>\n",
        escape(&node.cluster),
        node.version,
        uptime(node.uptime_seconds),
        node.client_connections,
    );
    if node.insecure_network {
        page.push_str(
            "<p><b class=\"wait\">Peers are neither authenticated nor encrypted</b> \
             (peers.allow_insecure_network): whoever reaches the peer port can read and write \
             every cache.</p>\n",
        );
    }
    if let Some(skew_ms) = node.clock_skew_ms {
        let _ = writeln!(
            page,
            "<p><b class=\"wait\">Writes are refused (ClockSkew)</b>: the clocks of most peers are {skew_ms} ms ahead of \
             this node's. Set the clock of the machine right and start the node again.</p>",
        );
    }
    caches(&mut page, &describe::caches(context));
    members(&mut page, &describe::members(context), node.by_tree);
    page.push_str("<footer><p>Listening: ");
    let addresses = &node.addresses;
    for (name, address) in [
        ("RESP", addresses.resp),
        ("HTTP", addresses.http),
        ("peers", Some(addresses.peers)),
    ] {
        if let Some(address) = address {
            let _ = write!(page, "{name} <code>{address}</code> ");
        }
    }
    page.push_str(
        "</p><p>For machines: <a href=\"/v1/node\">/v1/node</a> <a href=\"/v1/members\">/v1/members</a> \
         <a href=\"/v1/caches\">/v1/caches</a> <a href=\"/metrics\">/metrics</a> \
         <a href=\"/openapi.json\">/openapi.json</a></p></footer>\n</main></body></html>\n",
    );
    let mut response = Response::new(Body::from(page));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
        ),
    );
    response
}

fn caches(page: &mut String, caches: &[CacheDocument]) {
    page.push_str(
        "<section><h2>Caches</h2><div class=\"wide\"><table><thead><tr><th>name<th>mode\
         <th class=\"n\">entries<th>memory<th class=\"n\">hit ratio<th class=\"n\">reads\
         <th class=\"n\">evictions<th class=\"n\">freshness</tr></thead><tbody>\n",
    );
    for cache in caches {
        let reads = cache.hits + cache.misses;
        let hit_ratio = if reads == 0 {
            "–".to_owned()
        } else {
            format!("{:.1} %", percent(cache.hits, reads))
        };
        let freshness = match cache.freshness_ms {
            Some(millis) => format!("{} ms", grouped(millis)),
            None => "–".to_owned(),
        };
        let _ = writeln!(
            page,
            "<tr><td>{}<td>{}<td class=\"n\">{}<td><meter min=\"0\" max=\"{max}\" value=\"{}\"></meter> \
             {} of {}<td class=\"n\">{hit_ratio}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{freshness}</tr>",
            escape(&cache.name),
            cache.mode,
            grouped(cache.entries as u64),
            cache.bytes,
            rounded_size(cache.bytes),
            units::show_size(cache.max_bytes),
            grouped(reads),
            grouped(cache.evictions),
            max = cache.max_bytes,
        );
    }
    page.push_str("</tbody></table></div></section>\n");
}

fn members(page: &mut String, members: &[MemberDocument], by_tree: bool) {
    page.push_str(
        "<section><h2>Members</h2><div class=\"wide\"><table><thead><tr><th>name<th>id<th>address\
         <th>state</tr></thead><tbody>\n",
    );
    for member in members {
        // Beyond a full mesh most members have no session with this node.
        let class = if member.state == "unconnected" && !by_tree {
            "wait"
        } else {
            "good"
        };
        let state = if member.state == "myself" {
            "this node"
        } else {
            member.state
        };
        let _ = writeln!(
            page,
            "<tr><td>{}<td><code>{}</code><td><code>{}</code><td><b class=\"{class}\">{state}</b></tr>",
            escape(member.name.as_deref().unwrap_or("–")),
            member.id,
            member.address,
        );
    }
    page.push_str("</tbody></table></div></section>\n");
}

/// Names are chosen by whoever configures nodes, peers included: none may become markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

fn uptime(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_become_markup() {
        assert_eq!(
            escape("<b onload='x'>&\""),
            "&lt;b onload=&#39;x&#39;&gt;&amp;&quot;"
        );
    }

    #[test]
    fn uptime_is_readable() {
        assert_eq!(uptime(119), "119 s");
        assert_eq!(uptime(7_200), "2 h");
    }
}
