//! Commands about the connection itself.

use super::{
    super::{
        IDENTITY,
        error::{CommandError, quoted},
        metrics::CloseReason,
        parser::parse_i64,
        writer::Protocol,
    },
    Call, Outcome, client,
};

pub(super) fn ping(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    match call.args.len() {
        1 => call.reply.simple("PONG"),
        2 => call.reply.bulk(call.args.at(1)),
        _ => return Err(CommandError::Arity { name: "ping" }),
    }
    Ok(Outcome::Done)
}

pub(super) fn echo(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    call.reply.bulk(call.args.at(1));
    Ok(Outcome::Done)
}

pub(super) fn quit(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    call.reply.ok();
    Ok(Outcome::Close(CloseReason::Client))
}

pub(super) fn reset(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    call.session.reset();
    call.reply.set_protocol(Protocol::default());
    call.reply.simple("RESET");
    Ok(Outcome::Done)
}

pub(super) fn select(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let index = usize::try_from(call.integer(1)?).map_err(|_| CommandError::DatabaseIndex)?;
    if !call.session.select(index) {
        return Err(CommandError::DatabaseIndex);
    }
    call.reply.ok();
    Ok(Outcome::Done)
}

pub(super) fn auth(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let (user, password) = match call.args.len() {
        2 => (None, call.args.at(1)),
        3 => (Some(call.args.at(1)), call.args.at(2)),
        _ => return Err(CommandError::Syntax),
    };
    if user.is_none() && call.session.context().auth.is_none() {
        return Err(CommandError::Other(
            "AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        ));
    }
    authenticate(call, user, password)?;
    call.reply.ok();
    Ok(Outcome::Done)
}

fn authenticate(
    call: &mut Call<'_>,
    user: Option<&[u8]>,
    password: &[u8],
) -> Result<(), CommandError> {
    // Without a password configured the only user is the default one, who needs none.
    let is_unknown =
        call.session.context().auth.is_none() && user.is_some_and(|user| user != b"default");
    if is_unknown || !call.session.authenticate(user, password) {
        return Err(CommandError::WrongPassword);
    }
    Ok(())
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`.
pub(super) fn hello(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let args = call.args;
    let protocol = match args.len() {
        1 => None,
        _ => match parse_i64(args.at(1)) {
            Some(2) => Some(Protocol::Resp2),
            Some(3) => Some(Protocol::Resp3),
            Some(_) => return Err(CommandError::ProtocolVersion),
            None => {
                return Err(CommandError::Other(
                    "Protocol version is not an integer or out of range",
                ));
            }
        },
    };
    let (mut credentials, mut name) = (None, None);
    let mut index = 2;
    while index < args.len() {
        let (word, left) = (args.at(index), args.len() - index - 1);
        if word.eq_ignore_ascii_case(b"AUTH") && left >= 2 {
            credentials = Some((args.at(index + 1), args.at(index + 2)));
            index += 3;
        } else if word.eq_ignore_ascii_case(b"SETNAME") && left >= 1 {
            name = Some(client::valid_name(args.at(index + 1))?);
            index += 2;
        } else {
            return Err(CommandError::HelloOption {
                option: quoted(word, 128),
            });
        }
    }
    if let Some((user, password)) = credentials {
        authenticate(call, Some(user), password)?;
    }
    if !call.session.is_authenticated() {
        return Err(CommandError::HelloAuthenticationRequired);
    }
    if let Some(name) = name {
        call.session.client.names().name = name;
    }
    if let Some(protocol) = protocol {
        call.reply.set_protocol(protocol);
        call.session.client.set_protocol(protocol);
    }
    greet(call);
    Ok(Outcome::Done)
}

fn greet(call: &mut Call<'_>) {
    let reply = &mut *call.reply;
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(IDENTITY.redis_version.as_bytes());
    reply.bulk(b"proto");
    reply.integer(i64::from(reply.protocol().number()));
    reply.bulk(b"id");
    reply.integer(i64::try_from(call.session.client.id).unwrap_or(i64::MAX));
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
}
