//! The session in the kernel's keyring of the user, instead of the file `session`.
//!
//! A key of type `user`, described by the state directory, that every process of this user may read, as it may
//! read the file. It is on no disk, and gone when the machine is switched off.

use std::path::Path;

use linux_keyutils::{
    Key, KeyError, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, Permission,
};
use zeroize::Zeroizing;

use crate::error::StoreError;
use crate::rows::SavedSession;
use crate::session_file;

/// Reads the session; `None` if there is none.
pub(crate) fn load(state_dir: &Path) -> Result<Option<SavedSession>, StoreError> {
    with_ring(|ring| {
        let Some(key) = ring.find(state_dir)? else {
            return Ok(None);
        };
        let text = Zeroizing::new(key.read_to_vec().map_err(failed)?);
        session_file::from_text(&text).map(Some)
    })
}

/// Replaces the session.
pub(crate) fn save(state_dir: &Path, session: &SavedSession) -> Result<(), StoreError> {
    let text = session_file::to_text(session)?;
    with_ring(|ring| {
        // Of the same description, it takes the place of the one before.
        let key = ring
            .user
            .add_key(&description(state_dir), text.as_slice())
            .map_err(failed)?;
        let permissions = KeyPermissionsBuilder::builder()
            .posessor(Permission::ALL)
            .user(Permission::ALL)
            .build();
        key.set_perms(permissions).map_err(|error| {
            // One that nobody can read would stand in the way of each later start.
            let _ = ring.user.unlink_key(key);
            failed(error)
        })
    })
}

/// Forgets the session.
pub(crate) fn clear(state_dir: &Path) -> Result<(), StoreError> {
    with_ring(|ring| match ring.find(state_dir)? {
        Some(key) => ring.user.unlink_key(key).map_err(failed),
        None => Ok(()),
    })
}

/// Works with the keyring in a thread of its own: what that holds, threads that it starts would inherit, and each
/// counts as a key of the user, of whom there may be 200.
fn with_ring<T: Send>(
    work: impl FnOnce(&UserRing) -> Result<T, StoreError> + Send,
) -> Result<T, StoreError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| work(&UserRing::open()?));
        thread
            .join()
            .unwrap_or(Err(StoreError::Keyring("the thread that asked has died")))
    })
}

/// The keyring that all processes of a user share, held by this thread.
///
/// A login shell possesses it. A service that systemd starts has a session keyring of its own and possesses
/// nothing of its user's: it may add a key, and not look at it. So the thread holds it while it is used.
struct UserRing {
    user: KeyRing,
}

impl UserRing {
    fn open() -> Result<Self, StoreError> {
        let of = |id| KeyRing::from_special_id(id, true).map_err(failed);
        let user = of(KeyRingIdentifier::User)?;
        let thread = of(KeyRingIdentifier::Thread)?;
        thread.link_keyring(user).map_err(failed)?;
        Ok(Self { user })
    }

    fn find(&self, state_dir: &Path) -> Result<Option<Key>, StoreError> {
        match self.user.search(&description(state_dir)) {
            Ok(key) => Ok(Some(key)),
            Err(KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked) => {
                Ok(None)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

fn description(state_dir: &Path) -> String {
    format!("megamount:{}", state_dir.display())
}

fn failed(error: KeyError) -> StoreError {
    StoreError::Keyring(match error {
        KeyError::QuotaExceeded => "it is full (see /proc/key-users)",
        KeyError::AccessDenied => "access is denied, as containers often do",
        KeyError::OperationNotSupported => "this kernel has none",
        _ => "the kernel refused it",
    })
}
