//! `CONFIG GET`: what of Redis's configuration has a counterpart here. It changes nothing, and it
//! shows no secret.

use super::{
    super::error::CommandError,
    Call, Outcome,
    client::{run_second_word, write_help},
    scan,
};

pub(super) fn config(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    run_second_word(call)
}

pub(super) fn get(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let parameters = parameters(call);
    let mut patterns = Vec::with_capacity(call.args.len() - 2);
    for text in call.args.from(2) {
        patterns.push(scan::pattern(call, &text.to_ascii_lowercase())?);
    }
    let is_wanted = |name: &str| patterns.iter().any(|glob| glob.matches(name.as_bytes()));
    let wanted: Vec<_> = parameters
        .into_iter()
        .filter(|(name, _)| is_wanted(name))
        .collect();
    call.reply.map(wanted.len());
    for (name, value) in wanted {
        call.reply.bulk(name.as_bytes());
        call.reply.bulk(value.as_bytes());
    }
    Ok(Outcome::Done)
}

/// Redis's names with our values.
fn parameters(call: &Call<'_>) -> Vec<(&'static str, String)> {
    let context = call.session.context();
    let limits = &context.limits;
    vec![
        ("appendonly", "no".to_owned()),
        (
            "client-output-buffer-limit",
            format!(
                "normal {} {} {}",
                limits.output_hard_bytes,
                limits.output_soft_bytes,
                limits.output_soft_for.as_secs()
            ),
        ),
        ("databases", context.databases.len().to_string()),
        ("maxclients", limits.client_connections.to_string()),
        ("maxmemory", call.database().max_bytes().to_string()),
        ("maxmemory-policy", "allkeys-lru".to_owned()),
        ("proto-max-bulk-len", limits.value_bytes.to_string()),
        ("save", String::new()),
        (
            "tcp-keepalive",
            super::super::KEEPALIVE.as_secs().to_string(),
        ),
        ("timeout", limits.idle_timeout.as_secs().to_string()),
    ]
}

pub(super) fn help(call: &mut Call<'_>) -> Result<Outcome, CommandError> {
    let lines = [(
        "GET <pattern>",
        "Return parameters matching the glob-like <pattern> and their values.",
    )];
    Ok(write_help(call, "CONFIG", &lines))
}
