//! Owns the faults of protocol/06 section 8: rules that say where, how often and what goes wrong.
//! Deterministic: probabilities draw from a generator seeded by the emulator's seed, in the order
//! of requests. Rules are tried in the order they were added; the first that fires wins.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a fault does to a request, a reply, or one command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum FaultAction {
    /// Not executed; the body is this text: `-3`, `[-3]`, `{"err":-3}`, empty, HTML.
    Body {
        /// The whole body, status 200.
        text: String,
    },
    /// Not executed; another HTTP status.
    Status {
        /// For example 500, 503, 509, 403.
        code: u16,
        /// Additional headers, for example `X-MEGA-Time-Left`.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// Body, usually empty.
        #[serde(default)]
        text: String,
    },
    /// Not executed; a 402 with a hashcash challenge that must be solved.
    Hashcash {
        /// 0 to 255; 255 takes about two tries.
        easiness: u8,
    },
    /// Not executed; the connection is reset.
    Reset,
    /// Executed only once this rule has been removed, also when the client has gone by then.
    Held,
    /// Executed, then the connection is reset before any byte of the reply.
    Lost,
    /// Executed, then this body is sent instead of the real one (a lost token: empty text).
    Reply {
        /// The whole body.
        text: String,
    },
    /// Executed; the connection is closed after so many bytes of the announced body.
    Truncate {
        /// Bytes of the body that are sent.
        bytes: u64,
    },
    /// Executed; the body is only so long, with a matching Content-Length.
    Shorten {
        /// Bytes of the body that remain.
        bytes: u64,
    },
    /// Executed; one byte more than there should be.
    ExtraByte,
    /// Executed; one bit of the body is wrong.
    FlipBit {
        /// Position in the body.
        byte: u64,
    },
    /// Executed; silence in the middle of the body.
    Stall {
        /// Bytes sent before.
        after: u64,
        /// How long, in milliseconds.
        ms: u64,
    },
    /// Executed; the reply starts late.
    Slow {
        /// Delay in milliseconds.
        ms: u64,
    },
    /// Executed; the body arrives slowly.
    Trickle {
        /// Bytes per second.
        rate: u64,
    },
    /// The request's session ends before it is executed, so it and all later ones answer -15.
    EndSession,
    /// Executed, then the session ends and the connection is reset: the reply cannot be had again.
    LostSession,
    /// `ul`: the connection is reset after so many bytes of the piece were read.
    Cut {
        /// Bytes of the body that are read.
        after: u64,
    },
    /// `ul`: the piece is acknowledged but not stored.
    Forget,
    /// `ul`: the upload's URL expires with this piece: it and all later ones answer -8.
    ExpireUpload,
    /// One command (`cmd:NAME`) is not executed and answers this number.
    CommandError {
        /// For example -17.
        code: i64,
    },
    /// One command is not executed and answers this JSON, for example `{"e":-17,"tl":30}`.
    CommandReply {
        /// Any JSON.
        reply: serde_json::Value,
    },
    /// `cmd:p`: one entry fails. Whether the others are made depends on `sm` and `v`.
    EntryError {
        /// Place in `n`.
        index: usize,
        /// For example -9.
        code: i64,
    },
    /// `cmd:p`: the target folder "vanished", the nodes land in the rubbish bin.
    ToRubbish,
    /// `ul`: the token is given to a piece that does not complete the file.
    TokenEarly,
    /// Event replies: every packet is sent twice.
    DuplicateEvents,
    /// Event replies: one packet each with `ir`, so that the halves of a move are separated.
    SplitEvents,
    /// Event replies: within `t`, children before parents.
    ReverseNodes,
    /// Event replies: an unknown packet type and a number among the packets.
    JunkEvents,
}

impl FaultAction {
    fn is_for_command(&self) -> bool {
        matches!(
            self,
            Self::CommandError { .. }
                | Self::CommandReply { .. }
                | Self::EntryError { .. }
                | Self::ToRubbish
        )
    }

    fn is_for_body(&self) -> bool {
        matches!(self, Self::Cut { .. })
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultRule {
    /// Where: `cs`, `sc`, `wsc`, `w`, `ul`, `dl`, `dl:0` to `dl:5` (one CloudRAID part), `cmd:NAME`
    /// (requests that contain this command, or the command itself), `*`.
    pub at: String,
    /// So many matches pass untouched first.
    #[serde(default)]
    pub skip: u64,
    /// Fires at most so often; `None` for ever.
    #[serde(default)]
    pub count: Option<u64>,
    /// Chance of each match to fire, 1 when omitted.
    #[serde(default = "one")]
    pub probability: f64,
    /// What happens.
    #[serde(flatten)]
    pub action: FaultAction,
    /// How often it has fired; an output.
    #[serde(default)]
    pub fired: u64,
    /// Number given by the emulator; an output.
    #[serde(default)]
    pub id: u64,
}

fn one() -> f64 {
    1.0
}

impl FaultRule {
    /// A rule that always fires.
    pub fn new(at: &str, action: FaultAction) -> Self {
        Self {
            at: at.to_owned(),
            skip: 0,
            count: None,
            probability: 1.0,
            action,
            fired: 0,
            id: 0,
        }
    }

    /// A rule that fires at the next match only.
    pub fn once(at: &str, action: FaultAction) -> Self {
        Self::new(at, action).times(1)
    }

    /// Fires at most `count` times.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Lets `skip` matches pass first.
    #[must_use]
    pub fn after(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    /// Fires with this probability.
    #[must_use]
    pub fn chance(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }
}

#[derive(Debug)]
struct Rules {
    list: Vec<FaultRule>,
    next: u64,
    random: u64,
}

/// The rules in force.
#[derive(Debug)]
pub struct FaultControl {
    rules: Mutex<Rules>,
}

impl FaultControl {
    pub(crate) fn new(seed: u64) -> Self {
        let random = seed ^ 0x2545_F491_4F6C_DD1D;
        Self {
            rules: Mutex::new(Rules {
                list: Vec::new(),
                next: 1,
                random,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule behind the others; returns its number.
    pub fn add(&self, mut rule: FaultRule) -> u64 {
        let mut rules = self.lock();
        rule.id = rules.next;
        rule.fired = 0;
        rules.next += 1;
        let id = rule.id;
        rules.list.push(rule);
        id
    }

    /// Removes one rule; unknown numbers are ignored.
    pub fn remove(&self, id: u64) {
        self.lock().list.retain(|r| r.id != id);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.lock().list.clear();
    }

    /// The rules with their counts.
    pub fn rules(&self) -> Vec<FaultRule> {
        self.lock().list.clone()
    }

    /// How often rule `id` has fired, 0 for unknown numbers.
    pub fn fired(&self, id: u64) -> u64 {
        self.lock()
            .list
            .iter()
            .find(|r| r.id == id)
            .map_or(0, |r| r.fired)
    }

    /// The fault for a whole request at one of these points. Returns when a rule that holds it is gone.
    pub(crate) fn for_request(&self, points: &[String]) -> Option<FaultAction> {
        let fits = |a: &FaultAction| !a.is_for_command() && !a.is_for_body();
        let (id, action) =
            self.pick(|r| fits(&r.action) && (r.at == "*" || points.contains(&r.at)))?;
        if action != FaultAction::Held {
            return Some(action);
        }
        while self.lock().list.iter().any(|r| r.id == id) {
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    /// The fault for an upload piece whose head has arrived.
    pub(crate) fn for_body(&self) -> Option<FaultAction> {
        let (_, action) =
            self.pick(|r| r.action.is_for_body() && matches!(r.at.as_str(), "ul" | "*"))?;
        Some(action)
    }

    /// The fault for one command.
    pub(crate) fn for_command(&self, name: &str) -> Option<FaultAction> {
        let (_, action) =
            self.pick(|r| r.action.is_for_command() && r.at.strip_prefix("cmd:") == Some(name))?;
        Some(action)
    }

    fn pick(&self, matches: impl Fn(&FaultRule) -> bool) -> Option<(u64, FaultAction)> {
        let mut rules = self.lock();
        let Rules { list, random, .. } = &mut *rules;
        for rule in list.iter_mut().filter(|r| matches(r)) {
            if rule.count.is_some_and(|c| rule.fired >= c) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.probability < 1.0 {
                *random ^= *random << 13;
                *random ^= *random >> 7;
                *random ^= *random << 17;
                if (*random >> 11) as f64 / (1_u64 << 53) as f64 >= rule.probability {
                    continue;
                }
            }
            rule.fired += 1;
            return Some((rule.id, rule.action.clone()));
        }
        None
    }
}
