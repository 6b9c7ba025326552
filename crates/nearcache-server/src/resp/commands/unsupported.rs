//! Commands of Redis 7 that Nearcache does not have: their users get told so, instead of being told
//! that the name is unknown. And the first words of HTTP, which is not spoken here.

/// Redis's commands on types and features that Nearcache is not about. Sorted.
#[rustfmt::skip]
const OF_REDIS: &[&str] = &[
    "acl", "append", "asking", "bgrewriteaof", "bgsave", "bitcount", "bitfield", "bitfield_ro", "bitop",
    "bitpos", "blmove", "blmpop", "blpop", "brpop", "brpoplpush", "bzmpop", "bzpopmax", "bzpopmin",
    "cluster", "copy", "debug", "discard", "dump", "eval", "eval_ro", "evalsha", "evalsha_ro", "exec",
    "failover", "fcall", "fcall_ro", "function", "geoadd", "geodist", "geohash", "geopos", "georadius",
    "georadius_ro", "georadiusbymember", "georadiusbymember_ro", "geosearch", "geosearchstore", "getbit",
    "hdel", "hexists", "hget", "hgetall", "hincrby", "hincrbyfloat", "hkeys", "hlen", "hmget", "hmset",
    "hrandfield", "hscan", "hset", "hsetnx", "hstrlen", "hvals", "incrbyfloat", "lastsave", "latency",
    "lcs", "lindex", "linsert", "llen", "lmove", "lmpop", "lolwut", "lpop", "lpos", "lpush", "lpushx",
    "lrange", "lrem", "lset", "ltrim", "memory", "migrate", "module", "monitor", "move", "msetnx",
    "multi", "object", "pfadd", "pfcount", "pfdebug", "pfmerge", "pfselftest", "psubscribe", "psync",
    "publish", "pubsub", "punsubscribe", "randomkey", "readonly", "readwrite", "rename", "renamenx",
    "replconf", "replicaof", "restore", "restore-asking", "role", "rpop", "rpoplpush", "rpush", "rpushx",
    "sadd", "save", "scard", "script", "sdiff", "sdiffstore", "setbit", "setrange", "shutdown", "sinter",
    "sintercard", "sinterstore", "sismember", "slaveof", "slowlog", "smembers", "smismember", "smove",
    "sort", "sort_ro", "spop", "spublish", "srandmember", "srem", "sscan", "ssubscribe", "subscribe",
    "sunion", "sunionstore", "sunsubscribe", "swapdb", "sync", "unsubscribe", "unwatch", "wait",
    "waitaof", "watch", "xack", "xadd", "xautoclaim", "xclaim", "xdel", "xgroup", "xinfo", "xlen",
    "xpending", "xrange", "xread", "xreadgroup", "xrevrange", "xsetid", "xtrim", "zadd", "zcard",
    "zcount", "zdiff", "zdiffstore", "zincrby", "zinter", "zintercard", "zinterstore", "zlexcount",
    "zmpop", "zmscore", "zpopmax", "zpopmin", "zrandmember", "zrange", "zrangebylex", "zrangebyscore",
    "zrangestore", "zrank", "zrem", "zremrangebylex", "zremrangebyrank", "zremrangebyscore", "zrevrange",
    "zrevrangebylex", "zrevrangebyscore", "zrevrank", "zscan", "zscore", "zunion", "zunionstore",
];

/// Second words of Redis's `CLIENT`, `CONFIG` and `COMMAND` that Nearcache does not have. Sorted.
const SECOND_WORDS_OF_REDIS: &[&str] = &[
    "client|caching",
    "client|getredir",
    "client|kill",
    "client|no-evict",
    "client|no-touch",
    "client|pause",
    "client|reply",
    "client|tracking",
    "client|trackinginfo",
    "client|unblock",
    "client|unpause",
    "command|getkeys",
    "command|getkeysandflags",
    "config|resetstat",
    "config|rewrite",
    "config|set",
];

/// Longest name in the lists.
const NAME_BYTES_MAX: usize = 32;

/// Whether Redis has a command of this name, in any case.
pub(super) fn is_command_of_redis(name: &[u8]) -> bool {
    contains(OF_REDIS, name)
}

/// Whether Redis has a command `command|second`, in any case.
pub(super) fn is_second_word_of_redis(command: &str, second: &[u8]) -> bool {
    let full = [command.as_bytes(), b"|", second].concat();
    contains(SECOND_WORDS_OF_REDIS, &full)
}

/// Whether `name` is what a line of HTTP begins with that no Redis client sends.
pub(super) fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

fn contains(sorted: &[&str], name: &[u8]) -> bool {
    if name.len() > NAME_BYTES_MAX {
        return false;
    }
    let lower = name.to_ascii_lowercase();
    sorted
        .binary_search_by(|own| own.as_bytes().cmp(&lower))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::commands::COMMANDS;

    #[test]
    fn the_lists_are_sorted() {
        assert!(OF_REDIS.is_sorted());
        assert!(SECOND_WORDS_OF_REDIS.is_sorted());
    }

    #[test]
    fn nothing_is_called_unsupported_that_is_in_the_table() {
        for command in COMMANDS {
            assert!(
                !is_command_of_redis(command.name.as_bytes()),
                "{}",
                command.name
            );
            for second in command.subcommands {
                assert!(!is_second_word_of_redis(
                    command.name,
                    second.name.as_bytes()
                ));
            }
        }
    }

    #[test]
    fn names_are_compared_in_any_case() {
        assert!(is_command_of_redis(b"eVaL"));
        assert!(is_second_word_of_redis("config", b"SET"));
        assert!(is_http(b"POST") && is_http(b"Host:"));
        assert!(!is_command_of_redis(b"nonsense"));
    }
}
