//! An account for a command, mounted or not.
//!
//! Where a mount, or another command that runs, serves the remote, the command goes through its socket. Else
//! it takes the lock of the state directory and runs the same file system without a kernel, on the same
//! database and session: never a second login. A command that changes or moves something serves its socket
//! meanwhile, so that others need not wait for it; it ends after those it serves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mega_api::{ApiError, Patience, PublicLink};
use mega_proto::Command;
use mega_store::StoreError;
use tokio::runtime::Runtime;

use super::bring_up::{self, LOOK_AGAIN, Started};
use super::login::LoginHelp;
use super::plan::Plan;
use super::translate;
use crate::cli::{AccountOptions, Carried, LogLevel, Settings};
use crate::config::{self, RemoteKind};
use crate::control::client::{self, Link};
use crate::control::protocol::Hello;
use crate::control::server::Control;
use crate::failure::Failure;
use crate::launch::Herald;
use crate::logging;
use crate::mountpoint;
use crate::quantity::Span;

/// A mount that has the state and no socket has none yet, or never.
const SOCKET_COMES: Duration = Duration::from_secs(5);
/// The events of a reachable Mega come sooner; else it is asked whether it can be reached.
const SOON: Duration = Duration::from_secs(3);
/// How long Mega is tried for an answer, at most.
const REACH: Duration = Duration::from_secs(15);
/// How long changes are collected before they are sent.
const TOGETHER: Duration = Duration::from_millis(50);
/// Others that are served are mentioned after this.
const MENTION: Duration = Duration::from_secs(1);

/// What a command is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Look at names: a moment's work.
    Look,
    /// Read content or change something.
    Work,
}

/// An account that can be asked.
#[derive(Debug)]
pub(crate) struct Account {
    door: Door,
    uploads: u16,
    is_link: bool,
}

#[derive(Debug)]
enum Door {
    /// Somebody serves it.
    Socket(Link),
    /// We do.
    Here(Here),
}

/// The file system in this process; taken down in order when dropped.
struct Here {
    runtime: Runtime,
    started: Option<Started>,
    control: Option<Control>,
}

impl std::fmt::Debug for Here {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Here").finish_non_exhaustive()
    }
}

impl Account {
    /// As [`Account::open`], for what a public link cannot do.
    pub(crate) fn open_own(
        name: &str,
        options: &AccountOptions,
        need: Need,
    ) -> Result<Self, Failure> {
        if let Some(account) = Self::without_asking(name, options)? {
            return if account.is_link {
                Err(Failure::LinkHere)
            } else {
                Ok(account)
            };
        }
        let (remote, _) =
            config::resolve(&format!("{name}:"), &options.config, &options.carried())?;
        match remote.kind {
            RemoteKind::Link(_) => Err(Failure::LinkHere),
            RemoteKind::Account(_) | RemoteKind::Demo => Self::open(name, options, need),
        }
    }

    /// Opens the account of the remote `name`, or the public link that it stands for.
    pub(crate) fn open(name: &str, options: &AccountOptions, need: Need) -> Result<Self, Failure> {
        if let Some(account) = Self::without_asking(name, options)? {
            return Ok(account);
        }
        let carried = options.carried();
        let mut plan = Plan::without_mount(name, &options.config, &options.of_mount(), &carried)?;
        plan.settings.read_only |= need == Need::Look;
        // Somebody waits. Not at once: what belongs together goes together.
        plan.settings.write_back = Span(plan.settings.write_back.0.min(TOGETHER));
        start_log(&plan.settings)?;
        let (uploads, is_link) = (plan.settings.uploads, plan.link().is_some());
        let name = plan.remote.name.clone();
        let herald = Herald::at_terminal(Box::new(LoginHelp::of(&plan)));
        let began = Instant::now();
        let mut is_told = false;
        loop {
            if let Some(link) = client::serving(&name, &plan.paths.state_dir) {
                return Ok(Self {
                    door: Door::Socket(link),
                    uploads,
                    is_link,
                });
            }
            let holder = match bring_up::try_store(&plan) {
                Ok(store) => {
                    let here = Here::start(Arc::new(plan), &herald, store, need)?;
                    return Ok(Self {
                        door: Door::Here(here),
                        uploads,
                        is_link,
                    });
                }
                Err(StoreError::Locked { holder }) => holder,
                Err(error) => return Err(translate::store(&plan, &error)),
            };
            let patience = if mountpoint::is_mounted(&holder.mountpoint) {
                SOCKET_COMES
            } else {
                bring_up::patience(&plan)
            };
            if began.elapsed() >= patience {
                return Err(Failure::InUse {
                    remote: name,
                    holder: holder_in_words(&holder),
                    seconds: began.elapsed().as_secs(),
                });
            }
            if !is_told && began.elapsed() >= MENTION {
                is_told = true;
                herald.note(&format!(
                    "waiting for {}, which uses '{name}:'.",
                    holder_in_words(&holder)
                ));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Through the mount of the remote, where the configuration is encrypted and somebody would have to be asked for
    /// its password. The mount has read it: what it serves is what the configuration would lead to.
    fn without_asking(name: &str, options: &AccountOptions) -> Result<Option<Self>, Failure> {
        // These could mean another account or another state.
        let is_said = options.carried() != Carried::default() || options.mount.state_dir.is_some();
        if is_said || !config::must_ask(&options.config)? {
            return Ok(None);
        }
        let Some((link, configuration)) = client::mounted_from(name, &options.config.file()?)
        else {
            return Ok(None);
        };
        start_log(&options.of_mount().resolve())?;
        Ok(Some(Self {
            door: Door::Socket(link),
            uploads: configuration.uploads,
            is_link: configuration.is_link,
        }))
    }

    /// How many files are uploaded at a time, as configured.
    pub(crate) fn uploads(&self) -> u16 {
        self.uploads
    }

    /// Whether this command serves it, and waits for those it serves when this is dropped.
    pub(crate) fn is_served_here(&self) -> bool {
        matches!(self.door, Door::Here(_))
    }

    /// Whether it is a public link, where nothing can be changed.
    pub(crate) fn is_link(&self) -> bool {
        self.is_link
    }

    /// A connection that waits as long as it takes.
    pub(crate) fn link(&self) -> Result<Link, Failure> {
        match &self.door {
            Door::Socket(link) => link.second(),
            Door::Here(here) => here.link(),
        }
    }
}

pub(super) fn holder_in_words(holder: &mega_store::LockHolder) -> String {
    let pid = match holder.pid {
        0 => "another process".to_owned(),
        pid => format!("process {pid}"),
    };
    if holder.mountpoint.as_os_str().is_empty() {
        return pid;
    }
    let place = holder.mountpoint.display();
    if mountpoint::is_mounted(&holder.mountpoint) {
        format!("the mount at {place} ({pid})")
    } else {
        format!("{pid}, which has it mounted at {place} or had it")
    }
}

/// Errors only: what else there is to say, the command says.
pub(super) fn start_log(settings: &Settings) -> Result<(), Failure> {
    let target = logging::target(settings, None)?;
    logging::start(target, logging::Style::of(settings, LogLevel::Error));
    Ok(())
}

impl Here {
    fn start(
        plan: Arc<Plan>,
        herald: &Herald,
        store: mega_store::Store,
        need: Need,
    ) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .thread_name("megamount")
            .build()
            .map_err(|e| Failure::Other(format!("cannot start threads: {e}.")))?;
        let started = runtime.block_on(Box::pin(bring_up::start(
            &plan,
            herald,
            store,
            Arc::default(),
        )))?;
        let mut here = Self {
            runtime,
            started: Some(started),
            control: None,
        };
        here.catch_up(&plan)?;
        let hello = Hello {
            remote: plan.remote.name.clone(),
            path: String::new(),
            mountpoint: String::new(),
            pid: std::process::id(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
        };
        here.control = here.started.as_ref().map(|started| {
            let _inside = here.runtime.enter();
            let control = match need {
                Need::Look => Control::private(&started.vfs, hello),
                Need::Work => Control::serve(&started.vfs, hello, &plan.paths.state_dir),
            };
            control.throttled_by(&started.throttle);
            control
        });
        Ok(here)
    }

    /// Waits until the view is what Mega has now, or says why that cannot be.
    fn catch_up(&self, plan: &Plan) -> Result<(), Failure> {
        let Some(started) = &self.started else {
            return Ok(());
        };
        let Started {
            vfs, api, origin, ..
        } = started;
        let timeout = plan.settings.timeout.0;
        self.runtime.block_on(async {
            // The link of a file has no events that could come.
            let has_events = plan.link().is_none_or(PublicLink::is_folder);
            if vfs.until_current(SOON.min(timeout)).await && has_events {
                return Ok(());
            }
            let within = REACH.min(timeout);
            let answered = match plan.link() {
                Some(public) => tokio::time::timeout(within, api.is_link_key(public))
                    .await
                    .unwrap_or(Err(ApiError::Timeout))
                    .map(drop),
                None => {
                    let frozen = api.freeze([Command::quota()]);
                    let answered = Box::pin(api.send_within(&frozen, Patience::Within(within)));
                    answered.await.map(drop)
                }
            };
            if let Err(error) = answered {
                let failure = translate::api(plan, origin, &error);
                return Err(translate::why_blocked(failure, api).await);
            }
            if vfs.until_current(timeout).await {
                return Ok(());
            }
            Err(Failure::Network {
                origin: origin.clone(),
                reason: "its event channel does not answer".to_owned(),
            })
        })
    }

    fn link(&self) -> Result<Link, Failure> {
        let Some(control) = &self.control else {
            return Err(Failure::DaemonGone);
        };
        let _inside = self.runtime.enter();
        let stream = control
            .connect()
            .map_err(|error| Failure::Other(format!("cannot connect to ourselves: {error}.")))?;
        Link::to_ourselves(stream, control.hello().clone())
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let (control, started) = (self.control.take(), self.started.take());
        self.runtime.block_on(async {
            if let Some(control) = control {
                let began = Instant::now();
                let mut is_told = false;
                // However long they take: one that waits for a pager, or reads a local disk, cannot be told
                // from one that is forgotten, and loses what it has done if we end.
                while control.is_in_use() || !control.close() {
                    if !is_told && began.elapsed() >= MENTION {
                        is_told = true;
                        crate::launch::complain(
                            "done; waiting for another command that goes through this one.",
                        );
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                control.end(0).await;
            }
            if let Some(started) = started {
                started.vfs.shutdown(Duration::ZERO).await;
                drop(started.demo);
            }
        });
    }
}
