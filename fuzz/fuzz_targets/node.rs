//! Fuzzes node objects and the other objects of a tree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mega_proto::reply::{Account, Download, FromReply, Prelogin, Put, Quota, UserAttribute};
use mega_proto::{Link, LooseNode, OwnShareKey, RawNode, Share, User};

fuzz_target!(|body: &[u8]| {
    let loose = serde_json::from_slice::<LooseNode>(body);
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
        return;
    };
    assert!(loose.is_ok(), "one odd node must not cost its neighbours");
    let _ = RawNode::from_value(&value);
    let _ = User::from_value(&value);
    let _ = Link::from_value(&value);
    let _ = Share::from_value(&value);
    let _ = OwnShareKey::from_value(&value);
    let _ = Account::from_value(&value);
    let _ = Download::from_value(&value);
    let _ = Prelogin::from_value(&value);
    let _ = Put::from_value(&value);
    let _ = Quota::from_value(&value);
    let _ = UserAttribute::from_value(&value);
});
