//! The connector's zip in the bucket: uploaded once, in parts, compared by its checksum.

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
use crate::clients::aws::call::{Call, code, failed};
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::names::BucketUse;
use crate::provision::aws::object_keys::PLUGIN_FOLDER;
use crate::provision::resource::{Action, Observation, Resource};

const KEY: &str = keys::PLUGIN_OBJECT;
/// Size of a part; S3 takes none below 5 MiB but the last.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Where the checksum of the whole file is kept: S3's own is one of the parts' checksums.
const CHECKSUM: &str = "sha256";
/// Where the checksum is kept that MSK Connect tells of what it copied; in the state too.
pub const MD5: &str = "md5";
/// How long a server may take to say whether it has the zip.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where the object came from.
const SOURCE: &str = "source";

pub struct PluginObject {
    pub account: Rc<Account>,
}

/// The object's key in the bucket: the file's name in a folder of its own.
pub fn key(config: &Config) -> Option<String> {
    let source = config
        .connector
        .plugin
        .split(['?', '#'])
        .next()
        .unwrap_or_default();
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
        match self
            .account
            .s3
            .head_object()
            .bucket(bucket)
            .key(key)
            .send()
            .await
        {
            Ok(head) => Ok(Some(head)),
            Err(error)
                if error
                    .raw_response()
                    .is_some_and(|response| response.status().as_u16() == 404) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed(
                Call("s3:GetObject", &format!("`s3://{bucket}/{key}`")),
                &error,
            )),
        }
    }

    /// Bucket and key of the object that an earlier configuration asked for, while it is there.
    async fn former(&self) -> Result<Option<(String, String)>> {
        for name in self
            .account
            .names(KEY, &self.name())
            .await
            .iter()
            .filter(|name| **name != self.name())
        {
            if let Some((bucket, key)) = name
                .strip_prefix("s3://")
                .and_then(|place| place.split_once('/'))
            {
                match self.find(bucket, key).await {
                    Ok(Some(_)) => return Ok(Some((bucket.into(), key.into()))),
                    Ok(None) => {}
                    // A former bucket's name may be somebody else's by now; what is in one of ours goes with that.
                    Err(error) if bucket != self.bucket() => {
                        tracing::warn!(%error, "a former object of the zip is not looked for")
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(None)
    }

    /// Notes the MD5 of the content that is wanted, for the plugin to be compared with: it keeps
    /// what it copied, whatever becomes of the object. Empty: not known, but not that of before.
    async fn note_md5(&self, md5: &str) -> Result<()> {
        self.account
            .state
            .record_outputs(KEY, &self.name(), &[(MD5, md5)])
            .await
    }

    /// Whether something answers at the address, without downloading it. Not every server
    /// takes such a question: only that nobody answers or that there is nothing counts.
    async fn ask(&self) -> Result<()> {
        let answer = reqwest::Client::new()
            .head(self.source())
            .timeout(PATIENCE)
            .send()
            .await;
        match answer.and_then(reqwest::Response::error_for_status) {
            Err(error)
                if error
                    .status()
                    .is_none_or(|status| matches!(status.as_u16(), 404 | 410)) =>
            {
                Err(self.unreachable(error))
            }
            _ => Ok(()),
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> Error {
        Error::failed(format!("cannot download `{}`", self.source()))
            .with_source(error.without_url())
            .hint("check the address, or download the zip yourself and name the file in `connector.plugin`")
    }

    /// The zip: read from its file, or downloaded.
    async fn content(&self) -> Result<Vec<u8>> {
        let content = if self.is_url() {
            self.account
                .progress
                .say(format!("downloading {}", self.source()));
            let response = reqwest::get(self.source())
                .await
                .and_then(reqwest::Response::error_for_status);
            let response = response.map_err(|error| self.unreachable(error))?;
            response
                .bytes()
                .await
                .map_err(|error| self.unreachable(error))?
                .to_vec()
        } else {
            let path = PathBuf::from(self.source());
            std::fs::read(&path)
                .map_err(|error| io_error("read the connector's zip", &path, error))?
        };
        // The mark of every zip: a page that says "not found" has none.
        if content.starts_with(b"PK") {
            return Ok(content);
        }
        Err(
            Error::failed(format!("`{}` is not a zip", self.source())).hint(
                "`connector.plugin` names the zip of Confluent's S3 sink, as a file or an address",
            ),
        )
    }

    /// Uploads begun by a run that was killed: they are paid for until they are given up.
    async fn abort_begun(&self, bucket: &str, key: &str) -> Result<()> {
        let request = self
            .account
            .s3
            .list_multipart_uploads()
            .bucket(bucket)
            .prefix(key);
        let found = request.send().await.map_err(|error| {
            failed(
                Call("s3:ListBucketMultipartUploads", &self.display_name()),
                &error,
            )
        })?;
        for upload in found.uploads() {
            let request = self
                .account
                .s3
                .abort_multipart_upload()
                .bucket(bucket)
                .key(key);
            let aborted = request
                .set_upload_id(upload.upload_id().map(String::from))
                .send()
                .await;
            match aborted {
                Err(error) if code(&error) != "NoSuchUpload" => {
                    return Err(failed(
                        Call("s3:AbortMultipartUpload", &self.display_name()),
                        &error,
                    ));
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

    async fn read(&self) -> Result<Observation> {
        if let Some((bucket, key)) = self.former().await? {
            return Ok(Observation::renamed(&format!("s3://{bucket}/{key}"), false));
        }
        let Some(head) = self.find(&self.bucket(), &self.object_key()).await? else {
            // The plugin may still be there. What was never made is not noted as if it were.
            if !self.is_url()
                && self.account.state.entry(KEY).await.is_some()
                && let Ok(content) = self.content().await
            {
                self.note_md5(&md5(&content)).await?;
            }
            return Ok(Observation::missing());
        };
        let kept = |name: &str| {
            head.metadata()
                .and_then(|metadata| metadata.get(name))
                .cloned()
                .unwrap_or_default()
        };
        let mut differences = Vec::new();
        if self.is_url() {
            // What an address names is not downloaded only to look at it.
            let (source, known) = (kept(SOURCE), kept(MD5));
            if source == self.source() {
                if !known.is_empty() {
                    self.note_md5(&known).await?;
                }
            } else {
                differences.push("it came from another address".to_string());
                // Of an object of somebody else's nothing follows: what was noted of ours still holds.
                if !source.is_empty() {
                    self.note_md5("").await?;
                }
            }
        } else {
            match self.content().await {
                Ok(content) => {
                    if kept(CHECKSUM) != sha256(&content) {
                        differences.push(format!("`{}` has another content", self.source()));
                    }
                    self.note_md5(&md5(&content)).await?;
                }
                // What only looks, or removes it, can do without: `check` says why.
                Err(_) => differences.push(format!("`{}` cannot be read", self.source())),
            }
        }
        if kept(CHECKSUM).is_empty() || self.is_url() && kept(MD5).is_empty() {
            differences.push("it has no checksum of ours".into());
        }
        Ok(Observation::from_drift(
            differences,
            format!("{} bytes", head.content_length().unwrap_or(0)),
        ))
    }

    /// Whether the zip is there. Of an address only whether it answers: what it names is large.
    async fn check(&self, action: Action) -> Result<()> {
        if action == Action::Delete {
            return Ok(());
        }
        if self.is_url() {
            self.ask().await
        } else {
            self.content().await.map(|_| ())
        }
    }

    async fn create(&self) -> Result<()> {
        let content = self.content().await?;
        let (s3, bucket, key) = (&self.account.s3, self.bucket(), self.object_key());
        self.abort_begun(&bucket, &key).await?;
        let begun = s3
            .create_multipart_upload()
            .bucket(&bucket)
            .key(&key)
            .content_type("application/zip");
        let begun = begun
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .metadata(CHECKSUM, sha256(&content));
        let begun = begun
            .metadata(MD5, md5(&content))
            .metadata(SOURCE, self.source());
        let begun = begun
            .send()
            .await
            .map_err(|error| failed(Call("s3:PutObject", &self.display_name()), &error))?;
        let upload = begun.upload_id().unwrap_or_default();
        let mut parts = Vec::new();
        for (number, part) in (1..).zip(content.chunks(PART_BYTES)) {
            self.account.progress.say(format!(
                "uploading {} of {} bytes",
                (number as usize - 1) * PART_BYTES,
                content.len()
            ));
            let request = s3
                .upload_part()
                .bucket(&bucket)
                .key(&key)
                .upload_id(upload)
                .part_number(number);
            let request = request
                .checksum_algorithm(ChecksumAlgorithm::Sha256)
                .body(ByteStream::from(part.to_vec()));
            let done = request
                .send()
                .await
                .map_err(|error| failed(Call("s3:PutObject", &self.display_name()), &error))?;
            let done = CompletedPart::builder()
                .part_number(number)
                .set_e_tag(done.e_tag)
                .set_checksum_sha256(done.checksum_sha256);
            parts.push(done.build());
            if self.account.stop.is_cancelled() {
                return Err(self.account.stopped("the connector's zip is half uploaded"));
            }
        }
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let done = s3
            .complete_multipart_upload()
            .bucket(&bucket)
            .key(&key)
            .upload_id(upload)
            .multipart_upload(parts)
            .send()
            .await;
        match done {
            // Completed by an attempt whose answer got lost: the reading that follows sees it.
            Err(error) if code(&error) == "NoSuchUpload" => {}
            done => {
                done.map_err(|error| failed(Call("s3:PutObject", &self.display_name()), &error))?;
            }
        }
        // An upload that was begun twice, since the first answer got lost.
        self.abort_begun(&bucket, &key).await
    }

    async fn update(&self) -> Result<()> {
        self.create().await
    }

    async fn delete(&self) -> Result<bool> {
        let (bucket, key) = self
            .former()
            .await?
            .unwrap_or_else(|| (self.bucket(), self.object_key()));
        let removed = self
            .account
            .s3
            .delete_object()
            .bucket(&bucket)
            .key(&key)
            .send()
            .await;
        match removed {
            Err(error) if code(&error) == "NoSuchBucket" => return Ok(false),
            removed => removed
                .map_err(|error| failed(Call("s3:DeleteObject", &self.display_name()), &error))?,
        };
        match self.abort_begun(&bucket, &key).await {
            Err(error) if !error.to_string().contains("NoSuchBucket") => Err(error),
            _ => Ok(true),
        }
    }
}
