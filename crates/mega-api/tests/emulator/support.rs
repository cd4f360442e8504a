//! An emulator with one account and a client that has logged in, and what a client needs to make nodes.

use std::time::Duration;

use mega_api::{Api, ApiConfig, Credentials, NewNode, Secret, Session};
use mega_crypto::{
    Attributes, ContentCipher, FolderKey, NodeKey, UploadKey, WrapKey as _, chunk_range, meta_mac,
    upload_checksum,
};
use mega_emulator::{AccountSpec, Emulator, EmulatorConfig};
use mega_proto::{EntrySource, NodeHandle, NodeKind, RawNode, TreeItem, UploadToken, b64};

pub(crate) const EMAIL: &str = "user@example.com";
pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) struct World {
    pub(crate) emulator: Emulator,
    pub(crate) api: Api,
}

pub(crate) fn config(emulator: &Emulator) -> ApiConfig {
    ApiConfig {
        base_url: emulator.url().parse().unwrap(),
        timeout: Duration::from_secs(10),
        client_id: "abcdefghij".to_owned(),
        proxy: Some(String::new()),
        ..ApiConfig::default()
    }
}

pub(crate) fn credentials() -> Credentials {
    Credentials {
        email: EMAIL.to_owned(),
        password: Secret::new(PASSWORD.to_owned()),
        totp: None,
    }
}

impl World {
    /// Nobody has logged in yet.
    pub(crate) fn with_account(spec: AccountSpec) -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
        emulator.add_account(spec);
        let api = Api::new(config(&emulator)).unwrap();
        Self { emulator, api }
    }

    pub(crate) fn logged_out() -> Self {
        Self::with_account(AccountSpec::new(EMAIL, PASSWORD))
    }

    pub(crate) async fn logged_in() -> Self {
        let world = Self::logged_out();
        world.api.login(&credentials()).await.unwrap();
        world
    }

    pub(crate) fn session(&self) -> std::sync::Arc<Session> {
        self.api.session().unwrap()
    }

    /// All items of the tree.
    pub(crate) async fn tree(&self) -> (Vec<TreeItem>, mega_api::TreeEnd) {
        let (sender, receiver) = std::sync::mpsc::channel();
        let end = self
            .api
            .fetch_tree(move |item| {
                sender.send(item)?;
                Ok(())
            })
            .await
            .unwrap();
        (receiver.iter().collect(), end)
    }

    pub(crate) async fn root(&self, kind: NodeKind) -> NodeHandle {
        let (items, _) = self.tree().await;
        let found = items.iter().find_map(|item| match item {
            TreeItem::Node(node) if node.kind == kind => Some(node.handle),
            _ => None,
        });
        found.unwrap()
    }

    /// An entry for `p` with a new folder key.
    pub(crate) fn folder(&self, name: &str) -> NewNode {
        let key = FolderKey::generate().unwrap();
        let attrs = Attributes::with_name(name)
            .encrypt(&key.attr_key())
            .unwrap();
        self.entry(
            EntrySource::Folder("xxxxxxxx".into()),
            1,
            &attrs,
            &key.into(),
        )
    }

    pub(crate) fn entry(
        &self,
        source: EntrySource,
        kind: u8,
        attrs: &[u8],
        key: &NodeKey,
    ) -> NewNode {
        NewNode {
            source,
            kind,
            attrs: b64::encode(attrs),
            key: b64::encode(&self.session().master_key.wrap_node_key(key)),
            fa: None,
            parent: None,
            over: None,
        }
    }

    pub(crate) async fn mkdir(&self, parent: NodeHandle, name: &str) -> RawNode {
        let entry = self.folder(name);
        self.api
            .put_nodes(parent, vec![entry], None)
            .await
            .unwrap()
            .remove(0)
    }

    /// The attribute blob with another name, for a node of ours.
    pub(crate) fn renamed(&self, node: &RawNode, name: &str) -> String {
        let wrapped = node.key.as_deref().unwrap().split_once(':').unwrap().1;
        let is_folder = node.kind != NodeKind::File;
        let key = self
            .session()
            .master_key
            .unwrap_node_key(&b64::decode(wrapped).unwrap(), is_folder)
            .unwrap()
            .attr_key();
        let blob = b64::decode(node.attrs.as_deref().unwrap()).unwrap();
        let mut attributes = Attributes::decrypt(&key, &blob).unwrap();
        attributes.set("n", name);
        b64::encode(&attributes.encrypt(&key).unwrap())
    }

    pub(crate) fn no_violations(&self) {
        assert_eq!(self.emulator.counters().violations, Vec::<String>::new());
    }
}

/// Ciphertext in pieces, and the key that seals it.
pub(crate) struct Encrypted {
    pub(crate) pieces: Vec<(u64, Vec<u8>)>,
    pub(crate) key: NodeKey,
}

impl Encrypted {
    pub(crate) fn new(plain: &[u8]) -> Self {
        let upload = UploadKey::generate().unwrap();
        let cipher = ContentCipher::new(upload.content_key(), upload.nonce());
        let size = plain.len() as u64;
        let mut pieces = Vec::new();
        let mut macs = Vec::new();
        for index in 0.. {
            let Some(range) = chunk_range(index, size) else {
                break;
            };
            let mut piece = plain[range.start as usize..range.end as usize].to_vec();
            macs.push(cipher.chunk_mac(&piece));
            cipher.apply(range.start, &mut piece);
            pieces.push((range.start, piece));
        }
        if pieces.is_empty() {
            pieces.push((0, Vec::new()));
        }
        let key = upload.seal(&meta_mac(upload.content_key(), &macs)).into();
        Self { pieces, key }
    }

    pub(crate) fn checksum(piece: &[u8]) -> [u8; 12] {
        upload_checksum(piece)
    }

    pub(crate) fn entry(&self, world: &World, token: UploadToken, name: &str) -> NewNode {
        let attrs = Attributes::with_name(name)
            .encrypt(&self.key.attr_key())
            .unwrap();
        world.entry(EntrySource::Token(token), 0, &attrs, &self.key)
    }
}
