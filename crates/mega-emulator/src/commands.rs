//! Owns the list of commands (protocol/06 section 4) and their common parts; each family is a
//! module below. Unknown commands answer -2 and count as violations.

pub(crate) mod account;
pub(crate) mod create;
pub(crate) mod login;
pub(crate) mod modify;
pub(crate) mod share_keys;
pub(crate) mod sharing;
pub(crate) mod transfer;

use serde_json::{Map, Value, json};

use crate::codec::Handle;
use crate::cs::{Answer, Context};
use crate::state::State;

/// Arguments of a command.
pub(crate) type Args = Map<String, Value>;

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs() as i64)
}

/// A string member, empty when missing.
pub(crate) fn text<'a>(args: &'a Args, name: &str) -> &'a str {
    args.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A number member; numeric strings and booleans count as well.
pub(crate) fn number(args: &Args, name: &str) -> Option<i64> {
    match args.get(name)? {
        Value::Number(n) => n.as_i64(),
        Value::String(s) => s.parse().ok(),
        Value::Bool(b) => Some(i64::from(*b)),
        _ => None,
    }
}

/// A node handle member.
pub(crate) fn handle(args: &Args, name: &str) -> Option<Handle> {
    Handle::parse(text(args, name))
}

/// The client's `i`, to be echoed.
pub(crate) fn client_id(args: &Args) -> Option<String> {
    args.get("i").and_then(Value::as_str).map(str::to_owned)
}

/// Runs one command.
pub(crate) fn run(state: &mut State, context: &Context<'_>, name: &str, args: &Args) -> Answer {
    match name {
        "us0" => return login::prelogin(state, args),
        "us" => return login::login(state, context, args),
        "gmf" => return Answer::Data(json!({})),
        "mfag" => return Answer::Data(json!(0)),
        "log" | "uh" => return Answer::Data(json!(0)),
        "up" if context.user.is_none() => return login::ephemeral(state, args),
        "pli" => return sharing::link_info(state, args),
        "g" => return transfer::download(state, context, args),
        "f" => return account::tree(state, context),
        _ => {}
    }
    let Some(user) = context.user.clone() else {
        context.violation(format!("{name} without a session"));
        return Answer::Error(-15);
    };
    let user = user.as_str();
    let blocked = state.users.get(user).map_or(0, |u| u.blocked);
    if blocked != 0 && !matches!(name, "whyamiblocked" | "ug" | "sml") {
        return Answer::Error(-16);
    }
    match name {
        "ug" => account::user(state, context, user, args),
        "uq" => account::quota(state, user, args),
        "sml" => {
            state.end_session(&context.sid);
            Answer::Data(json!(0))
        }
        "usl" => account::sessions(state, context, user),
        "usr" => account::end_sessions(state, context, user, args),
        "up" | "up2" => account::set_attribute(state, user, name, args),
        "upv" => account::set_versioned(state, user, args),
        "uga" => account::get_attribute(state, user, args),
        "uk" => account::public_key(state, args),
        "whyamiblocked" => Answer::Data(json!(blocked)),
        "qbq" => account::transfer_quota(context, args),
        "u" => transfer::upload(state, context, user, args),
        "ufa" => transfer::thumbnail(context, args),
        "p" => create::create(state, context, user, args),
        "m" => modify::relocate(state, context, user, args),
        "a" => modify::attributes(state, context, user, args),
        "d" => modify::delete(state, context, user, args),
        "dr" => modify::empty_bin(state, user, args),
        "dv" => modify::delete_versions(state, user, args),
        "pfa" => modify::file_attributes(state, user, args),
        "l" => sharing::link(state, context, user, args),
        "s2" => sharing::share(state, context, user, args),
        "k" => sharing::keys(state, context, user, args),
        "ur" | "ur2" => Answer::Data(json!(0)),
        "pk" => crate::account_keys::pending(state, user, args),
        "gpsa" | "gban" | "abta" => Answer::Error(-9),
        "ftz" | "stp" => Answer::Data(json!({})),
        "sse" | "sf" | "gnotif" | "asur" => Answer::Data(json!([])),
        "sp" => Answer::Data(json!(crate::codec::b64(&state.random::<8>()))),
        "sla" => Answer::Data(json!(0)),
        _ => {
            context.violation(format!("unknown command {name}"));
            Answer::Error(-2)
        }
    }
}
