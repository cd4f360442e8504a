//! `login`, `logout`, `whoami`: the session of a remote, without its files.

use std::sync::Arc;
use std::time::Instant;

use mega_api::{Api, ApiError, ErrorClass};
use mega_store::{Store, StoreError};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::account::{holder_in_words, start_log};
use super::attempts::Attempts;
use super::bring_up::{self, LOOK_AGAIN};
use super::login::{self, LoginHelp};
use super::plan::Plan;
use super::translate;
use crate::cli::{AccountOptions, LoginCommand, LogoutCommand, WhoamiCommand};
use crate::commands::{counted, say};
use crate::config::{RemoteKind, RemoteSpec};
use crate::control::client;
use crate::control::files::{FileAsk, FileReply};
use crate::demo;
use crate::exit;
use crate::failure::Failure;
use crate::launch::Herald;

/// Who a session belongs to.
#[derive(Debug, Serialize)]
struct Who {
    /// The e-mail address.
    user: String,
    /// The account's handle.
    handle: String,
    /// Whether Mega takes the session; none when it could not be asked.
    valid: Option<bool>,
    /// Where the session is kept.
    session: String,
}

/// What there is of an account when its files are not wanted.
struct Bench {
    plan: Arc<Plan>,
    store: Arc<Store>,
    api: Api,
    origin: String,
    runtime: Runtime,
}

/// Runs `login`.
pub(crate) fn login(command: &LoginCommand) -> Result<u8, Failure> {
    let plan = planned(&command.place, &command.account)?;
    if let Some(who) = of_server(&plan)? {
        if who.valid == Some(false) {
            return Err(Failure::Usage(format!(
                "Mega has ended the session of '{name}:', which is in use. Unmount it ('megamount umount \
                 {name}:'), log in, and mount it again: what is queued is kept.",
                name = plan.remote.name
            )));
        }
        say(&format!("Logged in already as {}.\n", who.user));
        return Ok(exit::DONE);
    }
    let bench = Bench::open(plan)?;
    let herald = Herald::at_terminal(Box::new(LoginHelp::of(&bench.plan)));
    if bench.has_session()? {
        bench.install()?;
        match bench.check() {
            Ok(who) => {
                say(&format!("Logged in already as {}.\n", who.user));
                return Ok(exit::DONE);
            }
            Err(ApiError::SessionDead) => {
                say("The kept session has ended; logging in again.\n");
                let lost = |e: &StoreError| translate::store(&bench.plan, e);
                bench.store.clear_session().map_err(|e| lost(&e))?;
            }
            Err(error) => return Err(bench.failure(&error)),
        }
    }
    if command.force {
        Attempts::forget(&bench.store).map_err(|e| translate::store(&bench.plan, &e))?;
    }
    let opened = login::open(
        &bench.plan,
        &herald,
        &bench.store,
        &bench.api,
        bench.pinned(),
    );
    bench.runtime.block_on(Box::pin(opened))?;
    let who = bench.check().map_err(|error| bench.failure(&error))?;
    say(&format!(
        "Logged in as {}. The session is kept in {}.\n",
        who.user, who.session
    ));
    Ok(exit::DONE)
}

/// Runs `logout`.
pub(crate) fn logout(command: &LogoutCommand) -> Result<u8, Failure> {
    let plan = planned(&command.place, &command.account)?;
    let name = plan.remote.name.clone();
    if client::serving(&name, &plan.paths.state_dir).is_some() {
        return Err(Failure::InUse {
            remote: name,
            holder: "its mount, or a command,".to_owned(),
            seconds: 0,
        });
    }
    let bench = Bench::open(plan)?;
    let lost = |e: &StoreError| translate::store(&bench.plan, e);
    if !bench.has_session()? {
        say(&format!("There is no session of '{name}:'.\n"));
        return Ok(exit::DONE);
    }
    let waiting = bench.store.changes().map_err(|e| lost(&e))?.len();
    if !command.local {
        bench.install()?;
        let ended = bench.runtime.block_on(Box::pin(bench.api.logout()));
        if let Err(error) = ended {
            if error.class() == ErrorClass::Network {
                say(
                    "The session is kept, because Mega could not be told. --local forgets it here all the same.\n",
                );
            }
            return Err(bench.failure(&error));
        }
    }
    bench.store.clear_session().map_err(|e| lost(&e))?;
    say(&if command.local {
        format!(
            "The session of '{name}:' is forgotten here. On Mega it lasts until it is ended at mega.nz.\n"
        )
    } else {
        format!("Logged out of '{name}:'.\n")
    });
    if waiting > 0 {
        say(&format!(
            "{} not on Mega yet; they are kept, and go on after the next login.\n",
            counted(waiting, "change")
        ));
    }
    Ok(exit::DONE)
}

/// Runs `whoami`.
pub(crate) fn whoami(command: &WhoamiCommand) -> Result<u8, Failure> {
    let plan = planned(&command.place, &command.account)?;
    let (name, user) = (plan.remote.name.clone(), plan.user().to_owned());
    let who = match of_server(&plan)? {
        Some(who) => who,
        None => {
            let bench = Bench::open(plan)?;
            if !bench.has_session()? {
                return Err(Failure::NotLoggedIn { name, user });
            }
            bench.install()?;
            match bench.check() {
                Ok(who) => who,
                Err(ApiError::SessionDead) => bench.kept(Some(false))?,
                Err(error) if error.class() == ErrorClass::Network => bench.kept(None)?,
                Err(error) => return Err(bench.failure(&error)),
            }
        }
    };
    if command.json {
        let text = serde_json::to_string_pretty(&who).unwrap_or_default();
        say(&(text + "\n"));
    } else {
        let state = match who.valid {
            Some(true) => "valid",
            Some(false) => "ended by Mega",
            None => "not checked: Mega could not be reached",
        };
        say(&format!(
            "User:    {}\nHandle:  {}\nSession: {state}, kept in {}\n",
            who.user, who.handle, who.session
        ));
    }
    match who.valid {
        Some(false) => Err(Failure::SessionDead { name, user }),
        _ => Ok(exit::DONE),
    }
}

fn planned(place: &str, options: &AccountOptions) -> Result<Arc<Plan>, Failure> {
    // `login work` says as much as `login work:` here.
    let place = if place.contains([':', '/']) {
        place.to_owned()
    } else {
        format!("{place}:")
    };
    let spec: RemoteSpec = place.parse()?;
    let plan = Plan::without_mount(
        &spec.name,
        &options.config,
        &options.of_mount(),
        &options.carried(),
    )?;
    if plan.link().is_some() {
        return Err(Failure::Usage(format!(
            "'{}:' is a public link, which needs no login and has no session.",
            plan.remote.name
        )));
    }
    start_log(&plan.settings)?;
    Ok(Arc::new(plan))
}

/// What the mount, or a command that runs, says of its session.
fn of_server(plan: &Plan) -> Result<Option<Who>, Failure> {
    let Some(link) = client::serving(&plan.remote.name, &plan.paths.state_dir) else {
        return Ok(None);
    };
    let mut link = link.second()?;
    link.ask_files(FileAsk::Session)?;
    let FileReply::Session {
        handle,
        valid,
        kept_in,
    } = link.file_reply()?
    else {
        return Err(Failure::DaemonGone);
    };
    Ok(Some(Who {
        user: plan.user().to_owned(),
        handle,
        valid,
        session: match kept_in.as_str() {
            "" => "the mount's state".to_owned(),
            _ => kept_in,
        },
    }))
}

impl Bench {
    fn open(plan: Arc<Plan>) -> Result<Self, Failure> {
        if plan.remote.kind == RemoteKind::Demo {
            return Err(Failure::Usage(
                "'demo:' is in this machine and has no session at Mega.".to_owned(),
            ));
        }
        let began = Instant::now();
        let store = loop {
            match bring_up::try_store(&plan) {
                Ok(store) => break store,
                Err(StoreError::Locked { holder }) => {
                    if began.elapsed() >= bring_up::patience(&plan) {
                        return Err(Failure::InUse {
                            remote: plan.remote.name.clone(),
                            holder: holder_in_words(&holder),
                            seconds: began.elapsed().as_secs(),
                        });
                    }
                }
                Err(error) => return Err(translate::store(&plan, &error)),
            }
            std::thread::sleep(LOOK_AGAIN);
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| Failure::Other(format!("cannot start threads: {e}.")))?;
        let base_url = plan.settings.api_url.as_ref().map(|url| url.0.clone());
        let api = {
            let _inside = runtime.enter();
            bring_up::open_api(&plan, &store, base_url)?
        };
        let origin = api.config().base_url.origin().ascii_serialization();
        Ok(Self {
            plan,
            store: Arc::new(store),
            api,
            origin,
            runtime,
        })
    }

    fn has_session(&self) -> Result<bool, Failure> {
        let session = self.store.session();
        session
            .map(|session| session.is_some())
            .map_err(|e| translate::store(&self.plan, &e))
    }

    /// What the state is pinned to.
    fn pinned(&self) -> &str {
        if self.plan.remote.kind == RemoteKind::Demo {
            demo::ORIGIN
        } else {
            &self.origin
        }
    }

    /// The kept session is used from now on. Never a login.
    fn install(&self) -> Result<(), Failure> {
        let help = LoginHelp::of(&self.plan);
        let herald = Herald::at_terminal(Box::new(help));
        let opened = login::open(&self.plan, &herald, &self.store, &self.api, self.pinned());
        self.runtime.block_on(Box::pin(opened))
    }

    /// Asks Mega whose session it is.
    fn check(&self) -> Result<Who, ApiError> {
        let data = self.runtime.block_on(Box::pin(self.api.user_data()))?;
        Ok(Who {
            user: data.email.unwrap_or_else(|| self.plan.user().to_owned()),
            handle: data.user.to_string(),
            valid: Some(true),
            session: self.store.session_kept_in(),
        })
    }

    /// What is known without Mega.
    fn kept(&self, valid: Option<bool>) -> Result<Who, Failure> {
        let session = self.store.session();
        let session = session.map_err(|e| translate::store(&self.plan, &e))?;
        Ok(Who {
            user: self.plan.user().to_owned(),
            handle: session
                .map(|session| session.user.clone())
                .unwrap_or_default(),
            valid,
            session: self.store.session_kept_in(),
        })
    }

    fn failure(&self, error: &ApiError) -> Failure {
        let failure = translate::api(&self.plan, &self.origin, error);
        self.runtime
            .block_on(translate::why_blocked(failure, &self.api))
    }
}
