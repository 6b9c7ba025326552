//! `COMMAND`: the table of commands, told to clients.

use super::{
    super::{error::CommandError, writer::Writer},
    Call, Outcome,
    client::{run_second_word, write_help},
    table::{COMMANDS, Command, Flag, find, find_subcommand},
};

pub(super) fn command(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    if call.args.len() > 1 {
        return run_second_word(call);
    }
    call.reply.array(COMMANDS.len());
    for command in COMMANDS {
        write_info(call.reply, command);
    }
    Ok(Outcome::Done)
}

pub(super) fn count(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    call.reply.count(COMMANDS.len());
    Ok(Outcome::Done)
}

pub(super) fn info(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    if call.args.len() == 2 {
        call.reply.array(COMMANDS.len());
        for command in COMMANDS {
            write_info(call.reply, command);
        }
        return Ok(Outcome::Done);
    }
    call.reply.array(call.args.len() - 2);
    for name in call.args.from(2) {
        match named(name) {
            Some(command) => write_info(call.reply, command),
            None => call.reply.null(),
        }
    }
    Ok(Outcome::Done)
}

pub(super) fn docs(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let named: Vec<&Command> = if call.args.len() == 2 {
        COMMANDS.iter().collect()
    } else {
        call.args.from(2).filter_map(named).collect()
    };
    call.reply.map(named.len());
    for command in named {
        call.reply.bulk(command.full_name.as_bytes());
        write_docs(call.reply, command);
    }
    Ok(Outcome::Done)
}

pub(super) fn list(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let names: Vec<&str> = match call.args.len() {
        2 => COMMANDS.iter().map(|command| command.name).collect(),
        5 if call.args.at(2).eq_ignore_ascii_case(b"FILTERBY") => {
            let wanted = call.args.at(4);
            let filter = call.args.at(3);
            if filter.eq_ignore_ascii_case(b"PATTERN") {
                let glob = super::scan::pattern(call, &wanted.to_ascii_lowercase())?;
                let names = COMMANDS.iter().map(|command| command.name);
                names.filter(|name| glob.matches(name.as_bytes())).collect()
            } else if filter.eq_ignore_ascii_case(b"ACLCAT") {
                let has = |command: &&Command| {
                    categories(command).any(|name| name.as_bytes().get(1..) == Some(wanted))
                };
                COMMANDS
                    .iter()
                    .filter(has)
                    .map(|command| command.name)
                    .collect()
            } else if filter.eq_ignore_ascii_case(b"MODULE") {
                Vec::new()
            } else {
                return Err(CommandError::Syntax);
            }
        }
        _ => return Err(CommandError::Syntax),
    };
    call.reply.array(names.len());
    for name in names {
        call.reply.bulk(name.as_bytes());
    }
    Ok(Outcome::Done)
}

pub(super) fn help(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let lines = [
        ("(no subcommand)", "Return details about all commands."),
        (
            "COUNT",
            "Return the total number of commands in this server.",
        ),
        ("LIST", "Return a list of all commands in this server."),
        (
            "INFO [<command-name> ...]",
            "Return details about multiple commands.",
        ),
        (
            "DOCS [<command-name> ...]",
            "Return documentation details about multiple commands.",
        ),
    ];
    Ok(write_help(call, "COMMAND", &lines))
}

/// The command of this name; `client|list` names a second word.
fn named(name: &[u8]) -> Option<&'static Command> {
    let mut words = name.splitn(2, |&byte| byte == b'|');
    let command = find(words.next()?)?.command();
    match words.next() {
        None => Some(command),
        Some(second) => find_subcommand(command, second),
    }
}

/// The categories of Redis's access control that a command falls into.
fn categories(command: &Command) -> impl Iterator<Item = &'static str> + Clone + use<> {
    let group = match command.group {
        "string" => Some("@string"),
        "generic" => Some("@keyspace"),
        "connection" => Some("@connection"),
        _ => None,
    };
    let speed = if command.has(Flag::Fast) {
        "@fast"
    } else {
        "@slow"
    };
    let flags = [
        (Flag::Write, "@write"),
        (Flag::ReadOnly, "@read"),
        (Flag::Admin, "@admin"),
    ]
    .map(|(flag, name)| command.has(flag).then_some(name));
    let dangerous = command.has(Flag::Admin).then_some("@dangerous");
    flags
        .into_iter()
        .chain([group, dangerous, Some(speed)])
        .flatten()
}

fn write_info(reply: &mut Writer, command: &Command) {
    reply.array(10);
    reply.bulk(command.full_name.as_bytes());
    reply.integer(i64::from(command.arity));
    reply.set(command.flag_names().count());
    for name in command.flag_names() {
        reply.simple(name);
    }
    reply.integer(i64::from(command.keys.first));
    reply.integer(i64::from(command.keys.last));
    reply.integer(i64::from(command.keys.step));
    let categories = categories(command);
    reply.set(categories.clone().count());
    for name in categories {
        reply.simple(name);
    }
    // Tips and key specifications: none beyond the positions above.
    reply.array(0);
    reply.array(0);
    reply.array(command.subcommands.len());
    for second in command.subcommands {
        write_info(reply, second);
    }
}

fn write_docs(reply: &mut Writer, command: &Command) {
    reply.map(3 + usize::from(!command.subcommands.is_empty()));
    for (label, text) in [
        ("summary", command.summary),
        ("since", command.since),
        ("group", command.group),
    ] {
        reply.bulk(label.as_bytes());
        reply.bulk(text.as_bytes());
    }
    if !command.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(command.subcommands.len());
        for second in command.subcommands {
            reply.bulk(second.full_name.as_bytes());
            write_docs(reply, second);
        }
    }
}
