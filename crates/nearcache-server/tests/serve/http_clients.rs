//! HTTP with a real client.

use crate::process::{Serve, has_tool, tool};

#[test]
fn curl_writes_reads_revalidates_and_removes() {
    if !has_tool("curl", "curl_writes_reads_revalidates_and_removes") {
        return;
    }
    let serve = Serve::start(&[]);
    let url = format!("{}/v1/caches/default/entries/caf%C3%A9%2F1", serve.url());
    let curl = |args: &[&str]| {
        tool(
            "curl",
            &[&["-sS", "--max-time", "20"], args, &[&url]].concat(),
        )
    };
    let status = ["-o", "/dev/null", "-w", "%{http_code}"];
    let put = [
        &[
            "-X",
            "PUT",
            "--data-binary",
            "hello",
            "-H",
            "Cache-Control: max-age=60",
        ],
        &status[..],
    ]
    .concat();
    assert_eq!(curl(&put), "204");
    assert_eq!(curl(&[]), "hello");
    let tag = curl(&["-o", "/dev/null", "-w", "%header{etag}"]);
    let revalidate = format!("If-None-Match: {tag}");
    assert_eq!(curl(&[&["-H", &revalidate], &status[..]].concat()), "304");
    // A body of unknown length, sent in chunks.
    let file = serve.directory().join("body");
    std::fs::write(&file, vec![b'x'; 300_000]).unwrap();
    let upload = format!("@{}", file.display());
    let chunked = [
        "-X",
        "PUT",
        "-H",
        "Transfer-Encoding: chunked",
        "--data-binary",
        &upload,
    ];
    assert_eq!(curl(&[&chunked[..], &status[..]].concat()), "204");
    assert_eq!(curl(&[]).len(), 300_000);
    // Large enough for curl to ask first; the answer comes without the body.
    std::fs::write(&file, vec![b'x'; 2_000_000]).unwrap();
    let large = ["-X", "PUT", "--data-binary", &upload];
    assert_eq!(curl(&[&large[..], &status[..]].concat()), "413");
    assert_eq!(curl(&[&["-X", "DELETE"], &status[..]].concat()), "204");
    assert_eq!(curl(&status), "404");
}
