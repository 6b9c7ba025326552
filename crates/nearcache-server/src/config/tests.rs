//! Tables of configurations and what is said about them.

use std::time::Duration;

use super::*;

fn problems(source: &str) -> Vec<String> {
    let sources = Sources {
        file: Some((Path::new("c.toml"), source)),
        ..Sources::default()
    };
    match load(&sources) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

fn variables(variables: &[(&str, &str)]) -> Result<Loaded, Vec<Problem>> {
    let variables = variables
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect();
    load(&Sources {
        variables,
        ..Sources::default()
    })
}

#[test]
fn an_empty_file_is_a_valid_configuration() {
    assert_eq!(problems(""), Vec::<String>::new());
}

#[test]
fn the_example_configuration_is_accepted() {
    let source = include_str!("../../../../deploy/nearcache.toml");
    assert_eq!(problems(source), Vec::<String>::new());
}

#[test]
fn the_example_configuration_accepted_with_every_comment_taken_away_knows_every_setting() {
    let source = include_str!("../../../../deploy/nearcache.toml");
    for setting in settings::SETTINGS {
        let (section, key) = setting.path.rsplit_once('.').unwrap();
        let body = source
            .split(&format!("[{section}]"))
            .nth(1)
            .unwrap_or_default();
        let body = body.split("\n[").next().unwrap_or_default();
        assert!(
            body.contains(&format!("{key} =")),
            "{} is not in the example",
            setting.path
        );
    }
}

#[test]
fn row_34_every_slip_has_a_place_and_a_suggestion() {
    let table = [
        (
            "[http]\nlisen = \"127.0.0.1:1\"",
            "c.toml:2:1: unknown key `lisen` in [http]; did you mean `listen`?",
        ),
        (
            "[htpt]\nlisten = 1",
            "c.toml:1:2: unknown key `htpt` in the configuration; did you mean `http`?",
        ),
        (
            "[caches.a]\nmax_byte = \"1GiB\"",
            "c.toml:2:1: unknown key `max_byte` in [caches.a]; did you mean `max_bytes`?",
        ),
        (
            "[http]\nidle_timeout = \"5s\"",
            "c.toml:2:1: unknown key `idle_timeout` in [http]; it belongs to `limits.idle_timeout`",
        ),
        (
            "[limits]\nidle_timeout = 5",
            "c.toml:2:16: `limits.idle_timeout`: duration without a unit; write \"5s\" or \"5ms\"",
        ),
        (
            "[limits]\nidle_timeout = \"5\"",
            "c.toml:2:16: `limits.idle_timeout`: duration without a unit; write \"5s\" or \"5ms\"",
        ),
        (
            "[limits]\nidle_timeout = \"5 sec\"",
            "c.toml:2:16: `limits.idle_timeout`: unknown unit `sec` in a duration; use ms, s, m, h, d",
        ),
        (
            "[caches.default]\nmax_bytes = 1000000",
            "c.toml:2:13: `caches.default.max_bytes`: size without a unit; write \"1000000MiB\" or \"1000000B\"",
        ),
        (
            "[limits]\nkey_bytes = \"65KiB\"",
            "c.toml:2:13: `limits.key_bytes` is 65KiB, out of range; allowed are 1B to 64KiB",
        ),
        (
            "[limits]\nvalue_bytes = \"9MiB\"",
            "c.toml:2:15: `limits.value_bytes` (9MiB) is more than `limits.output_hard_bytes` (8MiB); lower `limits.value_bytes` or raise `limits.output_hard_bytes`",
        ),
        (
            "[peers]\nmesh_max = 1025",
            "c.toml:2:12: `peers.mesh_max` is 1025, out of range; allowed are 1 to 1024",
        ),
        (
            "[peers]\nprobe_connections = 0",
            "c.toml:2:21: `peers.probe_connections` is 0, out of range; allowed are 1 to 256",
        ),
        (
            "[caches.a]\nmax_bytes = \"1KiB\"",
            "c.toml:2:13: `caches.a.max_bytes` is 1KiB; give it at least 1MiB",
        ),
        (
            "[caches.a]\ntime_to_live = \"1s\"\ntime_to_idle = \"2s\"",
            "c.toml:3:16: `caches.a.time_to_idle` (2s) is more than `caches.a.time_to_live` (1s) and would never have an effect; shorten it or remove it",
        ),
        (
            "[resp]\nlisten = \"127.0.0.1:8001\"",
            "configuration: `http.listen` and `resp.listen` are both on port 8001; give each listener a port of its own",
        ),
        (
            "[resp]\nlisten = \"127.0.0.1\"",
            "c.toml:2:10: `resp.listen`: `127.0.0.1` is not an address with a port; add a port, for example \"127.0.0.1:7001\"",
        ),
        (
            "[resp]\nlisten = \":7001\"",
            "c.toml:2:10: `resp.listen`: `:7001` is not an address with a port; write \"127.0.0.1:7001\"",
        ),
        (
            "[resp]\nenabled = \"yes\"",
            "c.toml:2:11: `resp.enabled`: expected true or false, found text",
        ),
        (
            "[resp]\ndatabases = [\"default\", \"users\"]",
            "c.toml:2:13: `resp.databases` names the cache `users`, which does not exist; add a section [caches.users]",
        ),
        (
            "[caches.a]\nmode = \"replicate\"",
            "c.toml:2:8: `caches.a.mode`: unknown value `replicate`; did you mean \"replicated\"?",
        ),
        (
            "[caches.a]\nmode = \"strong\"",
            "c.toml:2:8: `caches.a.mode`: mode `strong` is not in this version yet; use \"local\", \"invalidation\" or \"replicated\"",
        ),
        (
            "[caches.\"a b\"]",
            "c.toml:1:9: `a b` cannot name a cache; use at most 64 letters, digits, `-`, `_` and `.`",
        ),
        (
            "resp = 7001",
            "c.toml:1:8: `resp` must be a section; start it with [resp]",
        ),
        (
            "[peers]\nseeds = \"a:1\"",
            "c.toml:2:9: `peers.seeds`: expected a list, found text; write [\"a:1\"]",
        ),
        (
            "[peers]\nseeds = [\"a\"]",
            "c.toml:2:9: `peers.seeds`: `a` is not a host with a port; write for example \"a:7801\"",
        ),
        (
            "[log]\nformat = \"yaml\"",
            "c.toml:2:10: `log.format`: unknown value `yaml`; use one of: text, json",
        ),
    ];
    for (source, expected) in table {
        assert_eq!(problems(source), [expected], "{source}");
    }
}

#[test]
fn row_34_a_bind_without_auth_is_refused_at_its_line() {
    let found = problems("[http]\nlisten = \"0.0.0.0:8001\"");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("c.toml:2:10: `http.listen` = 0.0.0.0:8001 would let anyone"));
    assert!(found[0].contains("auth.token_file"), "{}", found[0]);
}

#[test]
fn broken_toml_is_one_problem_with_line_and_column() {
    let found = problems("[http]\nlisten = \"127.0.0.1:1\nport = 2\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("c.toml:2:"), "{found:?}");
    let twice = problems("[http]\nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"");
    assert!(twice[0].starts_with("c.toml:3:1: "), "{twice:?}");
}

#[test]
fn all_problems_of_a_file_are_reported_in_its_order() {
    let found = problems("[http]\nlisen = 1\n[limits]\nidle_timeout = 5\n[resp]\nport = 1\n");
    let starts: Vec<_> = found.iter().map(|line| &line[..9]).collect();
    assert_eq!(starts, ["c.toml:2:", "c.toml:4:", "c.toml:6:"]);
}

#[test]
fn columns_count_characters_and_the_excerpt_underlines_them() {
    let source = "[node]\ncluster = \"a\"  # ü\n# ä\n[limits]\nidle_timeout = 55 # ö";
    let sources = Sources {
        file: Some((Path::new("c.toml"), source)),
        ..Sources::default()
    };
    let problems = load(&sources).unwrap_err();
    assert_eq!(
        problems[0].excerpt(source),
        "  5 | idle_timeout = 55 # ö\n    |                ^^\n"
    );
}

#[test]
fn variables_override_the_file_and_flags_override_variables() {
    let sources = Sources {
        file: Some((
            Path::new("c.toml"),
            "[http]\nlisten = \"127.0.0.1:1\"\n[node]\nname = \"file\"",
        )),
        variables: vec![
            ("NEARCACHE_HTTP_LISTEN".into(), "127.0.0.1:2".into()),
            ("NEARCACHE_CACHES_DEFAULT_MAX_BYTES".into(), "5MiB".into()),
            ("NEARCACHE_PEERS_SEEDS".into(), "a:1, b:2".into()),
        ],
        flags: vec![(
            "--http-listen".into(),
            "http.listen".into(),
            "127.0.0.1:3".into(),
        )],
        ..Sources::default()
    };
    let config = load(&sources).unwrap().config;
    assert_eq!(config.http.listen.port(), 3);
    assert_eq!(config.node.name.as_deref(), Some("file"));
    assert_eq!(config.caches["default"].max_bytes, 5 << 20);
    assert_eq!(config.peers.seeds, ["a:1", "b:2"]);
}

#[test]
fn a_wrong_variable_is_named() {
    let problems = variables(&[("NEARCACHE_LIMITS_IDLE_TIMEOUT", "5")]).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "NEARCACHE_LIMITS_IDLE_TIMEOUT: `limits.idle_timeout`: duration without a unit; \
         write \"5s\" or \"5ms\""
    );
}

#[test]
fn an_unknown_variable_is_a_warning_and_those_of_kubernetes_are_silent() {
    let loaded = variables(&[
        ("NEARCACHE_HTTP_LISEN", "x"),
        ("NEARCACHE_SERVICE_HOST", "10.0.0.1"),
        ("NEARCACHE_SERVICE_PORT_RESP", "7001"),
        ("NEARCACHE_PORT", "tcp://10.0.0.1:7001"),
        ("NEARCACHE_PORT_7001_TCP_ADDR", "10.0.0.1"),
        ("NEARCACHE_URL", "http://localhost"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["NEARCACHE_HTTP_LISEN: is not a setting and has no effect; \
          did you mean NEARCACHE_HTTP_LISTEN?"]
    );
}

/// Bounds in MiB, by cache, and of requests in flight, on a machine of `mib`.
fn bounds(mib: u64, source: &str) -> (Vec<u64>, usize, Loaded) {
    let sources = Sources {
        file: Some((Path::new("c.toml"), source)),
        memory: Memory {
            bytes: mib << 20,
            source: crate::machine::memory::Source::Machine,
        },
        ..Sources::default()
    };
    let loaded = load(&sources).unwrap();
    let caches = loaded.config.caches.values();
    let bounds = caches.map(|cache| cache.max_bytes >> 20).collect();
    (bounds, loaded.config.limits.in_flight_bytes >> 20, loaded)
}

#[test]
fn limits_3_1_entries_take_a_quarter_of_the_memory_and_requests_an_eighth_of_that() {
    let (caches, in_flight, loaded) = bounds(4_096, "");
    assert_eq!((caches, in_flight), (vec![1_024], 128));
    let why = loaded.shares.why_cache("default");
    assert_eq!(
        why.as_deref(),
        Some("a quarter of 4GiB, memory of this machine")
    );
    assert!(loaded.shares.why_in_flight().is_some());
}

#[test]
fn limits_3_1_caches_share_what_those_with_a_bound_leave() {
    let three = "[caches.a]\n[caches.b]\nmax_bytes = '424MiB'\n";
    let (caches, in_flight, loaded) = bounds(4_096, three);
    assert_eq!((caches, in_flight), (vec![300, 424, 300], 128));
    let why = loaded.shares.why_cache("a").unwrap();
    assert!(why.starts_with("one of 2 shares of a quarter"), "{why}");
    assert_eq!(loaded.shares.why_cache("b"), None);
}

#[test]
fn limits_3_1_on_a_small_machine_there_is_a_least() {
    assert_eq!(bounds(128, "").0, [64]);
    // Two of the largest requests must fit.
    assert_eq!(bounds(128, "").1, 32);
    assert_eq!(bounds(128, "[limits]\nrequest_bytes = '128MiB'\n").1, 256);
    let full = "[caches.b]\nmax_bytes = '1GiB'\n";
    assert_eq!(bounds(4_096, full).0, [1_024, 16]);
}

#[test]
fn what_is_set_stays() {
    let set = "[limits]\nin_flight_bytes = '99MiB'\n[caches.default]\nmax_bytes = '7MiB'\n";
    let (caches, in_flight, loaded) = bounds(4_096, set);
    assert_eq!((caches, in_flight), (vec![7], 99));
    assert_eq!(loaded.shares.why_in_flight(), None);
}

#[test]
fn what_happens_on_disconnect_is_a_word_or_a_table() {
    let of = |text: &str| {
        let source = format!(
            "[caches.a]\nmode = \"invalidation\"\non_disconnect = {text}\nlink_timeout = \"2s\"\n"
        );
        load(&Sources {
            file: Some((Path::new("c.toml"), &source)),
            ..Sources::default()
        })
        .map(|loaded| loaded.config.caches["a"].on_disconnect)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let stale = |max| nearcache::OnDisconnect::ServeStale {
        max: Duration::from_secs(max),
    };
    assert_eq!(of("\"flush\""), Ok(nearcache::OnDisconnect::Flush));
    assert_eq!(of("{ serve_stale = \"30s\" }"), Ok(stale(30)));
    for (bad, what) in [
        ("\"serve_stale\"", "for how long"),
        ("{ serve_stale = 30 }", "without a unit"),
        ("{ serve_stale = \"1s\" }", "from `link_timeout`"),
        ("\"flsh\"", "did you mean \"flush\"?"),
    ] {
        let said = of(bad).unwrap_err();
        assert!(said[0].contains(what), "{said:?}");
    }
}

#[test]
fn what_concerns_long_values_is_kept_within_its_bounds() {
    for (bad, what) in [
        ("inline_limit = \"1000B\"", "allowed are 1KiB to 64MiB"),
        ("inline_limit = \"65MiB\"", "allowed are 1KiB to 64MiB"),
        ("fetch_bytes_per_second = \"10KiB\"", "at least 64KiB"),
    ] {
        let said = problems(&format!("[caches.a]\n{bad}\n"));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(what), "{said:?}");
    }
}

#[test]
fn files_are_looked_at_and_sessions_opened_anew_neither_all_the_time_nor_never() {
    for (bad, allowed) in [
        ("reload_every = \"1ms\"", "allowed are 1s to 1d"),
        ("reload_every = \"2d\"", "allowed are 1s to 1d"),
        ("reauthenticate_after = \"9s\"", "allowed are 10s to 30d"),
        ("reauthenticate_after = \"31d\"", "allowed are 10s to 30d"),
    ] {
        let said = problems(&format!("[peers.tls]\n{bad}\n"));
        assert!(said.iter().any(|text| text.contains(allowed)), "{said:?}");
    }
}

#[test]
fn a_setting_of_leases_in_another_mode_is_refused() {
    let said = problems("[caches.a]\nlink_timeout = \"5s\"\n");
    assert_eq!(said.len(), 1);
    assert!(
        said[0].contains("has no effect in mode `replicated`"),
        "{said:?}"
    );
}

#[test]
fn what_happens_in_a_netsplit_is_one_of_three_words() {
    let of = |text: &str| {
        let source = format!("[caches.a]\nsplit = \"{text}\"\n");
        load(&Sources {
            file: Some((Path::new("c.toml"), &source)),
            ..Sources::default()
        })
        .map(|loaded| loaded.config.caches["a"].split)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(of("serve"), Ok(nearcache::SplitPolicy::Serve));
    assert_eq!(of("read-only"), Ok(nearcache::SplitPolicy::ReadOnly));
    assert_eq!(of("flush"), Ok(nearcache::SplitPolicy::Flush));
    let said = of("readonly").unwrap_err();
    assert!(said[0].contains("did you mean \"read-only\"?"), "{said:?}");
    let said = problems("[caches.a]\nmode = \"invalidation\"\nsplit = \"serve\"\n");
    assert!(
        said[0].contains("`caches.a.split` has no effect in mode `invalidation`"),
        "{said:?}"
    );
}
