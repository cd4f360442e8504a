//! What goes over the control socket: one JSON object a line, in both directions.
//!
//! A request has the version `v` and the member `do`; a reply has the member `is`. Every request has
//! one reply, except `export` (a row of pieces up to `exported`), `verify` (up to `verified`), `files` (see `files.rs`) and `end`
//! (answered when the daemon ends). `stay` is the last request of its connection. A line that cannot be understood is answered with an `error`, and the connection is closed.
//! Members that are not known are ignored, so that newer programs can say more.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files::{FileAsk, FileReply};
use super::report::Report;

/// The version of what is said here. A daemon answers no other.
pub(crate) const VERSION: u64 = 1;
/// The longest request, bytes: a path, four times over for its escapes.
pub(crate) const LONGEST_REQUEST: usize = 64 << 10;
/// The longest reply, bytes.
pub(crate) const LONGEST_REPLY: usize = 16 << 20;
/// The most changes that one reply describes.
pub(crate) const MOST_CHANGES: usize = 1000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// Who is there.
    Hello,
    /// A report, with the details of up to `most` changes.
    Status {
        /// How many changes to describe.
        most: usize,
        /// The mark of a `flush`: older changes are counted separately.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mark: Option<i64>,
    },
    /// Everything that waits is due now.
    Flush,
    /// How fast transfers may be.
    Bandwidth {
        /// What holds from now on, as `--bwlimit` has it; else nothing changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<String>,
    },
    /// Parked changes are tried again.
    Retry {
        /// Of this path and below; else all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// The changes of a path are forgotten.
    Discard {
        /// The path below the mountpoint.
        path: String,
    },
    /// What exists here of a changed file.
    Export {
        /// The path below the mountpoint.
        path: String,
    },
    /// The files at or below a path are compared with their checksums.
    Verify {
        /// The path below the mountpoint.
        path: String,
    },
    /// About files of the account.
    Files {
        /// What about them.
        ask: FileAsk,
    },
    /// Where its remote is configured.
    Configuration,
    /// Answered when the daemon ends.
    End,
    /// More is to be asked, over other connections: a command does not end while this one lasts.
    Stay,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// To `hello`.
    Hello(Hello),
    /// To `status`.
    Status(Box<Report>),
    /// To `flush`.
    Flushed {
        /// For `status`: the moment of the flush.
        mark: i64,
    },
    /// To `bandwidth`.
    Bandwidth {
        /// The limit or timetable.
        rule: String,
        /// Bytes a second to Mega now, if that is limited.
        up: Option<u64>,
        /// From Mega.
        down: Option<u64>,
    },
    /// To `retry`.
    Retried {
        /// How many changes are tried again.
        count: usize,
    },
    /// To `discard`.
    Discarded {
        /// What was forgotten.
        paths: Vec<String>,
    },
    /// To `export`: it begins. Bytes that no piece tells of are zero.
    Exporting {
        /// The length of the file.
        size: u64,
    },
    /// A piece of an export.
    Piece {
        /// Where it belongs.
        offset: u64,
        /// The bytes, in Mega's base64.
        data: String,
    },
    /// A piece of an export that is nowhere to be had.
    Missing {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// The export is complete.
    Exported,
    /// To `verify`: how far it is; again and again.
    Verifying {
        /// Files found.
        files: usize,
        /// Their bytes.
        bytes: u64,
        /// Bytes that were checked.
        done: u64,
    },
    /// A file that is not as it should be, or could not be checked.
    Doubtful {
        /// Where it is, below the mountpoint.
        path: String,
        /// Why, for people.
        text: String,
    },
    /// The last answer to `verify`.
    Verified {
        /// Files that match their checksums.
        good: usize,
        /// Files that do not, or could not be checked.
        bad: usize,
        /// Files that Mega does not have yet.
        changed: usize,
    },
    /// To `files`.
    Files {
        /// The answer, or one of several.
        reply: Box<FileReply>,
    },
    /// To `configuration`.
    Configuration(Configuration),
    /// To `end`.
    Ended {
        /// How many changes are left for the next mount.
        left: usize,
    },
    /// To `stay`: nobody ends until the connection does.
    Staying,
    /// To `stay`: too late, it is about to end.
    Leaving,
    /// It was not done.
    Error {
        /// For programs.
        code: Fault,
        /// For people.
        text: String,
    },
}

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fault {
    /// The request was not understood.
    BadRequest,
    /// The request is of another version of this protocol.
    Version,
    /// Too many ask at once.
    Crowded,
    /// There is no such change.
    NotFound,
    /// It is in use, or on its way.
    Busy,
    /// Something else is in the way; the text says what.
    Failed,
    /// There is no such file or folder.
    Absent,
    /// Mega cannot be reached.
    Network,
    /// Mega does not take the session.
    Login,
    /// The local disk is in the way.
    Local,
    /// It is kept, and not on Mega yet.
    Late,
}

/// Who is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The name of the remote.
    pub(crate) remote: String,
    /// The folder of it that is mounted; empty for all.
    pub(crate) path: String,
    /// Where it is mounted; characters that are not UTF-8 are replaced.
    pub(crate) mountpoint: String,
    /// The process id of the daemon.
    pub(crate) pid: u32,
    /// The version of the program.
    pub(crate) program: String,
}

/// What a command has to know of a remote, and need not read the configuration for where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Configuration {
    /// The file that has the remote, from the root and without links.
    pub(crate) file: String,
    /// How many files are uploaded at a time.
    pub(crate) uploads: u16,
    /// Whether it is a public link.
    pub(crate) is_link: bool,
}

/// A request as a line.
pub(crate) fn request(ask: &Ask) -> Vec<u8> {
    let mut value = serde_json::to_value(ask).unwrap_or_default();
    if let Some(members) = value.as_object_mut() {
        members.insert("v".to_owned(), Value::from(VERSION));
    }
    line(&value)
}

/// A line as a request.
pub(crate) fn parse_request(line: &[u8]) -> Result<Ask, Reply> {
    let error = |code, text: &str| Reply::Error {
        code,
        text: text.to_owned(),
    };
    let bad = |_| error(Fault::BadRequest, "this is not a request");
    let value: Value = serde_json::from_slice(line).map_err(bad)?;
    match value.get("v").and_then(Value::as_u64) {
        Some(VERSION) => serde_json::from_value(value).map_err(bad),
        Some(_) => Err(error(
            Fault::Version,
            "the mount was made by another version of megamount. Unmount it and mount it again",
        )),
        None => Err(error(Fault::BadRequest, "this is not a request")),
    }
}

/// A value as a line.
pub(crate) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_way() {
        for ask in [
            Ask::Hello,
            Ask::Status {
                most: 7,
                mark: Some(-1),
            },
            Ask::Flush,
            Ask::Retry { path: None },
            Ask::Discard {
                path: "a\n\u{f6}".to_owned(),
            },
            Ask::End,
            Ask::Stay,
        ] {
            let line = request(&ask);
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(parse_request(&line).unwrap(), ask);
        }
    }

    #[test]
    fn requests_may_say_more() {
        let line = br#"{"v":1,"do":"flush","colour":"red"}"#;
        assert_eq!(parse_request(line).unwrap(), Ask::Flush);
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        for (line, expected) in [
            (&b""[..], Fault::BadRequest),
            (b"\xff\xfe", Fault::BadRequest),
            (b"[]", Fault::BadRequest),
            (b"{\"do\":\"hello\"}", Fault::BadRequest),
            (b"{\"v\":1,\"do\":\"dance\"}", Fault::BadRequest),
            (b"{\"v\":1,\"do\":\"discard\"}", Fault::BadRequest),
            (b"{\"v\":2,\"do\":\"hello\"}", Fault::Version),
        ] {
            let Err(Reply::Error { code, .. }) = parse_request(line) else {
                panic!("{line:?}");
            };
            assert_eq!(code, expected, "{line:?}");
        }
    }
}
