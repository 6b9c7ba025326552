//! Three processes, three protocols, one cache.

use crate::process::{Serve, has_tool, nearcache, run, tool, until};

/// Starts nodes that know the first one.
pub(crate) fn cluster(nodes: usize) -> Vec<Serve> {
    let mut cluster = vec![Serve::start(&["--name", "node-1"])];
    let first = cluster[0].peers.to_string();
    for number in 2..=nodes {
        cluster.push(Serve::start(&[
            "--name",
            &format!("node-{number}"),
            "--join",
            &first,
        ]));
    }
    for node in &cluster {
        until(|| {
            let members = node.get("/v1/members").json();
            let met = members
                .as_array()
                .unwrap()
                .iter()
                .filter(|m| m["state"] != "unconnected")
                .count();
            (met == nodes && node.get("/readyz").status == 200).then_some(())
        });
    }
    cluster
}

#[test]
fn a_value_of_one_protocol_is_read_by_the_others_on_other_nodes_and_removed_everywhere() {
    const TEST: &str =
        "a_value_of_one_protocol_is_read_by_the_others_on_other_nodes_and_removed_everywhere";
    if !(has_tool("redis-cli", TEST) && has_tool("curl", TEST)) {
        return;
    }
    let nodes = cluster(3);
    let redis = |node: usize, args: &[&str]| {
        let port = nodes[node].resp.port().to_string();
        tool("redis-cli", &[&["-p", &port], args].concat())
            .trim()
            .to_owned()
    };
    let entry = |node: usize| format!("{}/v1/caches/default/entries/greeting", nodes[node].url());
    let get = |node: usize| run(&["get", "greeting", "--url", &nodes[node].url()]);
    assert_eq!(redis(0, &["set", "greeting", "hello", "ex", "60"]), "OK");
    until(|| (get(2).code == Some(0)).then_some(()));
    let curl = until(|| {
        let answer = tool("curl", &["-sSi", "--max-time", "20", &entry(1)]);
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    });
    assert!(curl.ends_with("\r\n\r\nhello"), "{curl}");
    assert!(curl.contains("cache-control: max-age=60"), "{curl}");
    let remaining = curl
        .split("nearcache-ttl-ms: ")
        .nth(1)
        .unwrap()
        .split('\r')
        .next()
        .unwrap();
    assert!(
        (30_000..=60_000).contains(&remaining.parse::<u64>().unwrap()),
        "{curl}"
    );
    let got = get(2);
    assert_eq!(got.stdout, "hello");
    let expires: f64 = got.stderr.split(' ').nth(2).unwrap().parse().unwrap();
    assert!(expires > 30.0 && expires <= 60.0, "{got:?}");
    assert_eq!(
        run(&["del", "greeting", "--url", &nodes[2].url()]).code,
        Some(0)
    );
    until(|| redis(0, &["get", "greeting"]).is_empty().then_some(()));
    let status = ["-sS", "-o", "/dev/null", "-w", "%{http_code}"];
    until(|| (tool("curl", &[&status[..], &[&entry(1)]].concat()) == "404").then_some(()));
}

#[test]
fn a_value_survives_the_restart_of_the_node_it_was_written_on() {
    let mut nodes = cluster(2);
    let url = |nodes: &[Serve], node: usize| nodes[node].url();
    assert_eq!(
        run(&[
            "put",
            "key",
            "value",
            "--ttl",
            "1h",
            "--url",
            &url(&nodes, 0)
        ])
        .code,
        Some(0)
    );
    until(|| (run(&["get", "key", "--url", &url(&nodes, 1)]).stdout == "value").then_some(()));
    nodes[0].signal("TERM");
    assert_eq!(nodes[0].ended(), Some(0), "{}", nodes[0].log());
    let seed = nodes[1].peers.to_string();
    nodes[0] = Serve::start(&["--name", "node-1", "--join", &seed]);
    let got = run(&["get", "key", "--url", &url(&nodes, 0)]);
    assert_eq!(
        got.stdout, "value",
        "read at once, before the node is filled: {got:?}"
    );
}

#[test]
fn preconditions_are_decided_at_one_place_for_all_nodes() {
    let nodes = cluster(3);
    let entry = "/v1/caches/default/entries/job";
    let claimed: usize = std::thread::scope(|scope| {
        let claims: Vec<_> = (0..30)
            .map(|number: usize| {
                let node = &nodes[number % 3];
                scope.spawn(move || {
                    node.put(entry, "If-None-Match: *\r\n", number.to_string().as_bytes())
                        .status
                })
            })
            .collect();
        claims
            .into_iter()
            .map(|claim| claim.join().unwrap())
            .filter(|status| *status == 204)
            .count()
    });
    assert_eq!(claimed, 1);
}

#[test]
fn c11_a_stopped_node_makes_the_others_say_how_far_behind_they_may_be() {
    let nodes = cluster(3);
    let entry = "/v1/caches/default/entries/k";
    assert_eq!(nodes[0].put(entry, "", b"v").status, 204);
    let fresh = |node: &Serve| node.request("GET", entry, "Cache-Control: no-cache\r\n", b"");
    assert_eq!(fresh(&nodes[1]).body, "v");
    let caches = nodes[1].get("/v1/caches").json();
    let peers = caches[0]["peers"].as_array().unwrap();
    assert_eq!(peers.len(), 2, "{caches}");
    assert!(
        peers.iter().all(|peer| peer["freshness_ms"].is_u64()),
        "{caches}"
    );
    assert!(
        peers.iter().any(|peer| peer["name"] == "node-3"),
        "{caches}"
    );
    let info = run(&["info", "--url", &nodes[1].url()]).stdout;
    assert!(
        info.contains("unacknowledged") && info.contains("node-3"),
        "{info}"
    );
    let metrics = nodes[1].get("/metrics").body;
    for metric in [
        "freshness_milliseconds",
        "missing_updates",
        "unacknowledged_updates",
    ] {
        assert!(metrics.contains(&format!("nearcache_cache_peer_{metric}{{cache=\"default\"")));
    }
    assert!(metrics.contains("nearcache_cache_clock_bound_microseconds{cache=\"default\""));
    nodes[2].signal("STOP");
    let stale = fresh(&nodes[1]);
    nodes[2].signal("CONT");
    stale.assert_problem(504, "NotFresh");
    until(|| (fresh(&nodes[1]).status == 200).then_some(()));
}

#[test]
fn an_audit_tells_of_a_stopped_node_and_an_inspection_of_a_key_that_differs() {
    let nodes = cluster(3);
    let entry = "/v1/caches/default/entries/k";
    nodes[0].put(entry, "", b"value");
    let inspect = || run(&["inspect", "k", "--url", &nodes[1].url()]);
    let seen = until(|| Some(inspect()).filter(|seen| seen.code == Some(0)));
    assert_eq!(seen.stdout.matches("entry").count(), 3, "{seen:?}");
    assert!(
        ["node-1", "node-2", "node-3"]
            .iter()
            .all(|name| seen.stdout.contains(name))
    );
    let none = run(&["inspect", "none", "--json", "--url", &nodes[1].url()]);
    assert_eq!(none.stdout.matches("\"absent\"").count(), 3, "{none:?}");

    let url = nodes[0].url();
    let idle = run(&["audit", "--url", &url]);
    assert_eq!(idle.code, Some(1), "{idle:?}");
    let healthy = run(&[
        "audit",
        "--for",
        "2s",
        "--url",
        &url,
        "--and",
        &nodes[1].url(),
    ]);
    assert_eq!(healthy.code, Some(0), "{healthy:?}");
    let pairs = healthy
        .stdout
        .lines()
        .filter(|line| line.starts_with("default "));
    assert_eq!(pairs.count(), 4, "{healthy:?}");
    let covered = "2 of 2 other members have answered";
    assert_eq!(healthy.stdout.matches(covered).count(), 2, "{healthy:?}");
    // Nobody sees a probe.
    let names = nodes[2].get("/v1/caches").json();
    assert_eq!(names[0]["entries"], 1, "{names}");
    let probe = "%00nearcache%2Fprobe%00x";
    nodes[2]
        .get(&format!("/v1/caches/default/entries/{probe}"))
        .assert_problem(400, "ReservedKey");
    let metrics = nodes[0].get("/metrics").body;
    for metric in [
        "probes_total",
        "verdicts_total",
        "nines",
        "propagation_seconds",
    ] {
        assert!(
            metrics.contains(&format!("nearcache_audit_{metric}{{")),
            "{metric}: {metrics}"
        );
    }

    nodes[2].signal("STOP");
    let stopped = run(&["audit", "--for", "3s", "--json", "--url", &url]);
    let seen = run(&["inspect", "k", "--url", &nodes[1].url()]);
    nodes[2].signal("CONT");
    assert_eq!(stopped.code, Some(1), "{stopped:?}");
    let rows: serde_json::Value = serde_json::from_str(&stopped.stdout).unwrap();
    let first = |name: &str| {
        let mut rows = rows.as_array().unwrap().iter();
        rows.find(|row| row["name"] == name)
            .map(|row| row["within"][0].clone())
    };
    let (well, ill) = (first("node-2").unwrap(), first("node-3").unwrap());
    assert_eq!(well["silent"], 0, "{well}");
    assert!(ill["silent"].as_u64().unwrap() > 0, "{ill}");
    assert!(
        ill["nines"].as_f64() < well["nines"].as_f64(),
        "{ill} {well}"
    );
    // It does not answer; or, some seconds later, it is no member any more and nobody asks it.
    let is_told = seen.code == Some(1) && seen.stdout.contains("no answer");
    assert!(is_told || !seen.stdout.contains("node-3"), "{seen:?}");
}

#[test]
fn c11_an_audit_is_judged_by_its_own_probes_and_fails_where_nobody_is_asked() {
    let mut nodes = cluster(2);
    let url = nodes[0].url();
    let audit = || run(&["audit", "--for", "2s", "--url", &url]);
    let well = audit();
    assert_eq!(well.code, Some(0), "{well:?}");
    nodes[1].signal("KILL");
    nodes[1].ended();
    // What it was asked and did not answer is remembered from here on.
    run(&["audit", "--for", "1s", "--url", &url]);
    until(|| {
        let told = nodes[0].get("/v1/audit").json();
        (told[0]["members"] == 0).then_some(())
    });
    let alone = audit();
    assert_eq!(alone.code, Some(1), "{alone:?}");
    assert!(alone.stderr.contains("no other member"), "{alone:?}");
    let seed = nodes[0].peers.to_string();
    nodes[1] = Serve::start(&["--name", "node-2", "--join", &seed]);
    until(|| {
        let told = nodes[0].get("/v1/audit").json();
        (told[0]["members"] == 1 && nodes[1].get("/readyz").status == 200).then_some(())
    });
    // Sessions may be on their way still.
    let again = until(|| Some(audit()).filter(|again| again.code == Some(0)));
    let told = nodes[0].get("/v1/audit").json();
    let silent = |told: &serde_json::Value| told[0]["within"][0]["silent"].as_u64().unwrap();
    assert!(silent(&told) > 0, "it had something to remember: {told}");
    assert!(told[0]["probed_ms_ago"].is_u64(), "{told}");
    let row = again.stdout.lines().find(|line| line.contains("node-2"));
    assert!(row.is_some(), "{again:?}");
    // Without probes of its own all since the start is judged.
    assert_eq!(run(&["audit", "--url", &url]).code, Some(1));
}

#[test]
fn beyond_a_full_mesh_an_audit_and_an_inspection_see_all_nodes() {
    const NODES: usize = 9;
    let mut nodes: Vec<Serve> = Vec::new();
    for number in 1..=NODES {
        let mut command = nearcache();
        command.env("NEARCACHE_PEERS_MESH_MAX", "2");
        let name = format!("node-{number}");
        let mut args = vec!["--name", name.as_str()];
        let first = nodes.first().map(|node| node.peers.to_string());
        if let Some(first) = &first {
            args.extend(["--join", first]);
        }
        nodes.push(Serve::start_as(command, &args));
    }
    for node in &nodes {
        until(|| {
            let members = node.get("/v1/members").json();
            let all = members.as_array().unwrap().len() == NODES;
            (all && node.get("/readyz").status == 200).then_some(())
        });
    }
    // The sessions of joining end: then some members can only be asked otherwise.
    let about = |node: &Serve| node.get("/v1/node").json();
    let asker = until(|| {
        let few = |node: &Serve| about(node)["peer_sessions"].as_u64().unwrap() + 1 < NODES as u64;
        nodes.iter().position(few)
    });
    assert_eq!(about(&nodes[asker])["by_tree"], true);
    let url = nodes[asker].url();
    nodes[0].put("/v1/caches/default/entries/k", "", b"value");
    let inspect = || run(&["inspect", "k", "--url", &url]);
    let seen = until(|| Some(inspect()).filter(|seen| seen.code == Some(0)));
    for number in 1..=NODES {
        assert!(seen.stdout.contains(&format!("node-{number} ")), "{seen:?}");
    }
    assert_eq!(seen.stdout.matches("entry").count(), NODES, "{seen:?}");

    let audited = run(&["audit", "--for", "2s", "--url", &url]);
    assert_eq!(audited.code, Some(0), "{audited:?}");
    let covered = "8 of 8 other members have answered";
    assert!(audited.stdout.contains(covered), "{audited:?}");
    let metrics = nodes[asker].get("/metrics").body;
    for metric in [
        "audit_members{cache=\"default\"} 8",
        "audit_members_covered{cache=\"default\"} 8",
    ] {
        assert!(
            metrics.contains(&format!("nearcache_{metric}")),
            "{metric}: {metrics}"
        );
    }

    // Who does not answer is named, with the reason.
    let stopped = (asker + 1) % NODES;
    let name = format!("node-{}", stopped + 1);
    nodes[stopped].signal("STOP");
    let seen = inspect();
    nodes[stopped].signal("CONT");
    let row = seen.stdout.lines().find(|line| line.starts_with(&name));
    // It does not answer; or, some seconds later, it is no member any more and nobody asks it.
    let reasons = [
        "no answer in time",
        "cannot be reached",
        "lost before it answered",
    ];
    let is_told = |row: &str| seen.code == Some(1) && reasons.iter().any(|why| row.contains(why));
    assert!(row.is_none_or(is_told), "{seen:?}");
}
