//! The protocol trace: what was asked and answered, without what must not be seen.
//!
//! Target `mega_api::wire`, level debug; off unless asked for (`--mega-debug`). What is shown is listed, not what is hidden:
//! commands, handles, numbers and the shape of everything else. Never an address, because it has the session in it.

use serde_json::Value;
use tracing::Level;

/// The target of the lines.
const TARGET: &str = "mega_api::wire";
/// Members whose short texts are commands, handles and positions (protocol/02, protocol/03).
const SHOWN: &[&str] = &[
    "a", "h", "p", "n", "t", "i", "u", "ou", "su", "st", "sn", "tk", "ul",
];
/// A user's handle is the longest of them.
const LONGEST: usize = 11;
/// The longest line, bytes.
const MOST: usize = 16 << 10;

/// Something was sent. `what` says which request it belongs to.
pub(crate) fn sent(what: &str, body: &[u8]) {
    if tracing::enabled!(target: TARGET, Level::DEBUG) && !body.is_empty() {
        tracing::debug!(target: TARGET, what, "> {}", shown(body));
    }
}

/// Something has come.
pub(crate) fn came(what: &str, body: &[u8]) {
    if tracing::enabled!(target: TARGET, Level::DEBUG) {
        tracing::debug!(target: TARGET, what, "< {}", shown(body));
    }
}

fn shown(body: &[u8]) -> String {
    let Ok(mut value) = serde_json::from_slice(body) else {
        return format!("{} bytes", body.len());
    };
    redact("", &mut value);
    let mut text = value.to_string();
    if text.len() > MOST {
        let mut end = MOST;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

fn redact(member: &str, value: &mut Value) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            let is_shown =
                SHOWN.contains(&member) && text.len() <= LONGEST && text.bytes().all(is_plain);
            if !is_shown {
                *text = format!("<{}>", text.len());
            }
        }
        // What is in a list is known by what it is a list of, and shown only inside of objects.
        Value::Array(list) => list.iter_mut().for_each(|value| redact("", value)),
        Value::Object(members) => {
            for (name, value) in members {
                redact(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_only_counted() {
        let login = br#"[{"a":"us","user":"me@example.com","uh":"c2VjcmV0","mfa":"123456"}]"#;
        assert_eq!(
            shown(login),
            r#"[{"a":"us","mfa":"<6>","uh":"<8>","user":"<14>"}]"#
        );
        let answer = br#"[{"csid":"AAAA","k":"BBBB","privk":"CCCC","u":"UUUUUUUUUUU","ach":1}]"#;
        assert_eq!(
            shown(answer),
            r#"[{"ach":1,"csid":"<4>","k":"<4>","privk":"<4>","u":"UUUUUUUUUUU"}]"#
        );
        let put = br#"[{"a":"p","t":"HHHHHHHH","n":[{"h":"xxxxxxxx","t":0,"a":"QUJDREVGR0hJSktMTU5PUA","k":"S"}],
                       "cr":[["HHHHHHHH"],["xxxxxxxx"],[0,0,"T"]]}]"#;
        assert_eq!(
            shown(put),
            r#"[{"a":"p","cr":[["<8>"],["<8>"],[0,0,"<1>"]],"n":[{"a":"<22>","h":"xxxxxxxx","k":"<1>","t":0}],"t":"HHHHHHHH"}]"#
        );
        let address = br#"{"p":"http://x/y","u":"a@b.de","g":["http://x/y"]}"#;
        assert_eq!(shown(address), r#"{"g":["<10>"],"p":"<10>","u":"<6>"}"#);
        assert_eq!(shown(b"-15"), "-15");
        assert_eq!(shown(b"\xff\xfe"), "2 bytes");
    }
}
