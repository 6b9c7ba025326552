//! The one table of commands: what clients may send, what is checked before it runs, what runs it.
//!
//! `COMMAND` describes the same lines to clients, metrics are labelled with their names, and the
//! test of permissions walks them all. Arity counts the command's name; a negative one means "at
//! least". Summaries are what `COMMAND DOCS` shows.

use super::{
    Handler, client, command, config, connection, counters, expiry, fresh, info, keys, scan,
    server, set, strings,
};

/// A property of a command, as `COMMAND` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Flag {
    /// Changes entries.
    Write = 1,
    /// Reads entries.
    ReadOnly = 1 << 1,
    /// May need more memory.
    DenyOom = 1 << 2,
    /// For operators.
    Admin = 1 << 3,
    /// Not for scripts.
    NoScript = 1 << 4,
    /// May run while data is being loaded.
    Loading = 1 << 5,
    /// May run on a replica that lags.
    Stale = 1 << 6,
    /// Takes constant time.
    Fast = 1 << 7,
    /// May run before the client has authenticated.
    NoAuth = 1 << 8,
}

impl Flag {
    /// Every flag, with the name `COMMAND` gives it.
    pub(crate) const NAMES: [(Self, &'static str); 9] = [
        (Self::Write, "write"),
        (Self::ReadOnly, "readonly"),
        (Self::DenyOom, "denyoom"),
        (Self::Admin, "admin"),
        (Self::NoScript, "noscript"),
        (Self::Loading, "loading"),
        (Self::Stale, "stale"),
        (Self::Fast, "fast"),
        (Self::NoAuth, "no_auth"),
    ];
}

/// Which arguments are keys: from `first` to `last` (negative: counted from the end) by `step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) first: i8,
    pub(crate) last: i8,
    pub(crate) step: i8,
}

const NO_KEYS: Keys = Keys {
    first: 0,
    last: 0,
    step: 0,
};
const ONE_KEY: Keys = Keys {
    first: 1,
    last: 1,
    step: 1,
};
const ALL_KEYS: Keys = Keys {
    first: 1,
    last: -1,
    step: 1,
};
const PAIRS: Keys = Keys {
    first: 1,
    last: -1,
    step: 2,
};

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// With the name of the command it belongs to: `client|list`.
    pub(crate) full_name: &'static str,
    pub(crate) arity: i8,
    flags: u16,
    pub(crate) keys: Keys,
    pub(crate) group: &'static str,
    pub(crate) since: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) run: Handler,
    /// Second words, where the command has any.
    pub(crate) subcommands: &'static [Self],
}

impl Command {
    /// Whether so many arguments, the name included, are enough and not too many.
    pub(crate) fn accepts(&self, arguments: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 {
            arguments >= wanted
        } else {
            arguments == wanted
        }
    }

    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.flags & flag as u16 != 0
    }

    pub(crate) fn takes_keys(&self) -> bool {
        self.keys.first != 0
    }

    /// The names of its flags.
    pub(crate) fn flag_names(&self) -> impl Iterator<Item = &'static str> + Clone {
        let names = Flag::NAMES.into_iter().filter(|(flag, _)| self.has(*flag));
        names.map(|(_, name)| name)
    }
}

/// The place of a command in [`COMMANDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommandId(u8);

impl CommandId {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(crate) fn from_index(index: usize) -> Option<Self> {
        (index < COMMANDS.len())
            .then_some(index)
            .and_then(|index| u8::try_from(index).ok())
            .map(Self)
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..COMMANDS.len()).filter_map(Self::from_index)
    }

    pub(crate) fn command(self) -> &'static Command {
        // An id is only made of a place in the table.
        COMMANDS.get(self.index()).unwrap_or(&COMMANDS[0])
    }
}

/// Finds a command by its name in any case. Cost: one hash of a few bytes and, nearly always, one
/// comparison; allocates nothing.
pub(crate) fn find(name: &[u8]) -> Option<CommandId> {
    let mut slot = hash(name);
    loop {
        let place = *INDEX.get(slot)?;
        let id = CommandId(place);
        let command = COMMANDS.get(id.index())?;
        if command.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(id);
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// Finds a second word of `command`.
pub(crate) fn find_subcommand(command: &'static Command, name: &[u8]) -> Option<&'static Command> {
    command
        .subcommands
        .iter()
        .find(|sub| sub.name.as_bytes().eq_ignore_ascii_case(name))
}

const SLOTS: usize = 512;
const EMPTY: u8 = u8::MAX;

/// Spreads names over the slots of [`INDEX`]; case does not matter. Only our own names are in the
/// index, so what clients send cannot make its chains longer.
const fn hash(name: &[u8]) -> usize {
    let mut hash = name.len();
    let mut at = 0;
    while at < name.len() && at < 12 {
        hash = hash.wrapping_mul(37) ^ (name[at] | 0x20) as usize;
        at += 1;
    }
    (hash ^ hash >> 9) % SLOTS
}

/// Open addressing with linear probing, filled at compile time; `EMPTY` ends a chain.
static INDEX: [u8; SLOTS] = {
    let mut index = [EMPTY; SLOTS];
    let mut place = 0;
    while place < COMMANDS.len() {
        let mut slot = hash(COMMANDS[place].name.as_bytes());
        while index[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        #[expect(clippy::cast_possible_truncation, reason = "asserted below")]
        {
            index[slot] = place as u8;
        }
        place += 1;
    }
    index
};
const _: () = assert!(COMMANDS.len() < EMPTY as usize);

const fn flags(list: &[Flag]) -> u16 {
    let mut bits = 0;
    let mut at = 0;
    while at < list.len() {
        bits |= list[at] as u16;
        at += 1;
    }
    bits
}

const READ: u16 = flags(&[Flag::ReadOnly]);
const READ_FAST: u16 = flags(&[Flag::ReadOnly, Flag::Fast]);
const WRITE: u16 = flags(&[Flag::Write]);
const WRITE_FAST: u16 = flags(&[Flag::Write, Flag::Fast]);
const STORE: u16 = flags(&[Flag::Write, Flag::DenyOom]);
const STORE_FAST: u16 = flags(&[Flag::Write, Flag::DenyOom, Flag::Fast]);
const SESSION: u16 = flags(&[Flag::NoScript, Flag::Loading, Flag::Stale]);
const SESSION_FAST: u16 = flags(&[Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Fast]);
const GREETING: u16 = flags(&[
    Flag::NoScript,
    Flag::Loading,
    Flag::Stale,
    Flag::Fast,
    Flag::NoAuth,
]);
const SERVER: u16 = flags(&[Flag::Loading, Flag::Stale]);
const SERVER_FAST: u16 = flags(&[Flag::Loading, Flag::Stale, Flag::Fast]);
const OPERATOR: u16 = flags(&[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale]);

/// A line: name, arity, flags, keys, handler; then group, first version of Redis that had it, summary.
const fn line(
    name: &'static str,
    arity: i8,
    flags: u16,
    keys: Keys,
    run: Handler,
    (group, since, summary): (&'static str, &'static str, &'static str),
) -> Command {
    Command {
        name,
        full_name: name,
        arity,
        flags,
        keys,
        group,
        since,
        summary,
        run,
        subcommands: &[],
    }
}

/// A command whose second word says what it does.
const fn family(command: Command, subcommands: &'static [Command]) -> Command {
    Command {
        subcommands,
        ..command
    }
}

/// A line of a family.
const fn member(
    (name, full_name): (&'static str, &'static str),
    arity: i8,
    flags: u16,
    run: Handler,
    about: (&'static str, &'static str, &'static str),
) -> Command {
    let command = line(name, arity, flags, NO_KEYS, run, about);
    Command {
        full_name,
        ..command
    }
}

const CONNECTION: &str = "connection";
const GENERIC: &str = "generic";
const STRING: &str = "string";
const SERVERS: &str = "server";
const NEARCACHE: &str = "nearcache";

/// Every command, by group and then by use.
#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    line("get", 2, READ_FAST, ONE_KEY, strings::get, (STRING, "1.0.0", "Returns the string value of a key.")),
    line("set", -3, STORE, ONE_KEY, set::set, (STRING, "1.0.0", "Sets the string value of a key, ignoring its type. The key is created if it doesn't exist.")),
    line("mget", -2, READ_FAST, ALL_KEYS, strings::mget, (STRING, "1.0.0", "Returns the string values of one or more keys; each read on its own.")),
    line("mset", -3, STORE, PAIRS, strings::mset, (STRING, "1.0.1", "Sets the string values of one or more keys; each written on its own.")),
    line("setnx", 3, STORE_FAST, ONE_KEY, set::setnx, (STRING, "1.0.0", "Sets the string value of a key only when the key doesn't exist.")),
    line("setex", 4, STORE, ONE_KEY, set::setex, (STRING, "2.0.0", "Sets the string value and expiration time of a key.")),
    line("psetex", 4, STORE, ONE_KEY, set::psetex, (STRING, "2.6.0", "Sets both string value and expiration time in milliseconds of a key.")),
    line("getset", 3, STORE_FAST, ONE_KEY, set::getset, (STRING, "1.0.0", "Returns the previous string value of a key after setting it to a new value.")),
    line("getdel", 2, WRITE_FAST, ONE_KEY, strings::getdel, (STRING, "6.2.0", "Returns the string value of a key after deleting the key.")),
    line("getex", -2, WRITE_FAST, ONE_KEY, strings::getex, (STRING, "6.2.0", "Returns the string value of a key after setting its expiration time.")),
    line("strlen", 2, READ_FAST, ONE_KEY, strings::strlen, (STRING, "2.2.0", "Returns the length of a string value.")),
    line("getrange", 4, READ, ONE_KEY, strings::getrange, (STRING, "2.4.0", "Returns a substring of the string stored at a key.")),
    line("substr", 4, READ, ONE_KEY, strings::getrange, (STRING, "1.0.0", "Returns a substring from a string value.")),
    line("incr", 2, STORE_FAST, ONE_KEY, counters::incr, (STRING, "1.0.0", "Increments the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.")),
    line("decr", 2, STORE_FAST, ONE_KEY, counters::decr, (STRING, "1.0.0", "Decrements the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.")),
    line("incrby", 3, STORE_FAST, ONE_KEY, counters::incrby, (STRING, "1.0.0", "Increments the integer value of a key by a number. Uses 0 as initial value if the key doesn't exist.")),
    line("decrby", 3, STORE_FAST, ONE_KEY, counters::decrby, (STRING, "1.0.0", "Decrements a number from the integer value of a key. Uses 0 as initial value if the key doesn't exist.")),

    line("del", -2, WRITE, ALL_KEYS, keys::del, (GENERIC, "1.0.0", "Deletes one or more keys.")),
    line("unlink", -2, WRITE_FAST, ALL_KEYS, keys::del, (GENERIC, "4.0.0", "Deletes one or more keys.")),
    line("exists", -2, READ_FAST, ALL_KEYS, keys::exists, (GENERIC, "1.0.0", "Determines whether one or more keys exist.")),
    line("touch", -2, READ_FAST, ALL_KEYS, keys::touch, (GENERIC, "3.2.1", "Returns the number of existing keys out of those specified after updating the time they were last accessed.")),
    line("type", 2, READ_FAST, ONE_KEY, keys::type_of, (GENERIC, "1.0.0", "Determines the type of value stored at a key.")),
    line("ttl", 2, READ_FAST, ONE_KEY, expiry::ttl, (GENERIC, "1.0.0", "Returns the expiration time in seconds of a key.")),
    line("pttl", 2, READ_FAST, ONE_KEY, expiry::pttl, (GENERIC, "2.6.0", "Returns the expiration time in milliseconds of a key.")),
    line("expiretime", 2, READ_FAST, ONE_KEY, expiry::expiretime, (GENERIC, "7.0.0", "Returns the expiration time of a key as a Unix timestamp.")),
    line("pexpiretime", 2, READ_FAST, ONE_KEY, expiry::pexpiretime, (GENERIC, "7.0.0", "Returns the expiration time of a key as a Unix milliseconds timestamp.")),
    line("expire", -3, WRITE_FAST, ONE_KEY, expiry::expire, (GENERIC, "1.0.0", "Sets the expiration time of a key in seconds.")),
    line("pexpire", -3, WRITE_FAST, ONE_KEY, expiry::pexpire, (GENERIC, "2.6.0", "Sets the expiration time of a key in milliseconds.")),
    line("expireat", -3, WRITE_FAST, ONE_KEY, expiry::expireat, (GENERIC, "1.2.0", "Sets the expiration time of a key to a Unix timestamp.")),
    line("pexpireat", -3, WRITE_FAST, ONE_KEY, expiry::pexpireat, (GENERIC, "2.6.0", "Sets the expiration time of a key to a Unix milliseconds timestamp.")),
    line("persist", 2, WRITE_FAST, ONE_KEY, expiry::persist, (GENERIC, "2.2.0", "Removes the expiration time of a key.")),
    line("keys", 2, READ, NO_KEYS, scan::keys, (GENERIC, "1.0.0", "Returns all key names that match a pattern.")),
    line("scan", -2, READ, NO_KEYS, scan::scan, (GENERIC, "2.8.0", "Iterates over the key names in the database.")),

    line("ping", -1, flags(&[Flag::Fast]), NO_KEYS, connection::ping, (CONNECTION, "1.0.0", "Returns the server's liveliness response.")),
    line("echo", 2, flags(&[Flag::Loading, Flag::Stale, Flag::Fast]), NO_KEYS, connection::echo, (CONNECTION, "1.0.0", "Returns the given string.")),
    line("hello", -1, GREETING, NO_KEYS, connection::hello, (CONNECTION, "6.0.0", "Handshakes with the server.")),
    line("auth", -2, GREETING, NO_KEYS, connection::auth, (CONNECTION, "1.0.0", "Authenticates the connection.")),
    line("quit", -1, GREETING, NO_KEYS, connection::quit, (CONNECTION, "1.0.0", "Closes the connection.")),
    line("reset", 1, GREETING, NO_KEYS, connection::reset, (CONNECTION, "6.2.0", "Resets the connection.")),
    line("select", 2, SERVER_FAST, NO_KEYS, connection::select, (CONNECTION, "1.0.0", "Changes the selected database.")),
    family(line("client", -2, SESSION, NO_KEYS, client::client, (CONNECTION, "2.4.0", "A container for client connection commands.")), CLIENT),

    family(line("command", -1, SERVER, NO_KEYS, command::command, (SERVERS, "2.8.13", "Returns detailed information about all commands.")), COMMAND),
    family(line("config", -2, OPERATOR, NO_KEYS, config::config, (SERVERS, "2.0.0", "A container for server configuration commands.")), CONFIG),
    line("info", -1, SERVER, NO_KEYS, info::info, (SERVERS, "1.0.0", "Returns information and statistics about the server.")),
    line("dbsize", 1, READ_FAST, NO_KEYS, server::dbsize, (SERVERS, "1.0.0", "Returns the number of keys in the database.")),
    line("flushdb", -1, WRITE, NO_KEYS, server::flushdb, (SERVERS, "1.0.0", "Removes all keys from the current database.")),
    line("flushall", -1, WRITE, NO_KEYS, server::flushall, (SERVERS, "1.0.0", "Removes all keys from all databases.")),
    line("time", 1, SERVER_FAST, NO_KEYS, server::time, (SERVERS, "2.6.0", "Returns the server time.")),

    line("nc.getfresh", 3, READ, ONE_KEY, fresh::getfresh, (NEARCACHE, "0.1.0", "Returns the string value of a key, at most so many milliseconds behind the other nodes.")),
    line("nc.freshness", 1, READ_FAST, NO_KEYS, fresh::freshness, (NEARCACHE, "0.1.0", "Returns how far behind the other nodes this one may be.")),
    line("nc.getfill", 2, READ, ONE_KEY, fresh::getfill, (NEARCACHE, "0.1.0", "Returns the string value of a key, or a token for the value that is loaded now.")),
    line("nc.fill", -4, STORE_FAST, ONE_KEY, fresh::fill, (NEARCACHE, "0.1.0", "Keeps a loaded value unless the key was written or invalidated since its token was given.")),
];

#[rustfmt::skip]
const CLIENT: &[Command] = &[
    member(("id", "client|id"), 2, SESSION, client::id, (CONNECTION, "5.0.0", "Returns the unique client ID of the connection.")),
    member(("getname", "client|getname"), 2, SESSION, client::getname, (CONNECTION, "2.6.9", "Returns the name of the connection.")),
    member(("setname", "client|setname"), 3, SESSION, client::setname, (CONNECTION, "2.6.9", "Sets the connection name.")),
    member(("setinfo", "client|setinfo"), 4, SESSION, client::setinfo, (CONNECTION, "7.2.0", "Sets information specific to the client or connection.")),
    member(("info", "client|info"), 2, SESSION, client::info, (CONNECTION, "6.2.0", "Returns information about the connection.")),
    member(("list", "client|list"), -2, SESSION, client::list, (CONNECTION, "2.4.0", "Lists open connections.")),
    member(("help", "client|help"), 2, SESSION_FAST, client::help, (CONNECTION, "5.0.0", "Returns helpful text about the different subcommands.")),
];

#[rustfmt::skip]
const COMMAND: &[Command] = &[
    member(("count", "command|count"), 2, SERVER, command::count, (SERVERS, "2.8.13", "Returns a count of commands.")),
    member(("docs", "command|docs"), -2, SERVER, command::docs, (SERVERS, "7.0.0", "Returns documentary information about one, multiple or all commands.")),
    member(("info", "command|info"), -2, SERVER, command::info, (SERVERS, "2.8.13", "Returns information about one, multiple or all commands.")),
    member(("list", "command|list"), -2, SERVER, command::list, (SERVERS, "7.0.0", "Returns a list of command names.")),
    member(("help", "command|help"), 2, SERVER, command::help, (SERVERS, "5.0.0", "Returns helpful text about the different subcommands.")),
];

#[rustfmt::skip]
const CONFIG: &[Command] = &[
    member(("get", "config|get"), -3, OPERATOR, config::get, (SERVERS, "2.0.0", "Returns the effective values of configuration parameters.")),
    member(("help", "config|help"), 2, OPERATOR, config::help, (SERVERS, "5.0.0", "Returns helpful text about the different subcommands.")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name_in_any_case() {
        for id in CommandId::all() {
            let name = id.command().name;
            assert_eq!(find(name.as_bytes()), Some(id), "{name}");
            assert_eq!(
                find(name.to_ascii_uppercase().as_bytes()),
                Some(id),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_no_command_is_not_found() {
        let long = vec![b'x'; 70_000];
        for name in [&b""[..], b"gett", b"ge", b"\0", b"client|list", &long] {
            assert_eq!(find(name), None);
        }
    }

    #[test]
    fn names_differ() {
        let mut names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COMMANDS.len());
    }

    #[test]
    fn only_what_greets_runs_before_authentication() {
        let open: Vec<_> = COMMANDS
            .iter()
            .filter(|command| command.has(Flag::NoAuth))
            .map(|command| command.name)
            .collect();
        assert_eq!(open, ["hello", "auth", "quit", "reset"]);
    }

    #[test]
    fn a_command_is_for_reading_or_for_writing_and_not_for_both() {
        for command in COMMANDS {
            assert!(
                !(command.has(Flag::Write) && command.has(Flag::ReadOnly)),
                "{}",
                command.name
            );
        }
    }
}
