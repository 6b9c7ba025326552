//! `CLIENT`: who is connected, and what they call themselves.

use super::{
    super::{
        clients::Client,
        error::{CommandError, quoted},
        parser::parse_u64,
    },
    Call, Outcome, table, unsupported,
};

/// Longest name a client may give itself or its library.
const NAME_BYTES_MAX: usize = 256;

pub(super) fn client(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    run_second_word(call)
}

/// Runs the line of the table that the second word names.
pub(super) fn run_second_word(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let second = call.args.at(1);
    let Some(command) = table::find_subcommand(call.command, second) else {
        if unsupported::is_second_word_of_redis(call.command.name, second) {
            let full = [call.command.name.as_bytes(), b"|", second].concat();
            return Err(CommandError::not_supported(&full.to_ascii_lowercase()));
        }
        return Err(CommandError::unknown_subcommand(call.args));
    };
    if !command.accepts(call.args.len()) {
        return Err(CommandError::Arity {
            name: command.full_name,
        });
    }
    call.command = command;
    (command.run)(call)
}

/// Lists the second words of a command, as its `HELP` does.
pub(super) fn write_help(call: &mut Call<'_>, name: &str, lines: &[(&str, &str)]) -> Outcome {
    call.reply.array(1 + 2 * lines.len());
    call.reply.simple(&format!(
        "{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    ));
    for (usage, meaning) in lines {
        call.reply.simple(usage);
        call.reply.simple(&format!("    {meaning}"));
    }
    Outcome::Done
}

pub(super) fn id(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    call.reply
        .integer(i64::try_from(call.session.client.id).unwrap_or(i64::MAX));
    Ok(Outcome::Done)
}

pub(super) fn getname(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let name = call.session.client.names().name.clone();
    if name.is_empty() {
        call.reply.null();
    } else {
        call.reply.bulk(name.as_bytes());
    }
    Ok(Outcome::Done)
}

pub(super) fn setname(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let name = valid_name(call.args.at(2))?;
    call.session.client.names().name = name;
    call.reply.ok();
    Ok(Outcome::Done)
}

pub(super) fn setinfo(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let (attribute, value) = (call.args.at(2), call.args.at(3));
    let is_version = attribute.eq_ignore_ascii_case(b"lib-ver");
    if !is_version && !attribute.eq_ignore_ascii_case(b"lib-name") {
        return Err(CommandError::UnrecognizedOption {
            option: quoted(attribute, 128),
        });
    }
    let value = plain_text(value).ok_or(CommandError::Other(if is_version {
        "lib-ver cannot contain spaces, newlines or special characters."
    } else {
        "lib-name cannot contain spaces, newlines or special characters."
    }))?;
    let mut names = call.session.client.names();
    if is_version {
        names.library_version = value;
    } else {
        names.library = value;
    }
    drop(names);
    call.reply.ok();
    Ok(Outcome::Done)
}

/// A name fit for one word of `CLIENT LIST`.
pub(super) fn valid_name(name: &[u8]) -> Result<String, CommandError> {
    plain_text(name).ok_or(CommandError::Other(
        "Client names cannot contain spaces, newlines or special characters.",
    ))
}

fn plain_text(text: &[u8]) -> Option<String> {
    let is_plain = text.len() <= NAME_BYTES_MAX && text.iter().all(u8::is_ascii_graphic);
    is_plain.then(|| String::from_utf8_lossy(text).into_owned())
}

pub(super) fn info(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let now_ms = call.session.server.time.now_ms();
    let line = call.session.client.describe(now_ms) + "\n";
    call.reply.verbatim(&line);
    Ok(Outcome::Done)
}

/// `CLIENT LIST [TYPE normal|master|replica|pubsub] [ID id ...]`.
pub(super) fn list(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let server = &call.session.server;
    let mut clients = server.clients.all();
    match call.args.len() {
        2 => {}
        4 if call.args.at(2).eq_ignore_ascii_case(b"TYPE") => {
            let kind = call.args.at(3).to_ascii_lowercase();
            match &kind[..] {
                b"normal" => {}
                b"master" | b"replica" | b"slave" | b"pubsub" => clients.clear(),
                _ => {
                    return Err(CommandError::UnknownClientType {
                        kind: quoted(&kind, 128),
                    });
                }
            }
        }
        4.. if call.args.at(2).eq_ignore_ascii_case(b"ID") => {
            let ids = call.args.from(3).map(parse_u64).collect::<Option<Vec<_>>>();
            let ids = ids.ok_or(CommandError::Other("Invalid client ID"))?;
            clients.retain(|client| ids.contains(&client.id));
        }
        _ => return Err(CommandError::Syntax),
    }
    let now_ms = server.time.now_ms();
    let describe = |client: &std::sync::Arc<Client>| client.describe(now_ms) + "\n";
    let lines: String = clients.iter().map(describe).collect();
    call.reply.verbatim(&lines);
    Ok(Outcome::Done)
}

pub(super) fn help(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let lines = [
        ("GETNAME", "Return the name of the current connection."),
        ("ID", "Return the ID of the current connection."),
        (
            "INFO",
            "Return information about the current client connection.",
        ),
        (
            "LIST [options ...]",
            "Return information about client connections.",
        ),
        (
            "SETINFO <option> <value>",
            "Set client meta attr: LIB-NAME or LIB-VER.",
        ),
        (
            "SETNAME <name>",
            "Assign the name <name> to the current connection.",
        ),
    ];
    Ok(write_help(call, "CLIENT", &lines))
}
