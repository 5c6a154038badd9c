//! What a node keeps in its folder: its secret, and whom to dial after a restart.
//!
//! | file | what it holds |
//! |---|---|
//! | `identity` | 32 secret bytes in hex, from which the keys grow; readable by the owner only. Whoever has it is this node |
//! | `peers` | addresses that answered, bound to the identity; anything else than what this node wrote is put aside |
//! | `lock` | held while a node runs: two nodes with one identity would cut each other off |
//!
//! A file is written beside its place, synced, and moved there, so that a crash leaves the old one or the new one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::Rng;
use rookery_runtime::{Env, OnPanic, Worker};
use tokio::sync::oneshot;

use crate::services::discovery::DiscoveryHandle;
use crate::wire::snapshot::{Candidate, MAX_FILE, Owner, Snapshot};

const IDENTITY: &str = "identity";
const PEERS: &str = "peers";
const LOCK: &str = "lock";
/// How often the peers are saved: what a crash may lose of them is met again within minutes.
const SAVE: Duration = Duration::from_secs(120);

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system says no.
    #[error("cannot {what} {}: {error}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A node runs on it.
    #[error("{} is in use by a running node: stop that one, or use another folder", .0.display())]
    InUse(PathBuf),
    /// The identity's file is not one.
    #[error(
        "{} holds no identity (64 hex digits): put the right file there, or move it away for a new identity",
        .0.display()
    )]
    NotAnIdentity(PathBuf),
}

/// A node's folder, locked while it is open.
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FolderError + 'a {
    move |error| FolderError::System { what, path: path.to_owned(), error }
}

impl Folder {
    /// Opens a folder, and makes it where it is not there.
    ///
    /// # Errors
    /// When the system refuses, or a node runs on it.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make", path))?;
        let at = path.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&at);
        let lock = lock.map_err(failed("open", &at))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed("lock", &at)(error)),
        }
    }

    /// The identity's secret, drawn from `rng` and kept where there was none.
    ///
    /// # Errors
    /// When it cannot be read or kept, or what is there is no secret.
    pub fn secret(&self, rng: &mut impl Rng) -> Result<[u8; 32], FolderError> {
        if let Some(secret) = Self::kept_secret(&self.path)? {
            return Ok(secret);
        }
        let at = self.path.join(IDENTITY);
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        let text = format!("{}\n", const_hex::encode(secret));
        write(&at, text.as_bytes()).map_err(failed("write", &at))?;
        Ok(secret)
    }

    /// The secret that is kept in the folder of this path; `None` where there is none. Makes nothing and takes no lock, so it
    /// answers beside a running node too.
    ///
    /// # Errors
    /// When it cannot be read, or what is there is no secret.
    pub fn kept_secret(path: &Path) -> Result<Option<[u8; 32]>, FolderError> {
        let at = path.join(IDENTITY);
        let mut secret = [0; 32];
        match read(&at, 2 * secret.len() + 2) {
            Ok(text) => {
                let text = text.trim_ascii();
                let read =
                    text.len() == 2 * secret.len() && const_hex::decode_to_slice(text, &mut secret).is_ok();
                if read { Ok(Some(secret)) } else { Err(FolderError::NotAnIdentity(at)) }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &at)(error)),
        }
    }

    /// Whom to dial, as this node has kept it. A file that is not its own, or is damaged, is not worth stopping for: it is put
    /// aside, and that is said.
    pub(super) fn candidates(&self, owner: &Owner) -> Vec<SocketAddr> {
        let at = self.path.join(PEERS);
        let file = match read(&at, MAX_FILE) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!(file = %at.display(), %error, "cannot read the known peers; beginning without");
                return Vec::new();
            }
        };
        match Snapshot::decode(&file, owner) {
            Ok(snapshot) => snapshot.candidates.iter().map(|candidate| candidate.addr).collect(),
            Err(error) => {
                let aside = at.with_extension("unusable");
                // If it cannot be moved it is written over at the next save; it is of no use either way.
                let _ = fs::rename(&at, &aside);
                tracing::warn!(kept = %aside.display(), %error, "the file of known peers was put aside");
                Vec::new()
            }
        }
    }

    /// Saves whom discovery knows, every two minutes and, with its last word, when the node stops.
    pub(super) fn keep(
        self,
        env: &Env,
        discovery: DiscoveryHandle,
        mut last: oneshot::Receiver<Vec<Candidate>>,
        owner: Owner,
    ) {
        let clock = env.clock;
        let worker = Worker::start(env, "peers file", 1, self);
        env.scope.spawn_to_end("peers keeper", OnPanic::StopNode, async move {
            loop {
                let said = clock.timeout(SAVE, &mut last).await;
                let stopping = said.is_some();
                let candidates = match said {
                    // A reactor that panicked said nothing.
                    Some(last) => last.unwrap_or_default(),
                    None => discovery.candidates().await,
                };
                // Having met nobody is no reason to forget those of the last time.
                if candidates.is_empty() {
                    if stopping {
                        return;
                    }
                    continue;
                }
                let file = Snapshot { made: clock.unix(), candidates }.encode(&owner);
                let saved = worker.call(move |folder: &mut Self| folder.save(&file)).await;
                if let Ok(Err(error)) = saved {
                    tracing::warn!(%error, "cannot save the known peers");
                }
                if stopping {
                    return;
                }
            }
        });
    }

    fn save(&self, file: &[u8]) -> io::Result<()> {
        write(&self.path.join(PEERS), file)
    }
}

/// Reads a file of at most `most` bytes; of a longer one, one byte more, so that it shows.
fn read(at: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(at)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file whole or not at all.
fn write(at: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = at.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, at)?;
    File::open(at.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_base::{Hash32, PeerId};
    use rookery_runtime::RngSource;

    fn owner(number: u8) -> Owner {
        let peer = PeerId::from_bytes(&[number; 32]).unwrap();
        Owner { network: Hash32::ZERO, peer, secret: [number; 32] }
    }

    #[test]
    fn an_identity_is_made_once_kept_private_and_never_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = RngSource::seeded(1, 0).fork("secret", 0);
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(Folder::kept_secret(dir.path()).unwrap(), None);
        let secret = folder.secret(&mut rng).unwrap();
        assert_eq!(Folder::kept_secret(dir.path()).unwrap(), Some(secret));
        assert_eq!(folder.secret(&mut rng).unwrap(), secret);
        let at = dir.path().join(IDENTITY);
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&at).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(Folder::open(dir.path()), Err(FolderError::InUse(_))));
        for text in ["", "not hex", &"0".repeat(63), &"0".repeat(66)] {
            fs::write(&at, text).unwrap();
            assert!(matches!(folder.secret(&mut rng), Err(FolderError::NotAnIdentity(_))), "{text}");
            assert_eq!(fs::read(&at).unwrap(), text.as_bytes(), "what is there is not touched");
        }
    }

    #[test]
    fn known_peers_come_back_and_files_of_others_or_damaged_ones_are_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert!(folder.candidates(&owner(1)).is_empty());
        let addr = "203.0.113.5:4000".parse().unwrap();
        let candidates = vec![Candidate { addr, reached: 5 }];
        let file = Snapshot { made: 9, candidates }.encode(&owner(1));
        let huge = vec![b'R'; MAX_FILE + 1];
        let mut bent = file.clone();
        bent[100] ^= 1;
        for (bytes, whose, expected) in
            [(&file, 1, vec![addr]), (&file, 2, vec![]), (&bent, 1, vec![]), (&huge, 1, vec![])]
        {
            folder.save(bytes).unwrap();
            assert_eq!(folder.candidates(&owner(whose)), expected);
            let aside = dir.path().join("peers.unusable");
            assert_eq!(aside.exists(), expected.is_empty());
            let _ = std::fs::remove_file(aside);
        }
    }
}
