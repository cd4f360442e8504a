//! The commands by name: thin, typed, one request each.

use mega_crypto::RsaPrivateKey;
use mega_proto::reply::{
    self, Account, Download, FromReply, PendingKey, Put, Quota, UserAttribute,
};
use mega_proto::{
    Command, CrossKeys, Entry, ErrorCode, NodeHandle, PublicHandle, RawNode, UserHandle,
};
use serde_json::Value;
use std::fmt;
use std::time::Duration;
use url::Url;

use crate::api::Api;
use crate::error::ApiError;
use crate::login::private_key;

/// One node to be created.
pub type NewNode = Entry;

/// Without a time of its own the service's "no transfer quota" lasts this long (`protocol/04` section 1).
pub(crate) const DEFAULT_QUOTA_WAIT: Duration = Duration::from_secs(3600);

/// Where a file's ciphertext is. The addresses are secrets and live for hours.
#[derive(Clone, PartialEq, Eq)]
pub struct DownloadTarget {
    /// One address, or with [`ApiConfig::cloudraid`](crate::ApiConfig::cloudraid) those of the six parts of a
    /// striped file; none for an empty file.
    pub urls: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// The node's current encrypted attributes, base64.
    pub attrs: Option<String>,
}

impl fmt::Debug for DownloadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownloadTarget")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// What `ug` says about us.
#[derive(Clone)]
pub struct UserData {
    /// Ourselves.
    pub user: UserHandle,
    /// Our e-mail address.
    pub email: Option<String>,
    /// Our RSA key; `None` for an account without one.
    pub rsa: Option<RsaPrivateKey>,
}

impl fmt::Debug for UserData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserData")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

fn read<T: FromReply>(value: &Value, what: &'static str) -> Result<T, ApiError> {
    T::from_value(value).ok_or(ApiError::BadReply(what))
}

impl Api {
    /// `ssl` of `g` and `u` (`protocol/01` section 9).
    const fn ssl(wants_tls: bool) -> u8 {
        if wants_tls { 2 } else { 0 }
    }

    /// The address as it is used: https unless plain http was asked for or is all there is.
    fn storage_url(&self, url: String) -> String {
        match url.strip_prefix("http://") {
            Some(rest) if self.0.config.transfer_tls && self.0.http.is_https() => {
                format!("https://{rest}")
            }
            _ => url,
        }
    }

    /// `p` with our client id, to be frozen.
    #[must_use]
    pub fn put_command(
        &self,
        parent: NodeHandle,
        entries: Vec<NewNode>,
        cr: Option<CrossKeys>,
    ) -> Command {
        Command::Put {
            t: parent,
            n: entries,
            i: self.client_id().to_owned(),
            vb: None,
            cr,
        }
    }

    /// `m` with our client id, to be frozen.
    #[must_use]
    pub fn move_command(
        &self,
        node: NodeHandle,
        parent: NodeHandle,
        cr: Option<CrossKeys>,
    ) -> Command {
        Command::Move {
            n: node,
            t: parent,
            i: self.client_id().to_owned(),
            cr,
        }
    }

    /// `a` with our client id, to be frozen.
    #[must_use]
    pub fn attributes_command(&self, node: NodeHandle, attrs: String) -> Command {
        Command::SetAttributes {
            n: node,
            at: attrs,
            i: self.client_id().to_owned(),
        }
    }

    /// `d` with our client id, to be frozen. Deletes a file with all its versions.
    #[must_use]
    pub fn delete_command(&self, node: NodeHandle) -> Command {
        Command::Delete {
            n: node,
            i: self.client_id().to_owned(),
            v: None,
        }
    }

    /// Creates nodes below a folder; gives them as the service now has them. A node whose parent is the
    /// rubbish bin was not placed: its folder had gone.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn put_nodes(
        &self,
        parent: NodeHandle,
        entries: Vec<NewNode>,
        cr: Option<CrossKeys>,
    ) -> Result<Vec<RawNode>, ApiError> {
        let reply = self.command(self.put_command(parent, entries, cr)).await?;
        Ok(read::<Put>(&reply, "p")?.nodes)
    }

    /// Moves a node.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn move_node(
        &self,
        node: NodeHandle,
        parent: NodeHandle,
        cr: Option<CrossKeys>,
    ) -> Result<(), ApiError> {
        self.command(self.move_command(node, parent, cr))
            .await
            .map(drop)
    }

    /// Replaces a node's attributes with these, encrypted and in base64.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn set_attributes(&self, node: NodeHandle, attrs: String) -> Result<(), ApiError> {
        self.command(self.attributes_command(node, attrs))
            .await
            .map(drop)
    }

    /// Deletes a node for good, with everything below it and all its versions.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn delete(&self, node: NodeHandle) -> Result<(), ApiError> {
        let reply = self.command(self.delete_command(node)).await?;
        // Success is `0` or `{"r":[0]}`.
        match reply.pointer("/r/0").and_then(Value::as_i64) {
            Some(code) if code < 0 => Err(ApiError::from_code(ErrorCode::from_code(code))),
            _ => Ok(()),
        }
    }

    /// Deletes one version of a file; the next older one takes its place.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn delete_version(&self, node: NodeHandle) -> Result<(), ApiError> {
        let i = self.client_id().to_owned();
        self.command(Command::Delete {
            n: node,
            i,
            v: Some(1),
        })
        .await
        .map(drop)
    }

    /// Where to download a node from.
    ///
    /// # Errors
    /// As [`command`](Self::command); [`ApiError::OverQuota`] with the time to wait.
    pub async fn download_url(&self, node: NodeHandle) -> Result<DownloadTarget, ApiError> {
        self.download_target(self.ask(self.download_command(node)).await)
    }

    fn download_command(&self, node: NodeHandle) -> Command {
        let ssl = Self::ssl(self.0.config.transfer_tls);
        let link = self.link().filter(|link| !link.is_folder());
        Command::Download {
            g: 1,
            ssl,
            n: link.is_none().then_some(node),
            p: link.map(|link| link.handle),
            v: self.0.config.cloudraid.then_some(2),
        }
    }

    /// Where to download several nodes from, in one request, with one answer for each in their order.
    ///
    /// # Errors
    /// As [`command`](Self::command), if nothing was answered at all.
    pub async fn download_urls(
        &self,
        nodes: &[NodeHandle],
    ) -> Result<Vec<Result<DownloadTarget, ApiError>>, ApiError> {
        let commands: Vec<_> = nodes
            .iter()
            .map(|node| self.download_command(*node))
            .collect();
        let answers = self.send(&self.freeze(commands)).await?;
        let target = |answer: Result<Value, ErrorCode>| {
            self.download_target(answer.map_err(ApiError::from_code))
        };
        Ok(answers.into_iter().map(target).collect())
    }

    /// What the reply to `g` says.
    fn download_target(&self, reply: Result<Value, ApiError>) -> Result<DownloadTarget, ApiError> {
        let reply = match reply {
            Err(ApiError::OverQuota { code, .. }) => {
                let wait = Some(DEFAULT_QUOTA_WAIT);
                return Err(ApiError::OverQuota { code, wait });
            }
            other => other?,
        };
        let found: Download = read(&reply, "g")?;
        if let Some(code) = found.error {
            return Err(match ApiError::from_code(code) {
                ApiError::OverQuota { code, .. } => {
                    let wait = found.wait.map_or(DEFAULT_QUOTA_WAIT, Duration::from_secs);
                    ApiError::OverQuota {
                        code,
                        wait: Some(wait),
                    }
                }
                other => other,
            });
        }
        if found.urls.is_empty() && found.size > 0 {
            return Err(ApiError::BadReply("g has no address"));
        }
        let urls = found
            .urls
            .into_iter()
            .map(|url| self.storage_url(url))
            .collect();
        Ok(DownloadTarget {
            urls,
            size: found.size,
            attrs: found.attrs,
        })
    }

    /// Where to upload a file of exactly this many bytes to.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn upload_url(&self, size: u64) -> Result<Url, ApiError> {
        let ssl = Self::ssl(self.0.config.transfer_tls);
        let reply = self.ask(Command::upload(size, ssl)).await?;
        let url = reply::upload_url(&reply).ok_or(ApiError::BadReply("u"))?;
        let url = self.storage_url(url.to_owned());
        Url::parse(&url).map_err(|_| ApiError::BadReply("u has no usable address"))
    }

    /// Storage and transfer, total and used.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn quota(&self) -> Result<Quota, ApiError> {
        read(&self.command(Command::quota()).await?, "uq")
    }

    /// Who we are, and our RSA key, which the session then has too. The cheap check of a kept session.
    ///
    /// # Errors
    /// As [`command`](Self::command); [`ApiError::BadReply`] also if the key does not fit the session's
    /// master key.
    pub async fn user_data(&self) -> Result<UserData, ApiError> {
        let reply = self.command(Command::UserData {}).await?;
        let account: Account = read(&reply, "ug")?;
        let user = account.user.ok_or(ApiError::BadReply("ug has no user"))?;
        let (session, _) = self.0.sessions.current()?;
        let rsa = match &account.private_key {
            Some(text) => {
                let key = private_key(text, &session.master_key);
                Some(key.ok_or(ApiError::BadReply(
                    "the RSA key does not fit the master key",
                ))?)
            }
            None => None,
        };
        if let Some(rsa) = &rsa {
            self.remember_rsa(&session.sid, rsa.clone());
        }
        Ok(UserData {
            user,
            email: account.email,
            rsa,
        })
    }

    /// A user attribute of ours as stored, mostly base64; `None` if it is not set.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn user_attribute(&self, name: &str) -> Result<Option<UserAttribute>, ApiError> {
        let (session, _) = self.0.sessions.current()?;
        let command = Command::user_attribute(&session.user.to_string(), name);
        match self.command(command).await {
            Ok(reply) => read(&reply, "uga").map(Some),
            Err(ApiError::Refused(ErrorCode::NotFound)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A public attribute of another user, as stored; `None` if it is not set.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn attribute_of(
        &self,
        user: UserHandle,
        name: &str,
    ) -> Result<Option<UserAttribute>, ApiError> {
        let command = Command::user_attribute(&user.to_string(), name);
        match self.command(command).await {
            Ok(reply) => read(&reply, "uga").map(Some),
            Err(ApiError::Refused(ErrorCode::NotFound)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Share keys that others have left for us and no client of ours has taken: who left it, for which
    /// folder, the wrapped key (`pk`, `protocol/03` section 6). They are not acknowledged, so that they stay.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn pending_keys(&self) -> Result<Vec<PendingKey>, ApiError> {
        match self.command(Command::PendingKeys { d: None }).await {
            Ok(reply) => Ok(reply::pending_keys(&reply)),
            Err(ApiError::Refused(ErrorCode::NotFound)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The public link of a node; made if there is none. A folder must be shared with everybody first.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn export_link(&self, node: NodeHandle) -> Result<PublicHandle, ApiError> {
        self.export_link_until(node, None).await
    }

    /// As [`export_link`](Self::export_link), for a link that ends at `expires`, seconds since 1970.
    ///
    /// # Errors
    /// As [`command`](Self::command); accounts that pay nothing get no such links.
    pub async fn export_link_until(
        &self,
        node: NodeHandle,
        expires: Option<i64>,
    ) -> Result<PublicHandle, ApiError> {
        let i = self.client_id().to_owned();
        let reply = self
            .command(Command::Export {
                n: node,
                i,
                d: None,
                ets: expires,
            })
            .await?;
        let text = reply
            .as_str()
            .or_else(|| reply.get("ph").and_then(Value::as_str));
        text.and_then(|text| text.parse().ok())
            .ok_or(ApiError::BadReply("l"))
    }

    /// Ends the public link of a node.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn remove_link(&self, node: NodeHandle) -> Result<(), ApiError> {
        let i = self.client_id().to_owned();
        self.command(Command::Export {
            n: node,
            i,
            d: Some(1),
            ets: None,
        })
        .await
        .map(drop)
    }

    /// Empties the rubbish bin.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn empty_rubbish(&self) -> Result<(), ApiError> {
        self.command(Command::EmptyRubbish {}).await.map(drop)
    }

    /// Why the account is blocked (`protocol/01` section 5.3); `None` if it is not.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub async fn why_blocked(&self) -> Result<Option<i64>, ApiError> {
        let reply = self.command(Command::WhyBlocked {}).await?;
        let reason = reply
            .as_i64()
            .or_else(|| reply.as_str().and_then(|text| text.parse().ok()));
        Ok(reason.filter(|reason| *reason > 0))
    }

    /// Ends the session on the service and forgets it.
    ///
    /// # Errors
    /// As [`command`](Self::command); the session is forgotten only on success, or if it was dead.
    pub async fn logout(&self) -> Result<(), ApiError> {
        match self.command(Command::Logout {}).await {
            Ok(_) | Err(ApiError::SessionDead | ApiError::NoSession) => {
                self.forget_session();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
