//! Storage of the state, in a file or an S3 object, and its lock.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;

use crate::base::config::data_dir::DataEntry;
use crate::base::error::{Error, ErrorContext, Result, io_error};
use crate::base::fs::{FileLock, load_json, save_json};
use crate::clients::aws::call::{CallContext, code};
use crate::provision::state::document::StateDocument;

/// Location of the state.
#[derive(Debug, Clone)]
pub enum StateBackend {
    File(PathBuf),
    Object { client: Client, bucket: String, key: String },
}

/// The lock of the state, held by a command that may change the state. Dropping it releases the
/// lock on a file; [`release`](Self::release) releases the lock on an object.
#[derive(Debug)]
pub enum Lock {
    File(#[expect(dead_code, reason = "the open file holds the lock")] FileLock),
    Object { client: Client, bucket: String, key: String },
}

/// Returns the path of the state in a data folder.
pub fn file_path(data_dir: &Path) -> PathBuf {
    DataEntry::Aws.path(data_dir).join("state.json")
}

impl fmt::Display for StateBackend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "the state `{}`", path.display()),
            Self::Object { bucket, key, .. } => {
                write!(formatter, "the state `s3://{bucket}/{key}`")
            }
        }
    }
}

impl StateBackend {
    /// Returns the object `s3://BUCKET/KEY`.
    ///
    /// # Errors
    /// The URL has no bucket or no key.
    pub fn object(client: Client, url: &str) -> Result<Self> {
        let rest = url.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
        match rest.filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty()) {
            Some((bucket, key)) => {
                Ok(Self::Object { client, bucket: bucket.into(), key: key.into() })
            }
            None => Err(Error::usage(format!(
                "`provision.state`: expected s3://BUCKET/KEY, got `{url}`"
            ))),
        }
    }

    pub async fn read(&self) -> Result<Option<StateDocument>> {
        match self {
            Self::File(path) => load_json(path),
            Self::Object { client, bucket, key } => {
                let found = client.get_object().bucket(bucket).key(key).send().await;
                let object = match found {
                    Ok(object) => object,
                    Err(error) if code(&error) == "NoSuchKey" => return Ok(None),
                    Err(error) if code(&error) == "NoSuchBucket" => {
                        return Err(no_bucket(bucket));
                    }
                    Err(error) => {
                        return Err(error.call_context("s3:GetObject", &self.to_string()));
                    }
                };
                let text = object
                    .body
                    .collect()
                    .await
                    .context(|| format!("cannot read {self}"))?
                    .into_bytes();
                serde_json::from_slice(&text).map(Some).map_err(|error| {
                    Error::failed(format!("{self} is damaged"))
                        .with_source(error)
                        .hint("restore an earlier version of the object")
                })
            }
        }
    }

    pub async fn write(&self, document: &StateDocument) -> Result<()> {
        match self {
            Self::File(path) => save_json(path, document),
            Self::Object { client, bucket, key } => {
                let text = serde_json::to_vec_pretty(document)
                    .context(|| format!("cannot write {self}"))?;
                let put = client
                    .put_object()
                    .bucket(bucket)
                    .key(key)
                    .content_type("application/json")
                    .body(ByteStream::from(text));
                put.send().await.map(|_| ()).call_context("s3:PutObject", &self.to_string())
            }
        }
    }

    pub async fn remove(&self) -> Result<()> {
        match self {
            Self::File(path) => match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(io_error("delete", path, error))
                }
                _ => Ok(()),
            },
            Self::Object { client, bucket, key } => {
                let removed = client.delete_object().bucket(bucket).key(key).send().await;
                removed.map(|_| ()).call_context("s3:DeleteObject", &self.to_string())
            }
        }
    }

    /// Locks the state.
    ///
    /// # Errors
    /// Another process holds the lock.
    pub async fn lock(&self) -> Result<Lock> {
        match self {
            Self::File(path) => {
                let folder = path.parent().unwrap_or(Path::new("."));
                std::fs::create_dir_all(folder)
                    .map_err(|error| io_error("create", folder, error))?;
                let lock = FileLock::try_lock(&path.with_extension("lock"))?;
                lock.map(Lock::File).ok_or_else(|| {
                    Error::failed(format!("another pinpipe process is using {self}"))
                        .hint("wait until the process exits, or stop it with Ctrl-C")
                })
            }
            Self::Object { client, bucket, key } => {
                let key = format!("{key}.lock");
                let since = chrono::Utc::now().format("%Y-%m-%d %H:%M:%S UTC");
                let own = format!(
                    "process {} since {since}, {}",
                    std::process::id(),
                    uuid::Uuid::new_v4().simple()
                );
                let put = client
                    .put_object()
                    .bucket(bucket)
                    .key(&key)
                    .if_none_match("*")
                    .body(ByteStream::from(own.clone().into_bytes()));
                match put.send().await {
                    Ok(_) => {
                        Ok(Lock::Object { client: client.clone(), bucket: bucket.clone(), key })
                    }
                    Err(error)
                        if matches!(
                            code(&error),
                            "PreconditionFailed" | "ConditionalRequestConflict"
                        ) =>
                    {
                        let holder = self.lock_holder(&key).await;
                        if holder.contains(&own) {
                            // An earlier attempt created the lock, but its response was lost.
                            return Ok(Lock::Object {
                                client: client.clone(),
                                bucket: bucket.clone(),
                                key,
                            });
                        }
                        Err(Error::failed(format!("another pinpipe process is using {self}{holder}"))
                            .hint(format!("wait until the process exits; if it was killed, delete the lock with `aws s3 rm s3://{bucket}/{key}`")))
                    }
                    Err(error) if code(&error) == "NoSuchBucket" => Err(no_bucket(bucket)),
                    Err(error) => {
                        Err(error.call_context("s3:PutObject", &format!("s3://{bucket}/{key}")))
                    }
                }
            }
        }
    }

    /// Returns the text of a lock in parentheses; empty if it cannot be read.
    async fn lock_holder(&self, lock_key: &str) -> String {
        let Self::Object { client, bucket, .. } = self else {
            return String::new();
        };
        let Ok(object) = client.get_object().bucket(bucket).key(lock_key).send().await else {
            return String::new();
        };
        let text = object.body.collect().await.map(|bytes| bytes.into_bytes());
        text.map(|text| format!(" ({})", String::from_utf8_lossy(&text))).unwrap_or_default()
    }
}

fn no_bucket(bucket: &str) -> Error {
    Error::failed(format!("cannot open the state: bucket `{bucket}` does not exist"))
        .hint("create the bucket with `aws s3 mb` and enable versioning; pinpipe does not create the bucket of its state")
}

impl Lock {
    /// Releases the lock.
    pub async fn release(self) {
        if let Self::Object { client, bucket, key } = self
            && let Err(error) = client.delete_object().bucket(&bucket).key(&key).send().await
        {
            tracing::warn!(
                "cannot delete the lock s3://{bucket}/{key}: {}",
                crate::clients::aws::call::describe(&error)
            );
        }
    }
}
