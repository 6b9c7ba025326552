"""Drives a Nearcache server with redis-py; prints a line per revision of the protocol."""

import sys

import redis

for protocol in (2, 3):
    client = redis.Redis(port=int(sys.argv[1]), protocol=protocol, client_name="tester")
    client.flushall()
    assert client.ping()
    assert client.set("k", "v", ex=100)
    assert client.get("k") == b"v"
    assert 98 <= client.ttl("k") <= 100
    assert client.set("k", "w", nx=True) is None
    assert client.set("k", "w", keepttl=True, get=True) == b"v"
    assert client.ttl("k") > 0
    assert client.incr("n", 5) == 5 and client.decr("n") == 4
    assert client.mset({"a": 1, "b": 2}) and client.mget("a", "b", "c") == [b"1", b"2", None]
    assert sorted(client.scan_iter(count=1)) == [b"a", b"b", b"k", b"n"]
    assert sorted(client.keys("[ab]")) == [b"a", b"b"]
    assert client.delete("a", "b", "c") == 2 and client.exists("a", "k") == 1
    assert client.getdel("k") == b"w" and client.get("k") is None
    assert client.getex("n", px=60000) == b"4" and client.pttl("n") > 0
    assert client.persist("n") and client.ttl("n") == -1
    assert client.expire("n", 10, lt=True) and client.type("n") == b"string"
    with client.pipeline(transaction=False) as pipeline:
        assert pipeline.set("p", 1).incr("p").get("p").execute() == [True, 2, b"2"]
    assert client.info("server")["redis_version"].startswith("7.")
    assert client.client_getname() in (b"tester", "tester")
    assert any(line["name"] == "tester" for line in client.client_list())
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
    assert client.command_count() > 40 and "get" in client.command()
    assert client.dbsize() == 2
    try:
        client.execute_command("INCR", "nonsense", "extra")
        raise SystemExit("an error was expected")
    except redis.ResponseError as error:
        assert "wrong number of arguments" in str(error), error
    print(f"resp{protocol} ok")
