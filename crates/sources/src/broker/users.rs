//! The file of users and the hashes of their passwords.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use twinlake_contracts::{Error, Result};

use super::core::lock;

/// The hash of a password for the file of users: Argon2id with the crate's recommended cost, in PHC form.
pub fn hash_password(password: &str) -> Result<String> {
    let hash = Argon2::default().hash_password(password.as_bytes()).map_err(Error::internal)?;
    Ok(hash.to_string())
}

/// What was read from the file, and when the file was changed last by then.
type Reading = (Option<SystemTime>, Arc<HashMap<String, String>>);

/// The users of one file. The file is read again when it changes.
pub(crate) struct Users {
    path: PathBuf,
    read: Mutex<Reading>,
    /// Digests of what was verified, so that devices that come again together are not held up by the slow hash.
    verified: Mutex<HashMap<String, [u8; 32]>>,
    /// Verifying is meant to be slow: a storm of connections must not take every processor.
    turns: Semaphore,
}

impl Users {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let users = parse(path)?;
        Ok(Self {
            path: path.to_owned(),
            read: Mutex::new((modified(path), Arc::new(users))),
            verified: Mutex::default(),
            turns: Semaphore::new(1),
        })
    }

    fn current(&self) -> Arc<HashMap<String, String>> {
        let mut read = lock(&self.read);
        let modified = modified(&self.path);
        if modified.is_some() && modified != read.0 {
            match parse(&self.path) {
                Ok(users) => *read = (modified, Arc::new(users)),
                Err(error) => {
                    tracing::warn!(%error, "the users that were read before stay in force");
                    read.0 = modified;
                }
            }
        }
        Arc::clone(&read.1)
    }

    /// Whether this is the user's password.
    pub(crate) async fn verify(&self, name: &str, password: &[u8]) -> bool {
        let Some(hash) = self.current().get(name).cloned() else { return false };
        let mut digest = Sha256::new();
        digest.update(hash.as_bytes());
        digest.update([0]);
        digest.update(password);
        let digest: [u8; 32] = digest.finalize().into();
        if lock(&self.verified).get(name) == Some(&digest) {
            return true;
        }
        let Ok(_turn) = self.turns.acquire().await else { return false };
        let password = password.to_vec();
        let check = move || Argon2::default().verify_password(&password, hash.as_str()).is_ok();
        let right = tokio::task::spawn_blocking(check).await.unwrap_or(false);
        if right {
            lock(&self.verified).insert(name.to_owned(), digest);
        }
        right
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|found| found.modified()).ok()
}

fn parse(path: &Path) -> Result<HashMap<String, String>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::config(format!("the file of MQTT users '{}' cannot be read: {error}", path.display()))
    })?;
    let mut users = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = line.split_once(':').filter(|(name, hash)| {
            !name.is_empty() && hash.starts_with("$argon2") && argon2::PasswordHash::new(hash).is_ok()
        });
        let Some((name, hash)) = entry else {
            return Err(Error::config(format!(
                "line {} of the file of MQTT users '{}' is not name:hash",
                number + 1,
                path.display()
            ))
            .with_help("the hash has the form $argon2id$v=19$m=…,t=…,p=…$salt$hash, as the program argon2 prints it with -e"));
        };
        users.insert(name.to_owned(), hash.to_owned());
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_of_users_is_checked_and_read_again_when_it_changes() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("users");
        std::fs::write(&path, "# users\nanna:secret\n").expect("write");
        assert!(Users::open(&path).err().expect("error").to_string().contains("line 2"));
        let line =
            |name: &str, password: &str| format!("{name}:{}\n", hash_password(password).expect("hash"));
        std::fs::write(&path, line("anna", "secret")).expect("write");
        let users = Users::open(&path).expect("users");
        assert!(users.verify("anna", b"secret").await && users.verify("anna", b"secret").await);
        assert!(!users.verify("anna", b"wrong").await && !users.verify("otto", b"secret").await);
        std::fs::write(&path, line("anna", "changed") + &line("otto", "secret")).expect("write");
        let file = std::fs::File::open(&path).expect("file");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("time");
        assert!(!users.verify("anna", b"secret").await && users.verify("anna", b"changed").await);
        assert!(users.verify("otto", b"secret").await);
    }
}
