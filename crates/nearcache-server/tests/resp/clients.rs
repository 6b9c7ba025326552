//! Real clients: redis-cli, redis-benchmark, the `redis` crate, redis-py.

use std::process::{Command, Output};

use crate::harness::{Server, python, tool};

fn run(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    assert!(
        status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&stderr)
    );
    text
}

#[test]
fn redis_cli_reads_what_it_wrote() {
    let Some(program) = tool("redis_cli_reads_what_it_wrote", "redis-cli") else {
        return;
    };
    let server = Server::start();
    let port = server.address.port().to_string();
    for protocol in ["-2", "-3"] {
        let cli = |args: &[&str]| {
            run(Command::new(&program)
                .args([protocol, "-p", &port])
                .args(args))
        };
        assert_eq!(cli(&["SET", "greeting", "hello", "EX", "100"]), "OK\n");
        assert_eq!(cli(&["GET", "greeting"]), "hello\n");
        let left: u64 = cli(&["TTL", "greeting"]).trim().parse().unwrap();
        assert!((90..=100).contains(&left), "{left}");
        assert_eq!(cli(&["--scan", "--pattern", "greet*"]), "greeting\n");
        assert!(cli(&["INFO", "server"]).contains("redis_version:7.0.15"));
        assert_eq!(cli(&["DEL", "greeting"]), "1\n");
        assert_eq!(cli(&["GET", "greeting"]), "\n");
    }
}

#[test]
fn redis_benchmark_runs_to_its_end() {
    let Some(program) = tool("redis_benchmark_runs_to_its_end", "redis-benchmark") else {
        return;
    };
    let server = Server::start();
    let port = server.address.port().to_string();
    let text = run(Command::new(program).args([
        "-p",
        &port,
        "-n",
        "2000",
        "-c",
        "10",
        "-P",
        "16",
        "-t",
        "set,get,incr,mset,ping",
        "--csv",
    ]));
    for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET"] {
        assert!(text.contains(test), "{test} is missing in\n{text}");
    }
}

#[test]
fn the_redis_crate_gets_along() -> redis::RedisResult<()> {
    let server = Server::start();
    for protocol in ["resp2", "resp3"] {
        let client =
            redis::Client::open(format!("redis://{}/0?protocol={protocol}", server.address))?;
        let mut connection = client.get_connection()?;
        let mut ask = |command: &str| {
            let mut words = command.split(' ');
            let mut request = redis::cmd(words.next().unwrap());
            words.for_each(|word| {
                request.arg(word);
            });
            request.query::<redis::Value>(&mut connection)
        };
        assert_eq!(ask("SET counter 41")?, redis::Value::Okay);
        assert_eq!(ask("INCR counter")?, redis::Value::Int(42));
        assert_eq!(
            ask("GET counter")?,
            redis::Value::BulkString(b"42".to_vec())
        );
        assert_eq!(ask("EXPIRE counter 100")?, redis::Value::Int(1));
        assert_eq!(
            ask("GETDEL counter")?,
            redis::Value::BulkString(b"42".to_vec())
        );
        assert_eq!(ask("GET counter")?, redis::Value::Nil);
        assert!(ask("NONSENSE").is_err());
        let replies: Vec<redis::Value> = redis::pipe()
            .cmd("SET")
            .arg("a")
            .arg(1)
            .cmd("MGET")
            .arg("a")
            .arg("b")
            .query(&mut connection)?;
        assert_eq!(
            replies[1],
            redis::Value::Array(vec![
                redis::Value::BulkString(b"1".to_vec()),
                redis::Value::Nil
            ])
        );
    }
    Ok(())
}

#[test]
fn redis_py_gets_along() {
    let Some(program) = python("redis_py_gets_along") else {
        return;
    };
    let server = Server::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/resp/client.py");
    let text = run(Command::new(program)
        .arg(script)
        .arg(server.address.port().to_string()));
    assert_eq!(text, "resp2 ok\nresp3 ok\n");
}
