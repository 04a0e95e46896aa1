//! Lists the lake: the names, sizes and versions of objects in a folder or a bucket.

use std::fs::{DirEntry, Metadata};
use std::future::ready;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path as FilePath, PathBuf};
use std::time::SystemTime;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Error;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::{Path, PathPart};
use tokio::sync::mpsc;

use crate::base::error::{Error, ErrorContext, Result, io_error};
use crate::clients::aws::call::{code, failure};
use crate::data::storage::{Bucket, Lake, NO_BUCKET, UNREACHABLE};

/// Number of entries that the listing thread of a folder sends at a time.
const SENT_ENTRIES: usize = 1_024;

/// An entry of a listing.
#[derive(Debug)]
pub enum Entry {
    Object(ListedObject),
    Skipped(SkippedObject),
}

/// An object of a listing.
#[derive(Debug)]
pub struct ListedObject {
    pub path: Path,
    /// Names below the listed folder: folders, then the name of the object.
    pub parts: Vec<String>,
    pub size_bytes: u64,
    /// Time of the last modification, in milliseconds since the epoch.
    pub written_ms: i64,
    /// Changes with the content: the ETag, or the modification time of a file in nanoseconds.
    pub version: String,
}

/// An object that is not read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SkippedObject {
    pub object: String,
    pub reason: String,
}

/// Lists the objects below a folder of the lake, in no particular order. A folder that does not
/// exist has none. Names that begin with `_` or `.` are hidden, as in Hadoop.
///
/// # Errors
/// The lake cannot be listed.
pub fn list(lake: &Lake, folder: &str) -> BoxStream<'static, Result<Entry>> {
    let prefix = lake.path(folder);
    if let Some(bucket) = &lake.bucket {
        return list_bucket(bucket, prefix, lake.url.clone());
    }
    match lake.files.as_ref().map(|files| files.path_to_filesystem(&prefix)) {
        Some(Ok(folder)) => list_folder(folder, prefix),
        Some(Err(error)) => {
            let cannot = || format!("cannot list the lake `{}`", lake.url);
            stream::iter([Err(error).context(cannot)]).boxed()
        }
        None => stream::empty().boxed(),
    }
}

/// Returns whether Hadoop, and therefore Spark, ignores a file or folder of this name. `_` marks
/// temporary folders, unless the name contains `=`: then it is the folder of a partition column.
fn is_hidden(name: &str) -> bool {
    let is_relative = matches!(name, "." | "..");
    name.starts_with('.') && !is_relative || name.starts_with('_') && !name.contains('=')
}

fn list_bucket(bucket: &Bucket, prefix: Path, url: String) -> BoxStream<'static, Result<Entry>> {
    let prefix = if prefix.is_root() { String::new() } else { format!("{prefix}/") };
    let request = bucket.client.list_objects_v2().bucket(&bucket.name).prefix(&prefix);
    let pages = stream::unfold(request.into_paginator().send(), |mut pages| async move {
        pages.next().await.map(|page| (page, pages))
    });
    let entries = pages.flat_map(move |page| {
        let entries: Vec<Result<Entry>> = match page {
            Ok(page) => {
                page.contents().iter().filter_map(|object| key(object, &prefix)).map(Ok).collect()
            }
            Err(error) => vec![Err(listing_failure(&url, &error))],
        };
        stream::iter(entries)
    });
    entries.boxed()
}

/// Converts a listed key. Returns `None` for a hidden name and for the marker of an empty folder.
fn key(object: &aws_sdk_s3::types::Object, prefix: &str) -> Option<Entry> {
    let key = object.key()?;
    let below = key.strip_prefix(prefix)?;
    let parts: Vec<String> = below.split('/').map(String::from).collect();
    if below.ends_with('/') || parts.iter().any(|part| is_hidden(part)) {
        return None;
    }
    let Ok(path) = Path::parse(key) else {
        let reason = "its key contains `//`, `/./`, `/../` or a control character".into();
        return Some(Entry::Skipped(SkippedObject { object: key.to_string(), reason }));
    };
    let written = object.last_modified();
    let written_ms = written.and_then(|written| written.to_millis().ok()).unwrap_or_default();
    Some(Entry::Object(ListedObject {
        path,
        parts,
        size_bytes: object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
        written_ms,
        version: object.e_tag().map_or_else(|| written_ms.to_string(), String::from),
    }))
}

/// Converts a failed listing of a bucket to an error with a hint.
fn listing_failure(url: &str, error: &SdkError<ListObjectsV2Error>) -> Error {
    // The SDK has already retried.
    let refused = failure(&format!("cannot list the lake `{url}`"), error).retryable(false);
    match error {
        SdkError::ServiceError(_) if code(error) == "NoSuchBucket" => refused.hint(NO_BUCKET),
        SdkError::DispatchFailure(cause) if cause.is_io() || cause.is_timeout() => {
            refused.hint(UNREACHABLE)
        }
        _ => refused,
    }
}

/// Lists a folder on a thread of its own, which may block.
fn list_folder(folder: PathBuf, prefix: Path) -> BoxStream<'static, Result<Entry>> {
    let (sender, received) = mpsc::channel(2);
    let walk = tokio::task::spawn_blocking(move || {
        let resolved = std::fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
        let mut walk = FolderWalk { sender, entries: Vec::new(), open: vec![resolved] };
        // Stops if the receiver is dropped, because then no more entries are needed.
        let _ = walk.list(&folder, &prefix, &mut Vec::new());
        let _ = walk.flush();
    });
    let entries = stream::unfold(received, |mut received: mpsc::Receiver<Vec<_>>| async move {
        received.recv().await.map(|entries| (stream::iter(entries), received))
    });
    // An incomplete listing must not look like a complete one.
    let end = stream::once(async move {
        walk.await.context(|| "listing the lake was interrupted")?;
        Ok::<Option<Entry>, Error>(None)
    });
    entries.flatten().map_ok(Some).chain(end).try_filter_map(|entry| ready(Ok(entry))).boxed()
}

/// A listing of a folder and the folders below it.
struct FolderWalk {
    sender: mpsc::Sender<Vec<Result<Entry>>>,
    /// Entries that have not been sent yet.
    entries: Vec<Result<Entry>>,
    /// The listed folder and the folders on the way to the current one, with symbolic links
    /// resolved.
    open: Vec<PathBuf>,
}

impl FolderWalk {
    /// Lists a folder. Stops if the receiver is dropped.
    fn list(&mut self, folder: &FilePath, path: &Path, parts: &mut Vec<String>) -> ControlFlow<()> {
        let files = match std::fs::read_dir(folder) {
            Ok(files) => files,
            // No object was written yet, or the folder was deleted during the listing.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return ControlFlow::Continue(());
            }
            Err(error) => return self.push(Err(io_error("read", folder, error))),
        };
        for file in files {
            match file {
                Ok(file) => self.add(&file, path, parts)?,
                Err(error) => self.push(Err(io_error("read", folder, error)))?,
            }
        }
        ControlFlow::Continue(())
    }

    /// Adds a file, or the files of a folder.
    fn add(&mut self, entry: &DirEntry, path: &Path, parts: &mut Vec<String>) -> ControlFlow<()> {
        let file = entry.path();
        let file_name = entry.file_name();
        let name = file_name.to_string_lossy();
        if is_hidden(&name) || is_partly_written(&name) {
            return ControlFlow::Continue(());
        }
        if file_name.to_str().is_none() {
            return self.skip(&file, "its name is not UTF-8");
        }
        let Ok(part) = PathPart::parse(&name) else {
            return self.skip(&file, "its name contains a control character");
        };
        let is_link = entry.file_type().is_ok_and(|file_type| file_type.is_symlink());
        let followed = if is_link { std::fs::metadata(&file) } else { entry.metadata() };
        let metadata = match followed {
            Ok(metadata) => metadata,
            Err(error) if is_link => {
                let reason = format!("it is a symbolic link that cannot be followed: {error}");
                return self.skip(&file, reason);
            }
            // Deleted during the listing.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return ControlFlow::Continue(());
            }
            Err(error) => return self.push(Err(io_error("read", &file, error))),
        };
        let below = path.clone().join(part);
        if metadata.is_dir() {
            return self.add_folder(&file, is_link, &below, parts);
        }
        if !metadata.is_file() {
            return ControlFlow::Continue(());
        }
        let names = parts.iter().cloned().chain([name.into_owned()]).collect();
        self.push(Ok(Entry::Object(listed_file(&metadata, below, names))))
    }

    fn add_folder(
        &mut self,
        folder: &FilePath,
        is_link: bool,
        path: &Path,
        parts: &mut Vec<String>,
    ) -> ControlFlow<()> {
        let name = path.filename().unwrap_or_default().to_string();
        let resolved = if is_link {
            match std::fs::canonicalize(folder) {
                Ok(resolved) if self.open.iter().any(|open| open.starts_with(&resolved)) => {
                    let reason = "it is a symbolic link to a folder that contains it";
                    return self.skip(folder, reason);
                }
                Ok(resolved) => resolved,
                Err(error) => return self.push(Err(io_error("read", folder, error))),
            }
        } else {
            self.open.last().map_or_else(|| folder.to_path_buf(), |open| open.join(&name))
        };
        self.open.push(resolved);
        parts.push(name);
        let listed = self.list(folder, path, parts);
        parts.pop();
        self.open.pop();
        listed
    }

    fn skip(&mut self, file: &FilePath, reason: impl Into<String>) -> ControlFlow<()> {
        let object = file.display().to_string();
        self.push(Ok(Entry::Skipped(SkippedObject { object, reason: reason.into() })))
    }

    fn push(&mut self, entry: Result<Entry>) -> ControlFlow<()> {
        self.entries.push(entry);
        if self.entries.len() < SENT_ENTRIES {
            return ControlFlow::Continue(());
        }
        self.flush()
    }

    fn flush(&mut self) -> ControlFlow<()> {
        match self.sender.blocking_send(std::mem::take(&mut self.entries)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// Returns whether object_store is still writing a file of this name: `NAME#NUMBER`.
fn is_partly_written(name: &str) -> bool {
    name.split_once('#').is_some_and(|(_, number)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn listed_file(metadata: &Metadata, path: Path, parts: Vec<String>) -> ListedObject {
    // Every supported platform records modification times.
    let written = DateTime::<Utc>::from(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH));
    ListedObject {
        path,
        parts,
        size_bytes: metadata.len(),
        written_ms: written.timestamp_millis(),
        version: format!("{}.{:09}", written.timestamp(), written.timestamp_subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists a folder: the names of its objects, and the last part and reason of each skipped one.
    async fn list_all(folder: &FilePath) -> (Vec<String>, Vec<(String, String)>) {
        let prefix = Path::from_absolute_path(folder).expect("a path");
        let entries: Vec<Entry> =
            list_folder(folder.to_path_buf(), prefix).try_collect().await.expect("list the folder");
        let (mut objects, mut skipped) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry {
                Entry::Object(object) => objects.push(object.parts.join("/")),
                Entry::Skipped(SkippedObject { object, reason }) => {
                    let name = object.rsplit('/').next().unwrap_or_default().to_string();
                    skipped.push((name, reason));
                }
            }
        }
        objects.sort();
        skipped.sort();
        (objects, skipped)
    }

    #[tokio::test]
    async fn a_folder_is_listed_with_the_folders_below_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = std::fs::canonicalize(folder.path()).expect("resolve the folder");
        for name in [
            "a.json",
            "p=0/b~%20.json",
            "_k=v/c.json",
            "_temporary/0/d.json",
            ".e.json",
            "p=0/f.json#1",
        ] {
            let file = root.join(name);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("create folders");
            std::fs::write(file, name).expect("write a file");
        }
        let (objects, skipped) = list_all(&root).await;
        assert_eq!(objects, ["_k=v/c.json", "a.json", "p=0/b~%20.json"]);
        assert!(skipped.is_empty(), "{skipped:?}");
        assert_eq!(list_all(&root.join("missing")).await, (Vec::new(), Vec::new()));
    }

    #[tokio::test]
    async fn a_name_or_link_that_cannot_be_followed_is_skipped() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::symlink;

        let folder = tempfile::tempdir().expect("a folder");
        let root = std::fs::canonicalize(folder.path()).expect("resolve the folder");
        let topic = root.join("topic");
        std::fs::create_dir_all(topic.join("p=0")).expect("create folders");
        std::fs::create_dir(root.join("elsewhere")).expect("create a folder");
        for file in ["topic/p=0/a.json", "elsewhere/b.json"] {
            std::fs::write(root.join(file), "").expect("write a file");
        }
        std::fs::write(topic.join(std::ffi::OsStr::from_bytes(b"c\xff.json")), "")
            .expect("write a file");
        symlink(root.join("elsewhere"), topic.join("p=1")).expect("link a folder");
        symlink(&root, topic.join("p=0/loop")).expect("link a folder");
        symlink(topic.join("self"), topic.join("self")).expect("link a file to itself");
        symlink(root.join("nowhere"), topic.join("broken.json")).expect("link a file");
        let (objects, skipped) = list_all(&topic).await;
        assert_eq!(objects, ["p=0/a.json", "p=1/b.json"]);
        let names: Vec<&str> = skipped.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["broken.json", "c\u{fffd}.json", "loop", "self"]);
        assert_eq!(skipped[1].1, "its name is not UTF-8");
        assert_eq!(skipped[2].1, "it is a symbolic link to a folder that contains it");
    }

    #[test]
    fn a_key_that_is_no_path_is_skipped() {
        let object = |name: &str| {
            let object = aws_sdk_s3::types::Object::builder().key(format!("t/{name}"));
            key(&object.size(3).e_tag("\"x\"").build(), "t/")
        };
        for name in ["p=0//a.json", "./a.json", "p=0/../a.json"] {
            assert!(matches!(object(name), Some(Entry::Skipped(_))), "{name}");
        }
        for name in ["_temporary/a.json", "p=0/.a.json", "p=0/"] {
            assert!(object(name).is_none(), "{name}");
        }
        let Some(Entry::Object(listed)) = object("p=0/a~%20.json") else {
            panic!("an object");
        };
        assert_eq!(listed.path.as_ref(), "t/p=0/a~%20.json");
        assert_eq!((listed.size_bytes, listed.version.as_str()), (3, "\"x\""));
    }
}
