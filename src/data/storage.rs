//! Object stores of lakes and tables: a folder, a bucket on Amazon S3 or on an S3-compatible
//! server.

use std::io::ErrorKind;
use std::path::Path as FilePath;
use std::sync::Arc;

use aws_config::SdkConfig;
use aws_sdk_kinesis::config::{ProvideCredentials, SharedCredentialsProvider};
use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{CredentialProvider, ObjectStore};

use crate::base::config::schema::Config;
use crate::base::error::{Error, ErrorContext, Result, io_error, io_error_kind};

/// A location for objects.
#[derive(Debug, Clone)]
pub struct Lake {
    /// Store of the complete bucket or file system.
    pub store: Arc<dyn ObjectStore>,
    /// Path of this lake in the store.
    pub root: Path,
    /// The same store if it is the local file system.
    pub files: Option<Arc<LocalFileSystem>>,
    /// The same bucket if the lake is on S3, for listings: object_store refuses a whole page if
    /// one key contains `//`.
    pub bucket: Option<Bucket>,
    /// URL or folder as configured, for messages.
    pub url: String,
}

/// A bucket and a client for it.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub client: aws_sdk_s3::Client,
    pub name: String,
}

/// Credentials of the AWS SDK's provider chain (profile, SSO, environment, role) for object_store.
#[derive(Debug)]
struct SdkCredentials(SharedCredentialsProvider);

#[async_trait::async_trait]
impl CredentialProvider for SdkCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let credentials = self.0.provide_credentials().await.map_err(|error| {
            object_store::Error::Unauthenticated { path: "S3".into(), source: Box::new(error) }
        })?;
        Ok(Arc::new(AwsCredential {
            key_id: credentials.access_key_id().to_string(),
            secret_key: credentials.secret_access_key().to_string(),
            token: credentials.session_token().map(String::from),
        }))
    }
}

impl Lake {
    /// Opens `s3://BUCKET[/PREFIX]` or a folder. With `create`, creates the folder if it does not
    /// exist.
    ///
    /// # Errors
    /// The folder does not exist or cannot be created; the S3 URL has no bucket, or a prefix that
    /// no object of the lake can have.
    pub async fn open(config: &Config, url: &str, create: bool) -> Result<Self> {
        if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(Error::usage(format!(
                    "expected s3://BUCKET or s3://BUCKET/PREFIX, got `{url}`"
                ))
                .hint("add the name of the bucket"));
            }
            // Parsed, not converted: a conversion encodes characters such as `~` and `%`.
            let root = Path::parse(prefix.trim_end_matches('/')).map_err(|error| {
                Error::usage(format!("cannot open the lake `{url}`"))
                    .with_source(error)
                    .hint("name a prefix without `//`, `/./` and `/../`")
            })?;
            let shared = s3_config(config).await;
            return Ok(Self {
                store: s3_store(config, &shared, bucket)?,
                root,
                files: None,
                bucket: Some(Bucket {
                    client: crate::clients::aws::s3(&shared),
                    name: bucket.to_string(),
                }),
                url: url.to_string(),
            });
        }
        let folder = FilePath::new(url.strip_prefix("file://").unwrap_or(url));
        if create {
            std::fs::create_dir_all(folder).map_err(|error| io_error("create", folder, error))?;
        }
        if !folder.is_dir() {
            return Err(Error::failed(format!("the lake `{}` does not exist", folder.display())).hint("the sink connector creates it: run `pinpipe local`, `pinpipe provision` and `pinpipe emulate`; or choose a folder or s3:// URL with `--lake`"));
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
            bucket: None,
            url: url.to_string(),
        })
    }

    /// Opens a bucket on Amazon S3, or on the server of `lake.endpoint_url`.
    pub async fn bucket(config: &Config, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
        s3_store(config, &s3_config(config).await, bucket)
    }

    /// Identity of the lake: equal for all spellings of the same location.
    pub fn identity(&self) -> String {
        if self.files.is_some() {
            format!("/{}", self.root)
        } else {
            self.url.trim_end_matches('/').to_string()
        }
    }

    /// What precedes the path of an object in reports: paths in a folder are absolute.
    pub fn path_prefix(&self) -> &'static str {
        if self.files.is_some() { "/" } else { "" }
    }

    /// Returns a path below the root of the lake.
    pub fn path(&self, relative: &str) -> Path {
        relative
            .split('/')
            .filter(|part| !part.is_empty())
            .fold(self.root.clone(), |path, part| path.join(part))
    }
}

/// Loads the configuration of S3 clients. `lake.endpoint_url` takes precedence over
/// AWS_ENDPOINT_URL, which applies to all of AWS.
async fn s3_config(config: &Config) -> SdkConfig {
    let shared = crate::clients::aws::sdk_config(config).await;
    match config.lake.endpoint_url.as_str() {
        "" => shared,
        url => shared.into_builder().endpoint_url(url).build(),
    }
}

/// Opens the object store of a bucket.
///
/// # Errors
/// The configuration is invalid.
fn s3_store(config: &Config, shared: &SdkConfig, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    let mut builder =
        AmazonS3Builder::new().with_bucket_name(bucket).with_region(&config.aws.region);
    if let Some(endpoint) = shared.endpoint_url() {
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(endpoint.starts_with("http://"))
            .with_virtual_hosted_style_request(false);
    }
    if let Some(provider) = shared.credentials_provider() {
        builder = builder.with_credentials(Arc::new(SdkCredentials(provider)));
    }
    Ok(Arc::new(builder.build().context(|| format!("cannot open the bucket `{bucket}`"))?))
}

/// Hint for a bucket that does not exist.
pub const NO_BUCKET: &str = "check the name of the bucket or folder; `pinpipe provision` creates the bucket of the pipeline";
/// Hint for a server that does not answer.
pub const UNREACHABLE: &str =
    "check that the server of `lake.endpoint_url` is reachable, or Amazon S3 if it is not set";

/// Converts a failed call to the object store to an error with a hint.
pub fn failure(action: String, error: object_store::Error) -> Error {
    let response = s3_error_response(&error);
    let hint = match &error {
        _ if response.as_ref().is_some_and(|response| response.starts_with("NoSuchBucket")) => {
            NO_BUCKET
        }
        object_store::Error::NotFound { .. } => NO_BUCKET,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => {
            "check the credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID) and their permission on the bucket"
        }
        // The object store exposes the cause of a failed request only as text.
        object_store::Error::Generic { .. } if format!("{error:?}").contains("Connect") => {
            UNREACHABLE
        }
        _ if io_error_kind(&error) == Some(ErrorKind::PermissionDenied) => {
            "grant yourself permission to read it, then re-run the command"
        }
        _ if io_error_kind(&error) == Some(ErrorKind::StorageFull) => {
            "the disk is full: free some space, then re-run the command"
        }
        _ => "`pinpipe doctor` tests every connection",
    };
    match response {
        Some(response) => Error::failed(action).with_source(response).hint(hint),
        None => Error::failed(action).with_source(error).hint(hint),
    }
}

/// Whether an error is about the object, not about the bucket or the connection: the object is
/// archived, was deleted, or the user lacks permission for it.
pub fn is_of_object(error: &object_store::Error) -> bool {
    let is_of_bucket = || {
        s3_error_response(error).is_some_and(|response| {
            let code = response.split(':').next().unwrap_or_default();
            matches!(code, "NoSuchBucket" | "InvalidAccessKeyId" | "SignatureDoesNotMatch")
        })
    };
    match error {
        object_store::Error::NotFound { .. } | object_store::Error::PermissionDenied { .. } => {
            !is_of_bucket()
        }
        _ => false,
    }
}

/// Extracts `CODE: MESSAGE` from the XML document of an S3 error response.
fn s3_error_response(error: &object_store::Error) -> Option<String> {
    let text = format!("{error:?}");
    let part = |name: &str| {
        text.split_once(&format!("<{name}>"))?
            .1
            .split_once(&format!("</{name}>"))
            .map(|(part, _)| part.to_string())
    };
    Some(format!("{}: {}", part("Code")?, part("Message")?))
}
