//! The client side of the Mega API: session, requests, events, storage transfers.
//!
//! Owns everything HTTP: which request may be repeated and with which bytes, how long to wait, when to
//! log in again. Promises that a state-changing request is executed at most once while its [`Frozen`]
//! lives, that nothing secret is ever printed, and that every call ends. Never touches a disk (except to
//! read `--ca-cert`), never knows an inode.
//!
//! Runs on the caller's tokio runtime, which needs its time and network drivers.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod api;
mod backoff;
mod bandwidth;
mod calls;
mod clock;
mod config;
mod error;
mod events;
mod frozen;
mod hashcash;
mod http;
mod joint;
mod link;
mod login;
mod probe;
mod request;
mod request_id;
mod retry;
mod session;
mod storage;
mod traffic;
mod tree;
mod wire;

pub use api::Api;
pub use bandwidth::Bandwidth;
pub use calls::{DownloadTarget, NewNode, UserData};
pub use config::{ApiConfig, DEFAULT_API_URL};
pub use error::{ApiError, ErrorClass, NetworkError, SinkError};
pub use events::{EventChannel, EventScheme};
pub use frozen::{Frozen, FrozenError};
pub use http::check_proxies;
pub use link::PublicLink;
pub use login::{CodeSource, Credentials};
pub use mega_crypto::Secret;
pub use mega_proto::TreeItem;
pub use mega_proto::reply::Quota;
pub use probe::Probe;
pub use request::Patience;
pub use retry::{Policy, Retry, policy};
pub use session::{CredentialSource, ReloginHook, Session};
pub use storage::{ChunkAck, ChunkPost, CipherStream, StorageError};
pub use traffic::Traffic;
pub use tree::TreeEnd;
