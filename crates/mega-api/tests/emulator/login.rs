//! Logging in, coming back, and being thrown out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mega_api::{Api, ApiError, Credentials, ErrorClass, Secret};
use mega_emulator::{AccountSpec, Emulator, FaultAction, FaultRule};

use crate::support::{EMAIL, PASSWORD, World, config, credentials};

#[tokio::test]
async fn version_two_account() {
    let world = World::logged_out();
    let typed = Credentials {
        email: "  User@Example.COM ".into(),
        ..credentials()
    };
    let session = world.api.login(&typed).await.unwrap();
    assert_eq!(session.sid.as_str().len(), 58);
    assert!(session.rsa.is_some());
    let key: String = session
        .master_key
        .as_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(Some(key), world.emulator.master_key(EMAIL));
    let counters = world.emulator.counters();
    assert_eq!(
        (
            counters.logins,
            counters.commands("us0"),
            counters.commands("us")
        ),
        (1, 1, 1)
    );
    world.no_violations();
}

#[tokio::test]
async fn version_one_accounts_with_any_characters() {
    for password in ["plain", "p\u{e9}ss", "\u{65e5}\u{672c}", ""] {
        let world = World::with_account(AccountSpec::v1(EMAIL, password));
        let typed = Credentials {
            password: Secret::new(password.to_owned()),
            ..credentials()
        };
        world.api.login(&typed).await.unwrap();
        world.no_violations();
    }
}

#[tokio::test]
async fn account_without_rsa_key_and_sid_with_a_leading_zero() {
    let plain = AccountSpec::new(EMAIL, PASSWORD);
    for spec in [
        AccountSpec {
            no_rsa: true,
            ..plain.clone()
        },
        AccountSpec {
            zero_sid: true,
            ..plain
        },
    ] {
        let world = World::with_account(spec);
        world.api.login(&credentials()).await.unwrap();
        world.api.quota().await.unwrap();
        world.no_violations();
    }
}

#[tokio::test]
async fn wrong_credentials_and_accounts_that_cannot_be_used() {
    let world = World::logged_out();
    let wrong = Credentials {
        password: Secret::new("wrong".into()),
        ..credentials()
    };
    let error = world.api.login(&wrong).await.unwrap_err();
    assert!(matches!(error, ApiError::WrongPassword), "{error}");
    let nobody = Credentials {
        email: "nobody@example.com".into(),
        ..credentials()
    };
    let error = world.api.login(&nobody).await.unwrap_err();
    assert!(matches!(error, ApiError::WrongPassword), "{error}");
    assert_eq!(error.class(), ErrorClass::Credentials);
    assert!(world.api.session().is_none());

    let spec = AccountSpec {
        unconfirmed: true,
        ..AccountSpec::new(EMAIL, PASSWORD)
    };
    let error = World::with_account(spec)
        .api
        .login(&credentials())
        .await
        .unwrap_err();
    assert!(matches!(error, ApiError::Unconfirmed), "{error}");
}

#[tokio::test]
async fn second_factor() {
    let secret = "JBSWY3DPEHPK3PXP";
    let spec = AccountSpec {
        totp_secret: Some(secret.into()),
        ..AccountSpec::new(EMAIL, PASSWORD)
    };
    let world = World::with_account(spec);
    let error = world.api.login(&credentials()).await.unwrap_err();
    assert!(matches!(error, ApiError::TwoFactorNeeded), "{error}");

    let wrong = Credentials {
        totp: Some(Arc::new(|| Ok("000000".into()))),
        ..credentials()
    };
    let error = world.api.login(&wrong).await.unwrap_err();
    assert!(matches!(error, ApiError::TwoFactorWrong), "{error}");

    let none = Credentials {
        totp: Some(Arc::new(|| Err("cancelled".into()))),
        ..credentials()
    };
    let error = world.api.login(&none).await.unwrap_err();
    assert!(matches!(error, ApiError::TwoFactorSource(_)), "{error}");

    // Mistyped first, right the second time.
    let asked = Arc::new(AtomicUsize::new(0));
    let source = {
        let asked = Arc::clone(&asked);
        move || match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Ok("000000".into()),
            _ => Ok(Emulator::totp_code(secret)),
        }
    };
    let right = Credentials {
        totp: Some(Arc::new(source)),
        ..credentials()
    };
    world.api.login(&right).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert_eq!(world.emulator.counters().logins, 1);
    world.no_violations();
}

#[tokio::test]
async fn proof_of_work_is_answered() {
    let world = World::logged_out();
    world.emulator.set(|knobs| knobs.hashcash = Some(255));
    world.api.login(&credentials()).await.unwrap();
    // Later ones, for requests of the session too.
    world.emulator.faults().add(FaultRule::once(
        "cs",
        FaultAction::Hashcash { easiness: 250 },
    ));
    world.api.quota().await.unwrap();
    world.no_violations();
}

#[tokio::test]
async fn malformed_challenges_are_plain_failures() {
    let world = World::logged_out();
    let headers = vec![("X-Hashcash".to_owned(), "2:255:1:short".to_owned())];
    let action = FaultAction::Status {
        code: 402,
        headers,
        text: String::new(),
    };
    world.emulator.faults().add(FaultRule::once("cs", action));
    world.api.login(&credentials()).await.unwrap();
}

#[tokio::test]
async fn a_kept_session_needs_no_login() {
    let world = World::logged_in().await;
    let mut kept = (*world.session()).clone();
    kept.rsa = None;
    let second = Api::new(config(&world.emulator)).unwrap();
    second.install(kept);
    let data = second.user_data().await.unwrap();
    assert_eq!(data.email.as_deref(), Some(EMAIL));
    assert!(second.session().unwrap().rsa.is_some());
    assert_eq!(world.emulator.counters().logins, 1);
    world.no_violations();
}

#[tokio::test]
async fn a_dead_session_leads_to_one_silent_login() {
    let world = World::logged_in().await;
    let told = Arc::new(AtomicUsize::new(0));
    let hook = {
        let told = Arc::clone(&told);
        Arc::new(move |ended: Result<&mega_api::Session, &ApiError>| {
            assert_eq!(ended.unwrap().sid.as_str().len(), 58);
            told.fetch_add(1, Ordering::Relaxed);
        })
    };
    world
        .api
        .set_relogin(Arc::new(|| Some(credentials())), hook);
    let first = world.session().sid.clone();
    world.emulator.end_sessions(Some(EMAIL));
    // Several at once: one login.
    let (a, b, c) = tokio::join!(world.api.quota(), world.api.user_data(), world.api.quota());
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert!(world.session().sid != first);
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert_eq!(world.emulator.counters().logins, 2);

    world.emulator.end_sessions(Some(EMAIL));
    let error = world.api.quota().await.unwrap_err();
    assert!(matches!(error, ApiError::SessionDead), "{error}");
    assert!(world.api.is_session_dead());
    // It stays dead without asking again.
    let before = world.emulator.counters().requests("cs");
    assert!(world.api.quota().await.is_err());
    assert_eq!(world.emulator.counters().requests("cs"), before);
    assert_eq!(world.emulator.counters().logins, 2);
    world.no_violations();
}

#[tokio::test]
async fn without_credentials_a_dead_session_is_dead() {
    let world = World::logged_in().await;
    world.emulator.end_sessions(None);
    let error = world.api.quota().await.unwrap_err();
    assert!(matches!(error, ApiError::SessionDead), "{error}");
    world.api.login(&credentials()).await.unwrap();
    world.api.quota().await.unwrap();
}

#[tokio::test]
async fn logout_ends_the_session() {
    let world = World::logged_in().await;
    let old = (*world.session()).clone();
    world.api.logout().await.unwrap();
    assert!(matches!(world.api.quota().await, Err(ApiError::NoSession)));
    world.api.install(old);
    assert!(matches!(
        world.api.quota().await,
        Err(ApiError::SessionDead)
    ));
    world.api.logout().await.unwrap();
    world.no_violations();
}
