//! Files of the data folder: atomic writes, JSON, locks.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::error::{Error, ErrorContext, Result, io_error};

/// Writes a file atomically: writes a temporary file next to it and renames that file. A reader, or the
/// next run after a kill, sees the old or the new content, never a part of it. Only the owner can
/// read the file.
pub fn write_atomic(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    let temporary = temporary_path(path);
    // A temporary file that exists is of a killed run, or a link that another user put there, whose target
    // must not be overwritten.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content.as_ref())?;
    std::fs::rename(&temporary, path)
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".new");
    name.into()
}

/// Writes a value as JSON, atomically.
pub fn save_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value)
        .context(|| format!("cannot write `{}`", path.display()))?;
    write_atomic(path, text).map_err(|error| io_error("write", path, error))
}

/// Reads a value that [`save_json`] wrote. `None`: the file does not exist.
///
/// # Errors
/// The file cannot be read; its content is not valid JSON of this type.
pub fn load_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| damaged(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path, error)),
    }
}

fn damaged(path: &Path, error: serde_json::Error) -> Error {
    Error::failed(format!("`{}` is damaged", path.display())).with_source(error).hint(
        "restore the file from a backup, or move it away to continue without its content; \
             nothing was changed",
    )
}

/// A lock on a file, held until it is dropped or the process ends, even if it is killed.
#[derive(Debug)]
pub struct FileLock(#[expect(dead_code, reason = "the open file holds the lock")] File);

impl FileLock {
    /// Acquires the lock; creates the file if it does not exist. `None`: the lock is
    /// held elsewhere, in this or another process.
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

    /// Whether the lock is held now; `false` if the file does not exist.
    ///
    /// # Errors
    /// The file cannot be opened, for instance because it belongs to another user.
    pub fn is_held(path: &Path) -> Result<bool> {
        match File::open(path) {
            Ok(file) => Ok(matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("read", path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_a_saved_value_and_reports_damage_with_a_hint() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("saved.json");
        assert_eq!(load_json::<Vec<u8>>(&path).expect("reads"), None);
        save_json(&path, &vec![1, 2]).expect("writes");
        assert_eq!(load_json::<Vec<u8>>(&path).expect("reads"), Some(vec![1, 2]));
        assert!(!temporary_path(&path).exists(), "the temporary file was renamed");
        std::fs::write(&path, "[1,").expect("writes");
        let error = load_json::<Vec<u8>>(&path).expect_err("a truncated list is rejected");
        assert!(error.to_string().contains("is damaged") && error.hint_text().is_some(), "{error}");
    }

    #[test]
    fn a_temporary_file_follows_no_link_and_is_read_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let (path, victim) = (folder.path().join("saved"), folder.path().join("victim"));
        std::fs::write(&victim, "mine").expect("writes");
        std::os::unix::fs::symlink(&victim, temporary_path(&path)).expect("links");
        write_atomic(&path, "new").expect("writes");
        assert_eq!(std::fs::read_to_string(&victim).expect("reads"), "mine");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "new");
        let metadata = std::fs::symlink_metadata(&path).expect("exists");
        assert!(metadata.is_file());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        // A temporary file of a killed run.
        std::fs::write(temporary_path(&path), "half").expect("writes");
        write_atomic(&path, "newer").expect("writes");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "newer");
    }

    #[test]
    fn lock_has_one_holder() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        assert!(!FileLock::is_held(&path).expect("reads"));
        let held = FileLock::try_lock(&path).expect("opens");
        assert!(held.is_some() && FileLock::is_held(&path).expect("reads"));
        assert!(FileLock::try_lock(&path).expect("opens").is_none(), "a second holder");
        drop(held);
        assert!(!FileLock::is_held(&path).expect("reads"));
    }
}
