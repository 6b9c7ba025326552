//! Mutual TLS among servers: `nearcache certs`, `[peers.tls]`, and what `nearcache check` says of it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::process::{Serve, assert_one_line, file, run, until};

/// A folder with certificates for a cluster called `shop`.
fn certs(nodes: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let ended = make(folder.path(), &[&["--cluster", "shop"], nodes].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    folder
}

fn make(folder: &Path, args: &[&str]) -> crate::process::Ended {
    let dir = folder.display().to_string();
    run(&[&["certs", "--dir", &dir], args].concat())
}

/// The settings of a node that uses the folder's files, as flags.
fn settings(folder: &Path, node: &str) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let settings = [
        ("node.cluster", "shop".to_owned()),
        ("peers.tls.certificate_file", file(&format!("{node}.pem"))),
        ("peers.tls.key_file", file(&format!("{node}.key"))),
        ("peers.tls.ca_file", file("ca.pem")),
        ("peers.tls.secret_file", file("secret")),
    ];
    settings
        .iter()
        .flat_map(|(path, value)| ["--set".to_owned(), format!("{path}={value}")])
        .collect()
}

fn serve(settings: &[String], join: Option<SocketAddr>, more: &[&str]) -> Serve {
    let mut args: Vec<&str> = settings.iter().map(String::as_str).collect();
    let join = join.map(|address| address.to_string());
    if let Some(join) = &join {
        args.extend(["--join", join]);
    }
    args.extend(more);
    Serve::start(&args)
}

#[test]
fn servers_with_certificates_made_by_certs_listen_anywhere_and_replicate() {
    let folder = certs(&["one", "two", "three"]);
    let anywhere = ["--set", "peers.listen=0.0.0.0:0"];
    let one = serve(&settings(folder.path(), "one"), None, &anywhere);
    let here = SocketAddr::from(([127, 0, 0, 1], one.peers.port()));
    let two = serve(&settings(folder.path(), "two"), Some(here), &[]);
    let three = serve(&settings(folder.path(), "three"), Some(here), &[]);
    for node in [&one, &two, &three] {
        until(|| (node.get("/v1/members").json().as_array()?.len() == 3).then_some(()));
    }
    assert_eq!(
        two.put("/v1/caches/default/entries/k", "", b"value").status,
        204
    );
    for node in [&one, &three] {
        until(|| (node.get("/v1/caches/default/entries/k").body == "value").then_some(()));
    }
    let document = one.get("/v1/node").json();
    assert_eq!(document["name"], "one", "the name is the certificate's");
    assert_eq!(document["peers_secured"], true);
    assert_eq!(document["insecure_network"], false);
    assert!(
        !one.log().contains("neither authenticated"),
        "{}",
        one.log()
    );
    let secret = std::fs::read_to_string(folder.path().join("secret")).unwrap();
    for node in [&one, &two, &three] {
        let everything = node.log() + &node.get("/metrics").body;
        assert!(!everything.contains(secret.trim()));
        assert!(everything.contains("nearcache_peer_certificate_valid_seconds"));
    }
}

#[test]
fn an_allowed_insecure_network_is_shown() {
    let any = "peers.listen=0.0.0.0:0";
    let allowed = "peers.allow_insecure_network=true";
    let one = Serve::start(&["--set", any, "--set", allowed]);
    assert_eq!(one.get("/v1/node").json()["insecure_network"], true);
    assert!(
        one.get("/")
            .body
            .contains("neither authenticated nor encrypted")
    );
}

#[test]
fn certs_keeps_secrets_to_their_owner_and_says_what_to_do_next() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("certs");
    let ended = make(&inner, &["--cluster", "shop", "one"]);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "{ended:?}"
    );
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&inner), 0o700);
    for (name, expected) in [
        ("ca.pem", 0o644),
        ("one.pem", 0o644),
        ("ca.key", 0o600),
        ("one.key", 0o600),
        ("secret", 0o600),
    ] {
        assert_eq!(mode(&inner.join(name)), expected, "{name}");
    }
    // The configuration it prints is one that works.
    let start = ended.stdout.find("[node]").unwrap();
    let end = ended.stdout.find("Check it:").unwrap();
    let (_directory, path) = file(&ended.stdout[start..end], 0o644);
    let checked = run(&["check", "--config", &path.display().to_string()]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(
        checked.stdout.contains("0.0.0.0:7801, mutual TLS"),
        "{checked:?}"
    );

    let before = std::fs::read(inner.join("one.pem")).unwrap();
    assert_one_line(
        &make(&inner, &["--cluster", "shop", "one"]),
        &["--renew", "one.pem"],
    );
    assert_eq!(make(&inner, &["--cluster", "shop", "two"]).code, Some(0));
    assert_eq!(std::fs::read(inner.join("one.pem")).unwrap(), before);
    assert_eq!(
        make(&inner, &["--cluster", "shop", "one", "--renew"]).code,
        Some(0)
    );
    assert_ne!(std::fs::read(inner.join("one.pem")).unwrap(), before);
    assert_one_line(
        &make(&inner, &["--cluster", "bank", "three"]),
        &["another --dir"],
    );
    for bad in ["a/b", "..", "ca", ""] {
        assert_one_line(&make(&inner, &["--cluster", "shop", bad]), &["NODE"]);
    }
}

#[test]
fn check_explains_what_is_wrong_with_peers_tls_with_line_and_column() {
    let folder = certs(&["one", "two"]);
    let other = certs(&["one"]);
    let exposed = folder.path().join("exposed.key");
    std::fs::copy(folder.path().join("one.key"), &exposed).unwrap();
    std::fs::set_permissions(&exposed, std::fs::Permissions::from_mode(0o644)).unwrap();
    let dir = folder.path().display();
    let all = |node: &str, certificate: &str, key: &str, ca: String| {
        format!(
            "[node]\ncluster = 'shop'\nname = '{node}'\n[peers.tls]\n\
             certificate_file = '{dir}/{certificate}'\nkey_file = '{dir}/{key}'\n\
             ca_file = '{ca}'\nsecret_file = '{dir}/secret'\n"
        )
    };
    let ca = format!("{dir}/ca.pem");
    let other_ca = other.path().join("ca.pem").display().to_string();
    for (text, place, parts) in [
        (
            "[peers.tls]\nkey_fiel = 'x'\n".to_owned(),
            ":2:1: ",
            &[
                "unknown key `key_fiel` in [peers.tls]",
                "did you mean `key_file`?",
            ][..],
        ),
        (
            "[peers.tsl]\nkey_file = 'x'\n".to_owned(),
            ":1:8: ",
            &["did you mean `tls`?"],
        ),
        (
            "[peers]\ntls = true\n".to_owned(),
            ":2:7: ",
            &["start it with [peers.tls]"],
        ),
        (
            all("one", "missing.pem", "one.key", ca.clone()),
            ":5:20: ",
            &["cannot read the certificate file", "No such file"],
        ),
        (
            all("one", "one.pem", "exposed.key", ca.clone()),
            ":6:12: ",
            &["mode 0644", "chmod 600"],
        ),
        (
            all("one", "one.pem", "two.key", ca.clone()),
            ":6:12: ",
            &["does not belong to the certificate"],
        ),
        (
            all("one", "one.pem", "one.key", other_ca),
            ":5:20: ",
            &["not of an authority trusted here"],
        ),
        (
            all("three", "one.pem", "one.key", ca.clone()),
            ":5:20: ",
            &["is for node \"one\"", "spiffe://shop/peer/three"],
        ),
        (
            all("one", "one.pem", "one.key", ca).replace("'shop'", "'bank'"),
            ":5:20: ",
            &["for cluster \"shop\"", "this is cluster \"bank\""],
        ),
    ] {
        let (_directory, path) = file(&text, 0o644);
        let path = path.display().to_string();
        for command in ["check", "serve"] {
            let ended = run(&[command, "--config", &path]);
            assert_one_line(&ended, &[&format!("{path}{place}")]);
            assert_one_line(&ended, parts);
        }
    }
    let (_directory, path) = file("[peers.tls]\nca_file = 'x'\n", 0o644);
    let ended = run(&["check", "--config", &path.display().to_string()]);
    assert_eq!(ended.stderr.lines().count(), 3, "{ended:?}");
    for missing in ["certificate_file", "key_file", "secret_file"] {
        assert!(
            ended
                .stderr
                .contains(&format!("`peers.tls.{missing}` is missing"))
        );
    }
}
