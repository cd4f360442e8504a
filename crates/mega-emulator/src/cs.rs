//! Owns `POST /cs`: the order of checks (protocol/06 section 2), the reply cache that makes retries
//! idempotent, and the reply forms of protocol versions 1 and 3. A batch runs under one lock, so
//! that "executed" and "cached" cannot come apart.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

use crate::codec::Handle;
use crate::commands;
use crate::faults::FaultAction;
use crate::http::{Body, Reply, Request};
use crate::server::Shared;
use crate::tree::TreeReply;

/// What a command answers.
pub(crate) enum Answer {
    /// Plain data, no change.
    Data(Value),
    /// Failure.
    Error(i64),
    /// A change with its tag; `None` is the plain success `0`.
    Changed(String, Option<Value>),
    /// A command that usually changes something did not; its data.
    Unchanged(Value),
    /// The tree.
    Tree(Box<TreeReply>),
}

/// Who asks.
pub(crate) struct Context<'a> {
    pub(crate) shared: &'a Shared,
    /// Session id, empty without.
    pub(crate) sid: String,
    /// Account of the session.
    pub(crate) user: Option<String>,
    /// Root of the folder link named by `n`.
    pub(crate) link: Option<Handle>,
    /// `v` of the URL, 1 without.
    pub(crate) version: i64,
    /// User-Agent.
    pub(crate) agent: String,
    /// A fault asked for this command's nodes to land in the bin.
    pub(crate) to_rubbish: bool,
    /// A fault asked for this entry of the command to fail so.
    pub(crate) entry_error: Option<(usize, i64)>,
}

impl Context<'_> {
    /// Records a violation with the session's account.
    pub(crate) fn violation(&self, text: impl std::fmt::Display) {
        let user = self.user.as_deref().unwrap_or("anonymous");
        self.shared.tally.violation(format!("[{user}] {text}"));
    }
}

/// Session and request id.
type Key = (String, String);

/// Body of a successful reply.
type Reply200 = Arc<Vec<u8>>;

/// Replies by (session, id); several bodies per id are kept apart.
#[derive(Default)]
pub(crate) struct ReplyCache {
    entries: HashMap<Key, Vec<(Vec<u8>, Reply200)>>,
    order: VecDeque<(Key, usize)>,
    bytes: usize,
}

const CACHE_BYTES: usize = 64 << 20;
const CACHE_ENTRIES: usize = 50_000;

enum Known {
    New,
    Repeat(Arc<Vec<u8>>),
    OtherBody,
}

impl ReplyCache {
    fn find(&self, sid: &str, id: &str, body: &[u8]) -> Known {
        let Some(list) = self.entries.get(&(sid.to_owned(), id.to_owned())) else {
            return Known::New;
        };
        let same = list.iter().find(|(b, _)| b == body);
        same.map_or(Known::OtherBody, |(_, r)| Known::Repeat(r.clone()))
    }

    fn insert(&mut self, sid: &str, id: &str, body: &[u8], reply: Arc<Vec<u8>>) {
        let key = (sid.to_owned(), id.to_owned());
        let size = body.len() + reply.len();
        self.bytes += size;
        self.order.push_back((key.clone(), size));
        self.entries
            .entry(key)
            .or_default()
            .push((body.to_vec(), reply));
        while self.bytes > CACHE_BYTES || self.order.len() > CACHE_ENTRIES {
            let Some((old, size)) = self.order.pop_front() else {
                break;
            };
            self.bytes -= size;
            if let Some(list) = self.entries.get_mut(&old) {
                if !list.is_empty() {
                    list.remove(0);
                }
                if list.is_empty() {
                    self.entries.remove(&old);
                }
            }
        }
    }
}

/// Commands that change nothing that other requests could depend on.
const READING: &[&str] = &[
    "us0",
    "us",
    "ug",
    "f",
    "uq",
    "g",
    "uga",
    "uk",
    "usl",
    "qbq",
    "pli",
    "gmf",
    "ftz",
    "log",
    "mfag",
    "gpsa",
    "whyamiblocked",
    "pk",
    "sse",
    "gnotif",
    "gban",
    "asur",
    "abta",
    "sla",
    "stp",
    "ufa",
    "u",
];

/// Commands that must come alone (protocol/01 section 2).
const ALONE: &[&str] = &["us0", "us", "f", "sml", "whyamiblocked"];

fn number(code: i64) -> Reply {
    Reply::ok(code.to_string())
}

/// The commands of a body, `None` when it is not an array of objects with a name.
fn parse(body: &[u8]) -> Option<Vec<Map<String, Value>>> {
    let Value::Array(list) = serde_json::from_slice(body).ok()? else {
        return None;
    };
    list.into_iter()
        .map(|c| match c {
            Value::Object(o) if o.get("a").is_some_and(Value::is_string) => Some(o),
            _ => None,
        })
        .collect()
}

fn name(command: &Map<String, Value>) -> &str {
    command.get("a").and_then(Value::as_str).unwrap_or_default()
}

/// Serves one request.
pub(crate) fn serve(shared: &Shared, request: &Request) -> Reply {
    let commands = parse(&request.body);
    let names: Vec<&str> = commands.iter().flatten().map(name).collect();
    let mut points = vec!["cs".to_owned()];
    points.extend(names.iter().map(|n| format!("cmd:{n}")));
    let sid = request.query("sid").unwrap_or_default();
    let id = request.query("id").unwrap_or_default();
    let changing = names.iter().any(|n| !READING.contains(n));
    // Taken before the latency, for on the way a request is outstanding as well.
    let _turn = changing.then(|| Turn::take(shared, sid, id));
    crate::router::latency(shared);
    // A challenge stands until it is solved, also when its fault is over.
    let demanded = (sid.to_owned(), id.to_owned());
    let standing = lock(&shared.demanded).get(&demanded).copied();
    if let Some(easiness) = standing {
        if !solved(shared, request, easiness) {
            return challenge(shared, easiness);
        }
        lock(&shared.demanded).remove(&demanded);
    }
    let fault = shared.faults.for_request(&points);
    if let Some(FaultAction::Hashcash { easiness }) = fault {
        shared.tally.lock().faults += 1;
        lock(&shared.demanded).insert(demanded, easiness);
        return challenge(shared, easiness);
    }
    crate::router::with_fault(shared, request, fault, || {
        execute(shared, request, commands.as_deref())
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn execute(shared: &Shared, request: &Request, commands: Option<&[Map<String, Value>]>) -> Reply {
    let tally = &shared.tally;
    if request.method != "POST" {
        tally.violation(format!("{} /cs", request.method));
    }
    let Some(commands) = commands.filter(|c| !c.is_empty()) else {
        if request.query("wlt").is_some() {
            return Reply::ok("1");
        }
        tally.violation("body of /cs is not a non-empty array of commands");
        return number(-2);
    };
    if commands.len() > 10_000 {
        tally.violation(format!("{} commands in one request", commands.len()));
        return number(-2);
    }
    let sid = request.query("sid").unwrap_or_default();
    let id = request.query("id").unwrap_or_default();
    if let Some(easiness) = shared.knobs().hashcash {
        let login = commands.iter().any(|c| matches!(name(c), "us0" | "us"));
        if (login || sid.is_empty()) && !solved(shared, request, easiness) {
            return challenge(shared, easiness);
        }
    }
    if id.is_empty() {
        tally.violation("/cs without id");
    }
    for c in commands {
        if ALONE.contains(&name(c)) && commands.len() > 1 {
            tally.violation(format!("{} in a batch with others", name(c)));
        }
    }
    let version = request.query("v").and_then(|v| v.parse().ok()).unwrap_or(1);
    let mut context = Context {
        shared,
        sid: sid.to_owned(),
        user: None,
        link: None,
        version,
        agent: request.header("user-agent").unwrap_or_default().to_owned(),
        to_rubbish: false,
        entry_error: None,
    };
    if !sid.is_empty() {
        let state = shared.state();
        let Some(session) = state.sessions.get(sid) else {
            return number(-15);
        };
        context.user = Some(session.user.clone());
    }
    // A session that has ended gets no replies any more, not even those it missed.
    match lookup(shared, sid, id, &request.body) {
        Known::Repeat(reply) => return replay(shared, &reply),
        Known::OtherBody => {
            tally.violation(format!("id {id} used again with a different body"));
        }
        Known::New => {}
    }
    if let Some(n) = request.query("n") {
        let state = shared.state();
        let Some(link) = n.get(..8).and_then(|ph| state.links.get(ph)) else {
            return number(-9);
        };
        context.link = Some(link.node);
    }
    crate::commands::create::verify_contents(&context, commands);
    let mut state = shared.state();
    // Looked up again: the same request may have been executed while this one was checked.
    if let Known::Repeat(reply) = lookup(shared, sid, id, &request.body) {
        drop(state);
        return replay(shared, &reply);
    }
    count(shared, commands);
    let mut tree = None;
    let mut texts = Vec::with_capacity(commands.len());
    for command in commands {
        let name = name(command);
        context.to_rubbish = false;
        context.entry_error = None;
        let answer = match shared.faults.for_command(name) {
            Some(FaultAction::CommandError { code }) => Answer::Error(code),
            Some(FaultAction::CommandReply { reply }) => Answer::Data(reply),
            fault => {
                context.to_rubbish = fault == Some(FaultAction::ToRubbish);
                if let Some(FaultAction::EntryError { index, code }) = fault {
                    context.entry_error = Some((index, code));
                }
                commands::run(&mut state, &context, name, command)
            }
        };
        match answer {
            Answer::Tree(t) if commands.len() == 1 => tree = Some(t),
            answer => texts.push(text(answer, version)),
        }
    }
    if let Some(tree) = tree {
        drop(state);
        return Reply::with(200, Body::Tree(tree));
    }
    let reply = Arc::new(format!("[{}]", texts.join(",")).into_bytes());
    if !id.is_empty() {
        lock(&shared.cache).insert(sid, id, &request.body, reply.clone());
    }
    drop(state);
    shared.changed.notify_all();
    Reply::ok(reply.to_vec())
}

/// Counts the commands of a request that is executed.
fn count(shared: &Shared, commands: &[Map<String, Value>]) {
    let mut tally = shared.tally.lock();
    tally.largest_batch = tally.largest_batch.max(commands.len() as u64);
    let mut kinds = HashSet::new();
    for name in commands.iter().map(name) {
        *tally.commands.entry(name.to_owned()).or_default() += 1;
        if kinds.insert(name) {
            *tally.requests_with.entry(name.to_owned()).or_default() += 1;
        }
    }
}

fn lookup(shared: &Shared, sid: &str, id: &str, body: &[u8]) -> Known {
    lock(&shared.cache).find(sid, id, body)
}

fn replay(shared: &Shared, reply: &[u8]) -> Reply {
    shared.tally.lock().replayed += 1;
    Reply::ok(reply)
}

/// The wire form of one answer.
fn text(answer: Answer, version: i64) -> String {
    let quoted = |t: String| Value::from(t).to_string();
    match answer {
        Answer::Data(v) => v.to_string(),
        Answer::Error(code) => code.to_string(),
        Answer::Changed(_, data) if version < 2 => data.map_or("0".into(), |d| d.to_string()),
        Answer::Changed(tag, None) => quoted(tag),
        Answer::Changed(tag, Some(data)) => format!("[{},{data}]", quoted(tag)),
        Answer::Unchanged(data) if version < 2 => data.to_string(),
        Answer::Unchanged(data) => format!("[0,{data}]"),
        Answer::Tree(t) => {
            let whole = t.text();
            whole
                .strip_prefix('[')
                .and_then(|t| t.strip_suffix(']'))
                .unwrap_or("-1")
                .to_owned()
        }
    }
}

/// One state-changing request in progress; two at a time in a session are a violation.
struct Turn<'a> {
    shared: &'a Shared,
    sid: String,
    id: String,
}

impl<'a> Turn<'a> {
    fn take(shared: &'a Shared, sid: &str, id: &str) -> Self {
        let mut all = lock(&shared.outstanding);
        let list = all.entry(sid.to_owned()).or_default();
        if !sid.is_empty() && list.iter().any(|other| other != id) {
            shared
                .tally
                .violation("two state-changing /cs requests of one session at a time");
        }
        list.push(id.to_owned());
        Self {
            shared,
            sid: sid.to_owned(),
            id: id.to_owned(),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut all = lock(&self.shared.outstanding);
        if let Some(list) = all.get_mut(&self.sid) {
            if let Some(i) = list.iter().position(|id| *id == self.id) {
                list.remove(i);
            }
            if list.is_empty() {
                all.remove(&self.sid);
            }
        }
    }
}

fn challenge(shared: &Shared, easiness: u8) -> Reply {
    let token = crate::codec::b64(&shared.state().random::<48>());
    let now = commands::now();
    let mut reply = Reply::status(402, "");
    reply
        .headers
        .push(("X-Hashcash".into(), format!("1:{easiness}:{now}:{token}")));
    lock(&shared.challenges).insert(token);
    reply
}

/// Whether the request carries a valid solution of a challenge given out here.
fn solved(shared: &Shared, request: &Request, easiness: u8) -> bool {
    let Some(header) = request.header("x-hashcash") else {
        return false;
    };
    let parts: Vec<&str> = header.split(':').collect();
    let ok = match parts.as_slice() {
        ["1", token, prefix] => {
            let known = lock(&shared.challenges).remove(*token);
            known && crate::commands::login::hashcash_holds(token, prefix, easiness)
        }
        _ => false,
    };
    if !ok {
        shared
            .tally
            .violation(format!("wrong hashcash solution {header}"));
    }
    ok
}
