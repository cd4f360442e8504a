//! Writing below folders that others see: every new node brings a key for them. The emulator opens each of
//! those keys and counts a missing or wrong one as a violation.

use mega_emulator::{AccountSpec, FaultAction, FaultRule, Fixture, KeyForm};
use mega_vfs::RenameMode;

use crate::support::{EMAIL, World, eager};

const FRIEND: &str = "friend@example.com";

fn share() -> Fixture {
    Fixture::Share {
        path: "/shared".into(),
        to: FRIEND.into(),
        level: 2,
    }
}

async fn work_below_it(world: &World) {
    world.write("shared/file", b"content").await;
    world.mkdir("shared/a").await;
    world.mkdir("shared/a/b").await;
    world.write("shared/a/b/deep", b"deep").await;
    world.settled().await;
    world.write("shared/file", b"new content").await;
    world
        .rename("mine", "shared/a/mine", RenameMode::Replace)
        .await
        .unwrap();
    world.settled().await;
    assert_eq!(
        world.paths(),
        [
            "/shared",
            "/shared/a",
            "/shared/a/b",
            "/shared/a/b/deep",
            "/shared/a/mine",
            "/shared/a/mine/inner",
            "/shared/file"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_shared_folder_every_node_has_a_key_for_the_share() {
    let world = World::with(eager(), |emulator| {
        emulator.add_account(AccountSpec::new(FRIEND, "secret"));
        let list = [
            Fixture::folder("/shared"),
            Fixture::file("/mine/inner", "x", 1),
            share(),
        ];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    work_below_it(&world).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_folder_that_is_exported_while_mounted_too() {
    let world = World::with(eager(), |emulator| {
        let list = [
            Fixture::folder("/shared"),
            Fixture::file("/mine/inner", "x", 1),
        ];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    let link = Fixture::Link {
        path: "/shared".into(),
    };
    let seen = Fixture::folder("/shared/a");
    world.emulator.populate(EMAIL, &[link, seen]).unwrap();
    world
        .until("the export is known", async |world| {
            world.names("shared").await == ["a"]
        })
        .await;
    world.rmdir("shared/a").await.unwrap();
    world.settled().await;
    work_below_it(&world).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_a_folder_we_have_just_removed_hides_nothing_else() {
    let world = World::with(eager(), |emulator| {
        emulator.add_account(AccountSpec::new(FRIEND, "secret"));
        let list = [Fixture::folder("/shared"), Fixture::folder("/other")];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    assert_eq!(world.names("shared").await, Vec::<String>::new());
    assert_eq!(world.names("").await, ["other", "shared"]);
    let held = FaultRule::new("cmd:m", FaultAction::Held);
    let rule = world.emulator.faults().add(held);
    world.rmdir("shared").await.unwrap();
    let list = [share(), Fixture::file("/other/new", "new", 1)];
    world.emulator.populate(EMAIL, &list).unwrap();
    world
        .until("what came with it is seen", async |world| {
            world.names("other").await == ["new"]
        })
        .await;
    world.emulator.faults().remove(rule);
    world.settled().await;
    assert_eq!(world.names("").await, ["other"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_folder_whose_key_is_not_known_yet_it_is_waited_for() {
    let mut rule = 0;
    let world = World::with(eager(), |emulator| {
        emulator.add_account(AccountSpec::new(FRIEND, "secret"));
        let list = [
            Fixture::folder("/shared"),
            Fixture::file("/mine/inner", "x", 1),
            Fixture::ShareAs {
                path: "/shared".into(),
                to: FRIEND.into(),
                level: 2,
                key: KeyForm::Kept,
            },
        ];
        emulator.populate(EMAIL, &list).unwrap();
        let refusal = FaultAction::CommandError { code: -11 };
        rule = emulator.faults().add(FaultRule::new("cmd:uga", refusal));
    })
    .await;
    world.write("shared/file", b"content").await;
    world.mkdir("shared/a").await;
    let replace = RenameMode::Replace;
    world.rename("mine", "shared/mine", replace).await.unwrap();
    // What is for nobody else does not wait.
    world.write("sign", b"").await;
    world
        .until("ours goes on", async |world| {
            world.paths().contains(&"/sign".to_owned())
        })
        .await;
    assert_eq!(world.paths(), ["/mine", "/mine/inner", "/shared", "/sign"]);
    world.emulator.faults().remove(rule);
    world.settled().await;
    assert_eq!(world.names("shared").await, ["a", "file", "mine"]);
    world.finish().await;
}
