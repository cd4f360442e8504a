//! What the account says about itself.

use mega_api::ApiError;

use crate::support::{EMAIL, World};

#[tokio::test]
async fn quota_and_attributes() {
    let world = World::logged_in().await;
    world.emulator.set_account(EMAIL, Some(1 << 30), None);
    let quota = world.api.quota().await.unwrap();
    assert_eq!((quota.total, quota.used), (Some(1 << 30), 0));
    assert!(
        world
            .api
            .user_attribute("firstname")
            .await
            .unwrap()
            .is_some()
    );
    assert!(world.api.user_attribute("^!keys").await.unwrap().is_none());
    assert_eq!(world.api.why_blocked().await.unwrap(), None);
    world.no_violations();
}

#[tokio::test]
async fn a_blocked_account_says_why() {
    let world = World::logged_in().await;
    world.emulator.set_account(EMAIL, None, Some(500));
    match world.api.quota().await {
        Err(ApiError::Blocked { .. } | ApiError::Refused(_)) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(world.api.why_blocked().await.unwrap(), Some(500));
}
