//! The file `session`: what an unattended restart needs. JSON, 0600, replaced atomically.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use mega_proto::b64;

use crate::durable;
use crate::error::StoreError;
use crate::rows::SavedSession;

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Document {
    format: u32,
    sid: String,
    master_key: String,
    user: String,
    #[serde(default)]
    email: String,
}

/// Reads the file; `None` if there is none.
pub(crate) fn load(path: &Path) -> Result<Option<SavedSession>, StoreError> {
    match std::fs::read(path) {
        Ok(text) => from_text(&Zeroizing::new(text)).map(Some),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::io(path, source)),
    }
}

/// Reads what [`to_text`] wrote.
pub(crate) fn from_text(text: &[u8]) -> Result<SavedSession, StoreError> {
    let damaged = || StoreError::Damaged {
        what: "the saved session",
    };
    let document: Document = serde_json::from_slice(text).map_err(|_| damaged())?;
    if document.format != FORMAT {
        return Err(StoreError::UnknownFormat {
            found: document.format.to_string(),
            expected: FORMAT,
        });
    }
    let key = Zeroizing::new(b64::decode(&document.master_key).map_err(|_| damaged())?);
    Ok(SavedSession {
        sid: document.sid.clone(),
        master_key: key.as_slice().try_into().map_err(|_| damaged())?,
        user: document.user.clone(),
        email: document.email.clone(),
    })
}

/// Replaces the file.
pub(crate) fn save(path: &Path, session: &SavedSession) -> Result<(), StoreError> {
    durable::replace_file(path, &to_text(session)?)
}

/// A session as it is kept, secrets and all.
pub(crate) fn to_text(session: &SavedSession) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let document = Document {
        format: FORMAT,
        sid: session.sid.clone(),
        master_key: b64::encode(&session.master_key),
        user: session.user.clone(),
        email: session.email.clone(),
    };
    let text = serde_json::to_vec_pretty(&document).map_err(|_| StoreError::Damaged {
        what: "the session",
    })?;
    Ok(Zeroizing::new(text))
}
