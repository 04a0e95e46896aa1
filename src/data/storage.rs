//! Opening a lake: a folder, or a bucket on S3 or a server that speaks S3.

use std::path::Path as FilePath;
use std::sync::Arc;

use aws_sdk_kinesis::config::{ProvideCredentials, SharedCredentialsProvider};
use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{CredentialProvider, ObjectStore};

use crate::base::config::schema::Config;
use crate::base::error::{Error, ErrorContext, Result, io_error};

/// A place for objects.
#[derive(Debug, Clone)]
pub struct Lake {
    /// The whole bucket or file system.
    pub store: Arc<dyn ObjectStore>,
    /// Where in it this lake lies.
    pub root: Path,
    /// The same store, if it is the file system of this machine.
    pub files: Option<Arc<LocalFileSystem>>,
    /// As people know it.
    pub url: String,
}

/// Credentials of the SDK's chain (profile, SSO, environment, role) for object_store.
#[derive(Debug)]
struct SdkCredentials(SharedCredentialsProvider);

#[async_trait::async_trait]
impl CredentialProvider for SdkCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let found = self.0.provide_credentials().await;
        let found = found.map_err(|error| object_store::Error::Unauthenticated {
            path: "S3".into(),
            source: Box::new(error),
        })?;
        Ok(Arc::new(AwsCredential {
            key_id: found.access_key_id().to_string(),
            secret_key: found.secret_access_key().to_string(),
            token: found.session_token().map(String::from),
        }))
    }
}

impl Lake {
    /// Opens `s3://bucket[/prefix]` or a folder. `create`: a folder that is not there is made.
    ///
    /// # Errors
    /// A folder that is not there or cannot be made, an S3 URL without a bucket.
    pub async fn open(config: &Config, url: &str, create: bool) -> Result<Self> {
        if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(Error::usage(format!("`{url}` names no bucket"))
                    .hint("write s3://BUCKET or s3://BUCKET/PREFIX"));
            }
            return Ok(Self {
                store: Self::bucket(config, bucket).await?,
                root: Path::from(prefix),
                files: None,
                url: url.to_string(),
            });
        }
        let folder = FilePath::new(url.strip_prefix("file://").unwrap_or(url));
        if create {
            std::fs::create_dir_all(folder).map_err(|error| io_error("create", folder, error))?;
        }
        if !folder.is_dir() {
            return Err(Error::failed(format!("there is no lake at `{}`", folder.display())).hint("the sink makes it: start `pinpipe local`, then `pinpipe provision` and `pinpipe emulate`; or name a folder or s3:// address with `--lake`"));
        }
        let absolute =
            std::fs::canonicalize(folder).map_err(|error| io_error("open", folder, error))?;
        let root = Path::from_absolute_path(&absolute)
            .context(|| format!("cannot open the lake `{}`", folder.display()))?;
        let files = Arc::new(LocalFileSystem::new());
        Ok(Self {
            store: files.clone(),
            root,
            files: Some(files),
            url: url.to_string(),
        })
    }

    /// A whole bucket on S3, or on the server that `lake.endpoint_url` names.
    pub async fn bucket(config: &Config, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&config.aws.region);
        let shared = crate::clients::aws::sdk_config(config).await;
        // The configuration's, else the one that stands for all of AWS (AWS_ENDPOINT_URL).
        let own = Some(config.lake.endpoint_url.as_str()).filter(|url| !url.is_empty());
        if let Some(endpoint) = own.or(shared.endpoint_url()) {
            builder = builder
                .with_endpoint(endpoint)
                .with_allow_http(endpoint.starts_with("http://"))
                .with_virtual_hosted_style_request(false);
        }
        if let Some(provider) = shared.credentials_provider() {
            builder = builder.with_credentials(Arc::new(SdkCredentials(provider)));
        }
        Ok(Arc::new(builder.build().context(|| {
            format!("cannot open the bucket `{bucket}`")
        })?))
    }

    /// What tells this lake from others, however it was named.
    pub fn identity(&self) -> String {
        if self.files.is_some() {
            format!("/{}", self.root)
        } else {
            self.url.trim_end_matches('/').to_string()
        }
    }

    /// A path below the lake's root.
    pub fn path(&self, relative: &str) -> Path {
        relative
            .split('/')
            .filter(|part| !part.is_empty())
            .fold(self.root.clone(), |path, part| path.join(part))
    }
}

/// What to do where there is no such bucket.
const NO_BUCKET: &str =
    "check the name of the bucket or folder; `pinpipe provision` makes the pipeline's own bucket";

/// A failed call to the object store, with what to check.
pub fn failure(action: String, error: object_store::Error) -> Error {
    let answer = answer_of_s3(&error);
    let hint = match &error {
        _ if answer
            .as_ref()
            .is_some_and(|answer| answer.starts_with("NoSuchBucket")) =>
        {
            NO_BUCKET
        }
        object_store::Error::NotFound { .. } => NO_BUCKET,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => {
            "check the credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID) and their permission on the bucket"
        }
        object_store::Error::Generic { .. } if format!("{error:?}").contains("Connect") => {
            "is the server up and reachable? `lake.endpoint_url` names it; without one Amazon S3 is asked"
        }
        _ if format!("{error:?}").contains("PermissionDenied") => {
            "give yourself permission to read it, then run the same command again"
        }
        _ if format!("{error:?}").contains("StorageFull") => {
            "the disk is full: free some space, then run the same command again"
        }
        _ => "`pinpipe doctor` tests every connection",
    };
    match answer {
        Some(answer) => Error::failed(action).with_source(answer).hint(hint),
        None => Error::failed(action).with_source(error).hint(hint),
    }
}

/// What S3 said, out of the document that it says it in.
fn answer_of_s3(error: &object_store::Error) -> Option<String> {
    let text = format!("{error:?}");
    let part = |name: &str| {
        text.split_once(&format!("<{name}>"))?
            .1
            .split_once(&format!("</{name}>"))
            .map(|(part, _)| part.to_string())
    };
    Some(format!("{}: {}", part("Code")?, part("Message")?))
}
