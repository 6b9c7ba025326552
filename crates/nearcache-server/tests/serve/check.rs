//! `nearcache check` on whole files.

use crate::process::{assert_one_line, file, run};

#[test]
fn the_example_configuration_is_valid() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/nearcache.toml");
    let ended = run(&["check", "--config", example]);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "{ended:?}"
    );
    for part in ["default: replicated, ", "iB (a quarter of ", "in flight: "] {
        assert!(ended.stdout.contains(part), "{part:?} is not in {ended:?}");
    }
}

#[test]
fn what_is_configured_is_shown_without_a_reason() {
    let ended = run(&["check", "--set", "caches.default.max_bytes=100MiB"]);
    let line = "  cache   default: replicated, 100MiB\n";
    assert!(ended.stdout.contains(line), "{ended:?}");
}

#[test]
fn row_34_every_slip_refuses_to_start_with_file_line_and_suggestion() {
    for (text, place, parts) in [
        (
            "[http]\nlisen = 'x'\n",
            ":2:1: ",
            &["unknown key `lisen`", "did you mean `listen`?"][..],
        ),
        (
            "[limits]\n\nidle_timeout = 5\n",
            ":3:16: ",
            &["without a unit", "\"5s\" or \"5ms\""],
        ),
        (
            "[limits]\nvalue_bytes = '20MiB'\n",
            ":2:15: ",
            &["is more than `limits.request_bytes`"],
        ),
        (
            "[resp]\nlisten = '0.0.0.0:7001'\n",
            ":2:10: ",
            &["(1)", "(2)", "(3)", "auth.token_file"],
        ),
        ("[http\n", ":1:6: ", &[]),
    ] {
        let (_directory, path) = file(text, 0o644);
        let path = path.display().to_string();
        for command in ["check", "serve"] {
            let ended = run(&[command, "--config", &path]);
            assert_one_line(&ended, &[&format!("{path}{place}")]);
            assert_one_line(&ended, parts);
        }
    }
}

#[test]
fn several_problems_are_one_line_each() {
    let (_directory, path) = file("[http]\na = 1\nb = 2\n[nope]\nc = 3\n", 0o644);
    let ended = run(&["check", "--config", &path.display().to_string()]);
    assert_eq!(ended.code, Some(2));
    assert_eq!(ended.stderr.lines().count(), 3, "{ended:?}");
}
