//! The connector's zip in the bucket: uploaded once, in parts, and compared by checksum.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};

use crate::base::checksum::{md5, sha256};
use crate::base::config::schema::Config;
use crate::base::error::{Error, Result, io_error};
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::names::BucketUse;
use crate::provision::aws::object_keys::PLUGIN_FOLDER;
use crate::provision::aws::outputs;
use crate::provision::resource::{Action, Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::PLUGIN_OBJECT;
/// Size of a part. S3 requires at least 5 MiB for every part but the last.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Metadata key of the file's SHA-256. S3's own checksum of a multipart upload is not that of the
/// file: it is a checksum of the checksums of the parts.
const CHECKSUM: &str = "sha256";
/// Metadata key of the file's MD5, for comparison with the MD5 that MSK Connect reports for its
/// copy.
pub const MD5: &str = "md5";
/// Timeout of the request that checks the URL of the zip.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);
/// Metadata key of the file or URL that the object was uploaded from.
const SOURCE: &str = "source";

pub struct PluginObject {
    pub account: Rc<Account>,
}

/// Returns the object's key in the bucket: the file name below `PLUGIN_FOLDER`. `None` if
/// `connector.plugin` has no file name.
pub fn key(config: &Config) -> Option<String> {
    let source = config.connector.plugin.split(['?', '#']).next().unwrap_or_default();
    let file = source.rsplit('/').next().filter(|file| !file.is_empty())?;
    Some(format!("{PLUGIN_FOLDER}/{file}"))
}

impl PluginObject {
    fn source(&self) -> &str {
        &self.account.config.connector.plugin
    }

    fn is_url(&self) -> bool {
        self.source().starts_with("https://") || self.source().starts_with("http://")
    }

    fn object_key(&self) -> String {
        key(&self.account.config).unwrap_or_default()
    }

    fn bucket(&self) -> String {
        BucketUse::Lake.name(&self.account.config)
    }

    fn display_name(&self) -> String {
        format!("`{}`", self.name())
    }

    async fn find(&self, bucket: &str, key: &str) -> Result<Option<HeadObjectOutput>> {
        match self.account.s3.head_object().bucket(bucket).key(key).send().await {
            Ok(head) => Ok(Some(head)),
            Err(error)
                if error
                    .raw_response()
                    .is_some_and(|response| response.status().as_u16() == 404) =>
            {
                Ok(None)
            }
            Err(error) => {
                Err(error.call_context("s3:GetObject", &format!("`s3://{bucket}/{key}`")))
            }
        }
    }

    /// Returns bucket and key of the object of an earlier configuration; `None` if it does not
    /// exist.
    async fn previous_object(&self) -> Result<Option<(String, String)>> {
        for name in
            self.account.names(KEY, &self.name()).await.iter().filter(|name| **name != self.name())
        {
            if let Some((bucket, key)) =
                name.strip_prefix("s3://").and_then(|location| location.split_once('/'))
            {
                match self.find(bucket, key).await {
                    Ok(Some(_)) => return Ok(Some((bucket.into(), key.into()))),
                    Ok(None) => {}
                    // The name of a previous bucket may belong to another AWS account by now. An
                    // object in a bucket of pinpipe is deleted with that bucket.
                    Err(error) if bucket != self.bucket() => {
                        tracing::warn!(%error, "skipping the previous object of the zip")
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(None)
    }

    /// Sets the MD5 of the desired content, which the plugin is compared with: the plugin keeps
    /// its copy, even if the object changes. An empty text means that the content is unknown, but
    /// differs from the previous content.
    fn observe_md5(&self, observed: &mut ObservedOutputs, md5: &str) {
        observed.found(self.name()).set(&outputs::PLUGIN_OBJECT_MD5, md5);
    }

    /// Checks that a server responds at the URL, without downloading the zip. Not every server
    /// supports HEAD: only a failed connection and the statuses 404 and 410 are errors.
    async fn check_url(&self) -> Result<()> {
        let response =
            reqwest::Client::new().head(self.source()).timeout(CHECK_TIMEOUT).send().await;
        match response.and_then(reqwest::Response::error_for_status) {
            Err(error)
                if error.status().is_none_or(|status| matches!(status.as_u16(), 404 | 410)) =>
            {
                Err(self.download_error(error))
            }
            _ => Ok(()),
        }
    }

    fn download_error(&self, error: reqwest::Error) -> Error {
        Error::failed(format!("cannot download `{}`", self.source()))
            .with_source(error.without_url())
            .hint("check the URL, or download the zip and set `connector.plugin` to the file")
    }

    /// Returns the zip, read from its file or downloaded.
    async fn content(&self) -> Result<Vec<u8>> {
        let content = if self.is_url() {
            self.account.progress.say(format!("downloading {}", self.source()));
            let response =
                reqwest::get(self.source()).await.and_then(reqwest::Response::error_for_status);
            let response = response.map_err(|error| self.download_error(error))?;
            response.bytes().await.map_err(|error| self.download_error(error))?.to_vec()
        } else {
            let path = PathBuf::from(self.source());
            std::fs::read(&path)
                .map_err(|error| io_error("read the connector's zip", &path, error))?
        };
        // Every zip starts with this signature; an HTML error page does not.
        if content.starts_with(b"PK") {
            return Ok(content);
        }
        Err(Error::failed(format!("`{}` is not a zip", self.source()))
            .hint("set `connector.plugin` to the zip of Confluent's S3 sink: a path or URL"))
    }

    /// Aborts the unfinished uploads of a killed run, because AWS charges for their parts.
    async fn abort_uploads(&self, bucket: &str, key: &str) -> Result<()> {
        let request = self.account.s3.list_multipart_uploads().bucket(bucket).prefix(key);
        let listing = request
            .send()
            .await
            .call_context("s3:ListBucketMultipartUploads", &self.display_name())?;
        for upload in listing.uploads() {
            let request = self.account.s3.abort_multipart_upload().bucket(bucket).key(key);
            let response = request.set_upload_id(upload.upload_id().map(String::from)).send().await;
            match response {
                Err(error) if code(&error) != "NoSuchUpload" => {
                    return Err(error.call_context("s3:AbortMultipartUpload", &self.display_name()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[async_trait(?Send)]
impl Resource for PluginObject {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "plugin-object"
    }

    fn name(&self) -> String {
        format!("s3://{}/{}", self.bucket(), self.object_key())
    }

    fn depends_on(&self) -> Vec<String> {
        vec![BucketUse::Lake.key().into()]
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        if let Some((bucket, key)) = self.previous_object().await? {
            return Ok(Observation::renamed(&format!("s3://{bucket}/{key}"), false));
        }
        let Some(head) = self.find(&self.bucket(), &self.object_key()).await? else {
            // The plugin may still exist. Without an entry in the state, nothing is recorded: the
            // object was never created.
            if !self.is_url()
                && self.account.state.entry(KEY).await.is_some()
                && let Ok(content) = self.content().await
            {
                self.observe_md5(observed, &md5(&content));
            }
            return Ok(Observation::missing());
        };
        let metadata = |name: &str| {
            head.metadata().and_then(|metadata| metadata.get(name)).cloned().unwrap_or_default()
        };
        let mut differences = Vec::new();
        if self.is_url() {
            // The zip is not downloaded just for the comparison, because it is large.
            let (source, stored_md5) = (metadata(SOURCE), metadata(MD5));
            if source == self.source() {
                if !stored_md5.is_empty() {
                    self.observe_md5(observed, &stored_md5);
                }
            } else {
                differences.push("the object was uploaded from another URL".to_string());
                // pinpipe sets the metadata on every upload. Without it, pinpipe did not upload the
                // object, and the MD5 in the state remains valid.
                if !source.is_empty() {
                    self.observe_md5(observed, "");
                }
            }
        } else {
            match self.content().await {
                Ok(content) => {
                    if metadata(CHECKSUM) != sha256(&content) {
                        differences.push(format!("the object differs from `{}`", self.source()));
                    }
                    self.observe_md5(observed, &md5(&content));
                }
                // Not an error here: `status` and `destroy` work without the file, and `check`
                // reports the cause.
                Err(_) => differences.push(format!("cannot read `{}`", self.source())),
            }
        }
        if metadata(CHECKSUM).is_empty() || self.is_url() && metadata(MD5).is_empty() {
            differences.push("the object has no checksum from pinpipe".into());
        }
        Ok(Observation::compared(
            differences,
            format!("{} bytes", head.content_length().unwrap_or(0)),
        ))
    }

    /// Checks that the zip can be read. For a URL, checks only that the server responds, because
    /// the zip is large.
    async fn check(&self, action: Action) -> Result<()> {
        if action == Action::Delete {
            return Ok(());
        }
        if self.is_url() { self.check_url().await } else { self.content().await.map(|_| ()) }
    }

    async fn create(&self) -> Result<()> {
        let content = self.content().await?;
        let (s3, bucket, key) = (&self.account.s3, self.bucket(), self.object_key());
        self.abort_uploads(&bucket, &key).await?;
        let request =
            s3.create_multipart_upload().bucket(&bucket).key(&key).content_type("application/zip");
        let request = request
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .metadata(CHECKSUM, sha256(&content));
        let request = request.metadata(MD5, md5(&content)).metadata(SOURCE, self.source());
        let upload = request.send().await.call_context("s3:PutObject", &self.display_name())?;
        let upload_id = upload.upload_id().unwrap_or_default();
        let mut parts = Vec::new();
        for (number, part) in (1..).zip(content.chunks(PART_BYTES)) {
            self.account.progress.say(format!(
                "uploading {} of {} bytes",
                (number as usize - 1) * PART_BYTES,
                content.len()
            ));
            let request =
                s3.upload_part().bucket(&bucket).key(&key).upload_id(upload_id).part_number(number);
            let request = request
                .checksum_algorithm(ChecksumAlgorithm::Sha256)
                .body(ByteStream::from(part.to_vec()));
            let uploaded =
                request.send().await.call_context("s3:PutObject", &self.display_name())?;
            let completed = CompletedPart::builder()
                .part_number(number)
                .set_e_tag(uploaded.e_tag)
                .set_checksum_sha256(uploaded.checksum_sha256);
            parts.push(completed.build());
            if self.account.stop.is_cancelled() {
                return Err(self.account.interrupted("the connector's zip is partially uploaded"));
            }
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let response = s3
            .complete_multipart_upload()
            .bucket(&bucket)
            .key(&key)
            .upload_id(upload_id)
            .multipart_upload(parts)
            .send()
            .await;
        match response {
            // An earlier attempt whose response was lost has completed the upload.
            Err(error) if code(&error) == "NoSuchUpload" => {}
            response => {
                response.call_context("s3:PutObject", &self.display_name())?;
            }
        }
        // An upload may have been created twice, if the first response was lost.
        self.abort_uploads(&bucket, &key).await
    }

    async fn update(&self) -> Result<()> {
        self.create().await
    }

    async fn delete(&self) -> Result<bool> {
        let (bucket, key) =
            self.previous_object().await?.unwrap_or_else(|| (self.bucket(), self.object_key()));
        let response = self.account.s3.delete_object().bucket(&bucket).key(&key).send().await;
        match response {
            Err(error) if code(&error) == "NoSuchBucket" => return Ok(false),
            response => response.call_context("s3:DeleteObject", &self.display_name())?,
        };
        match self.abort_uploads(&bucket, &key).await {
            Err(error) if !error.has_service_code(&["NoSuchBucket"]) => Err(error),
            _ => Ok(true),
        }
    }
}
