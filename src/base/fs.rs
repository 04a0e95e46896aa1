//! Files of the data folder: written whole or not at all, read back, locked.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::error::{Error, ErrorContext, Result, io_error};

/// Writes a file beside the old one and puts it in its place: a reader, or the next
/// run after a kill, sees the one or the other, never a half.
pub fn write_atomic(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    let draft = draft(path);
    std::fs::write(&draft, content).and_then(|()| std::fs::rename(&draft, path))
}

fn draft(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".new");
    name.into()
}

/// Keeps a value as JSON, whole or not at all.
pub fn save_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value)
        .context(|| format!("cannot write `{}`", path.display()))?;
    write_atomic(path, text).map_err(|error| io_error("write", path, error))
}

/// Reads back what [`save_json`] kept. `None`: there is no such file.
///
/// # Errors
/// The file cannot be read, or is not what this program wrote.
pub fn load_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| damaged(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path, error)),
    }
}

fn damaged(path: &Path, error: serde_json::Error) -> Error {
    Error::failed(format!("`{}` is damaged", path.display()))
        .with_source(error)
        .hint("put back a copy of it, or move it away to go on without what it kept; nothing was changed")
}

/// A lock on a file, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct FileLock(#[expect(dead_code, reason = "an open file is what holds the lock")] File);

impl FileLock {
    /// Takes the lock, making the file where there is none. `None`: somebody else holds it.
    pub fn try_lock(path: &Path) -> Result<Option<Self>> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(|error| io_error("open", path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(io_error("lock", path, error)),
        }
    }

    /// Whether somebody holds the lock now.
    pub fn is_held(path: &Path) -> bool {
        let Ok(file) = File::options().write(true).open(path) else {
            return false;
        };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_value_comes_back_and_damage_is_said_with_a_hint() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kept.json");
        assert_eq!(load_json::<Vec<u8>>(&path).expect("reads"), None);
        save_json(&path, &vec![1, 2]).expect("writes");
        assert_eq!(
            load_json::<Vec<u8>>(&path).expect("reads"),
            Some(vec![1, 2])
        );
        assert!(!draft(&path).exists(), "the draft has become the file");
        std::fs::write(&path, "[1,").expect("writes");
        let error = load_json::<Vec<u8>>(&path).expect_err("half a list is refused");
        assert!(
            error.to_string().contains("is damaged") && error.hint_text().is_some(),
            "{error}"
        );
    }

    #[test]
    fn a_lock_has_one_holder() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        assert!(!FileLock::is_held(&path));
        let held = FileLock::try_lock(&path).expect("opens");
        assert!(held.is_some() && FileLock::is_held(&path));
        assert!(
            FileLock::try_lock(&path).expect("opens").is_none(),
            "a second holder"
        );
        drop(held);
        assert!(!FileLock::is_held(&path));
    }
}
