//! S3 buckets: the lake and Airflow's bucket.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration, Delete,
    ObjectIdentifier, PublicAccessBlockConfiguration, ServerSideEncryption,
    ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule,
    Tag, Tagging, VersioningConfiguration,
};
use futures::{StreamExt, stream};

use crate::base::error::{Error, ErrorContext, Result};
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::context::Account;
use crate::provision::aws::names::BucketUse;
use crate::provision::aws::object_keys::{REQUIREMENTS, is_zip};
use crate::provision::aws::outputs::is_airflow_known;
use crate::provision::resource::{Difference, Observation, Resource};
use crate::provision::state::document::Phase;
use crate::provision::state::output::{ObservedOutputs, Output};

/// Maximum number of concurrent requests for the tags of buckets.
const MAX_TAG_REQUESTS: usize = 8;

pub struct Bucket {
    pub purpose: BucketUse,
    pub account: Rc<Account>,
}

/// A repair of one difference between the bucket and its configuration, by one API call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Repair {
    Tags(Difference),
    PublicAccessBlock,
    Encryption,
    Versioning,
}

impl Repair {
    fn difference(&self) -> Difference {
        match self {
            Self::Tags(difference) => difference.clone(),
            Self::PublicAccessBlock => "public access is not blocked".into(),
            Self::Encryption => "the bucket is not encrypted".into(),
            Self::Versioning => "versioning is disabled, but Airflow requires it".into(),
        }
    }
}

impl Bucket {
    fn display_name(&self) -> String {
        format!("bucket `{}`", self.name())
    }

    /// Name of the managed bucket of an earlier configuration; `None` if it does not exist.
    async fn previous_name(&self) -> Result<Option<String>> {
        let key = self.purpose.key();
        if self.account.is_unrecorded(key).await {
            // The configured name is checked first, because that takes one call. The search by tag
            // takes one call per bucket.
            let exists = self.exists(&self.name()).await.unwrap_or(true);
            return if exists { Ok(None) } else { self.find_by_tag().await };
        }
        for name in self
            .account
            .names(key, &self.name())
            .await
            .into_iter()
            .filter(|name| *name != self.name())
        {
            let exists = match self.exists(&name).await {
                // The bucket was deleted, and the name now belongs to another AWS account.
                Err(_) if self.bucket_names().await.is_ok_and(|names| !names.contains(&name)) => {
                    false
                }
                result => result?,
            };
            if exists && self.is_managed(&name, &self.tags(&name).await?).await {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Finds the bucket with the tags of this resource under any name.
    async fn find_by_tag(&self) -> Result<Option<String>> {
        let names = match self.bucket_names().await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "cannot list the buckets to find one that the state does not contain"
                );
                return Ok(None);
            }
        };
        let if_tagged = |name: String| async move {
            // A bucket whose tags cannot be read is not managed by pinpipe.
            let tags = self.tags(&name).await.unwrap_or_default();
            let pairs = tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            self.account.is_tagged_as(self.purpose.key(), pairs).then_some(name)
        };
        let tagged: Vec<Option<String>> =
            stream::iter(names).map(if_tagged).buffered(MAX_TAG_REQUESTS).collect().await;
        Ok(tagged.into_iter().flatten().next())
    }

    /// Names of the account's buckets in the configured region.
    async fn bucket_names(&self) -> Result<Vec<String>> {
        let request = self
            .account
            .s3
            .list_buckets()
            .bucket_region(&self.account.config.aws.region)
            .max_buckets(1000);
        let response: Result<Vec<_>, _> = request.into_paginator().send().collect().await;
        let pages = response.call_context("s3:ListAllMyBuckets", "the account")?;
        Ok(pages
            .iter()
            .flat_map(|page| page.buckets())
            .filter_map(|bucket| bucket.name.clone())
            .collect())
    }

    /// Whether the bucket exists in this account and region.
    ///
    /// # Errors
    /// The bucket belongs to another account or region; access is denied.
    async fn exists(&self, name: &str) -> Result<bool> {
        match self.account.s3.head_bucket().bucket(name).send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.raw_response().map(|response| response.status().as_u16()) {
                Some(404) => Ok(false),
                Some(301 | 403) => Err(Error::failed(format!(
                    "bucket `{name}` belongs to another AWS account or region, or access is \
                     denied"
                ))
                .with_source(crate::clients::aws::call::describe(&error))
                .hint(
                    "bucket names are globally unique: choose another `id`, or allow \
                     `s3:ListBucket` on the bucket",
                )),
                _ => Err(error.call_context("s3:ListBucket", &format!("bucket `{name}`"))),
            },
        }
    }

    async fn tags(&self, name: &str) -> Result<Vec<(String, String)>> {
        match self.account.s3.get_bucket_tagging().bucket(name).send().await {
            Ok(response) => Ok(response
                .tag_set()
                .iter()
                .map(|tag| (tag.key().to_string(), tag.value().to_string()))
                .collect()),
            Err(error) if matches!(code(&error), "NoSuchTagSet" | "NoSuchBucket") => Ok(Vec::new()),
            Err(error) => {
                Err(error.call_context("s3:GetBucketTagging", &format!("bucket `{name}`")))
            }
        }
    }

    /// Output that is set before `CreateBucket` is called, because a new bucket has no tags yet.
    fn created_here(&self) -> Output {
        Output::new(self.purpose.key(), "made")
    }

    /// Whether pinpipe manages the bucket. `CreateBucket` sets no tags, so a bucket without tags is
    /// managed too if the state shows that pinpipe is creating it.
    async fn is_managed(&self, name: &str, tags: &[(String, String)]) -> bool {
        let is_being_created =
            self.account.state.entry(self.purpose.key()).await.is_some_and(|entry| {
                entry.phase != Phase::Ready
                    && entry.name == name
                    && entry.values.contains_key("made")
            });
        is_being_created
            || self
                .account
                .is_managed(tags.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }

    async fn repairs(&self, tags: &[(String, String)]) -> Result<Vec<Repair>> {
        let (s3, name) = (&self.account.s3, self.name());
        let pairs = tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let mut repairs: Vec<Repair> = self
            .account
            .tag_differences(self.purpose.key(), pairs)
            .into_iter()
            .map(Repair::Tags)
            .collect();
        let block = match s3.get_public_access_block().bucket(&name).send().await {
            Ok(response) => response.public_access_block_configuration().cloned(),
            Err(error) if code(&error) == "NoSuchPublicAccessBlockConfiguration" => None,
            Err(error) => {
                return Err(
                    error.call_context("s3:GetBucketPublicAccessBlock", &self.display_name())
                );
            }
        };
        if block != Some(all_public_access_blocked()) {
            repairs.push(Repair::PublicAccessBlock);
        }
        let encryption = match s3.get_bucket_encryption().bucket(&name).send().await {
            Ok(response) => response
                .server_side_encryption_configuration()
                .map(|configuration| !configuration.rules().is_empty()),
            Err(error) if code(&error) == "ServerSideEncryptionConfigurationNotFoundError" => None,
            Err(error) => {
                return Err(
                    error.call_context("s3:GetEncryptionConfiguration", &self.display_name())
                );
            }
        };
        if encryption != Some(true) {
            repairs.push(Repair::Encryption);
        }
        if self.purpose == BucketUse::Airflow {
            let response = s3.get_bucket_versioning().bucket(&name).send().await;
            let versioning =
                response.call_context("s3:GetBucketVersioning", &self.display_name())?;
            if versioning.status() != Some(&BucketVersioningStatus::Enabled) {
                repairs.push(Repair::Versioning);
            }
        }
        Ok(repairs)
    }

    async fn apply(&self, repair: &Repair) -> Result<()> {
        let (s3, name) = (&self.account.s3, self.name());
        match repair {
            Repair::Tags(_) => {
                // `PutBucketTagging` replaces all tags, so tags that pinpipe does not manage are
                // sent again.
                let mut all: std::collections::BTreeMap<String, String> =
                    self.tags(&name).await?.into_iter().collect();
                all.extend(self.account.tags(self.purpose.key()));
                let tags = all.into_iter().map(|(key, value)| {
                    Tag::builder().key(key).value(value).build().context(|| "cannot build a tag")
                });
                let tagging = Tagging::builder()
                    .set_tag_set(Some(tags.collect::<Result<_>>()?))
                    .build()
                    .context(|| "cannot build the tags")?;
                let response = s3.put_bucket_tagging().bucket(name).tagging(tagging).send().await;
                response.call_context("s3:PutBucketTagging", &self.display_name())?;
            }
            Repair::PublicAccessBlock => {
                let response = s3
                    .put_public_access_block()
                    .bucket(name)
                    .public_access_block_configuration(all_public_access_blocked())
                    .send()
                    .await;
                response.call_context("s3:PutBucketPublicAccessBlock", &self.display_name())?;
            }
            Repair::Encryption => {
                let default = ServerSideEncryptionByDefault::builder()
                    .sse_algorithm(ServerSideEncryption::Aes256)
                    .build();
                let rule = ServerSideEncryptionRule::builder()
                    .apply_server_side_encryption_by_default(
                        default.context(|| "cannot build the encryption settings")?,
                    )
                    .build();
                let rules = ServerSideEncryptionConfiguration::builder()
                    .rules(rule)
                    .build()
                    .context(|| "cannot build the encryption settings")?;
                let response = s3
                    .put_bucket_encryption()
                    .bucket(name)
                    .server_side_encryption_configuration(rules)
                    .send()
                    .await;
                response.call_context("s3:PutEncryptionConfiguration", &self.display_name())?;
            }
            Repair::Versioning => {
                let versioning = VersioningConfiguration::builder()
                    .status(BucketVersioningStatus::Enabled)
                    .build();
                let response = s3
                    .put_bucket_versioning()
                    .bucket(name)
                    .versioning_configuration(versioning)
                    .send()
                    .await;
                response.call_context("s3:PutBucketVersioning", &self.display_name())?;
            }
        }
        Ok(())
    }

    /// Deletes every version of every object.
    async fn empty(&self, name: &str) -> Result<()> {
        let (s3, bucket) = (&self.account.s3, format!("bucket `{name}`"));
        loop {
            let page = s3
                .list_object_versions()
                .bucket(name)
                .max_keys(1000)
                .send()
                .await
                .call_context("s3:ListBucketVersions", &bucket)?;
            let versions =
                page.versions().iter().map(|version| (version.key(), version.version_id()));
            let markers =
                page.delete_markers().iter().map(|marker| (marker.key(), marker.version_id()));
            let objects = versions.chain(markers).filter_map(|(key, version)| {
                let version = version.filter(|version| *version != "null").map(String::from);
                Some(
                    ObjectIdentifier::builder()
                        .key(key?)
                        .set_version_id(version)
                        .build()
                        .context(|| "cannot build an object identifier"),
                )
            });
            let objects: Vec<ObjectIdentifier> = objects.collect::<Result<_>>()?;
            if objects.is_empty() {
                return Ok(());
            }
            self.account.progress.say(format!("emptying {bucket}"));
            let delete = Delete::builder()
                .set_objects(Some(objects))
                .quiet(true)
                .build()
                .context(|| "cannot build the list of objects to delete")?;
            let response = s3.delete_objects().bucket(name).delete(delete).send().await;
            let deleted = response.call_context("s3:DeleteObjectVersion", &bucket)?;
            if let Some(error) = deleted.errors().first() {
                return Err(Error::failed(format!(
                    "cannot delete `{}` of {bucket}",
                    error.key().unwrap_or_default()
                ))
                .with_source(format!(
                    "{}: {}",
                    error.code().unwrap_or_default(),
                    error.message().unwrap_or_default()
                )));
            }
            if self.account.stop.is_cancelled() {
                return Err(self.account.interrupted(&format!("{bucket} still contains objects")));
            }
        }
    }
}

fn all_public_access_blocked() -> PublicAccessBlockConfiguration {
    PublicAccessBlockConfiguration::builder()
        .block_public_acls(true)
        .ignore_public_acls(true)
        .block_public_policy(true)
        .restrict_public_buckets(true)
        .build()
}

#[async_trait(?Send)]
impl Resource for Bucket {
    fn key(&self) -> String {
        self.purpose.key().into()
    }

    fn kind(&self) -> &'static str {
        "bucket"
    }

    fn name(&self) -> String {
        self.purpose.name(&self.account.config)
    }

    fn is_enabled(&self) -> bool {
        self.purpose != BucketUse::Airflow || self.account.config.airflow.enabled
    }

    async fn may_be_orphaned(&self) -> bool {
        self.purpose == BucketUse::Airflow && is_airflow_known(&self.account).await
    }

    fn holds_data(&self) -> bool {
        true
    }

    async fn deletion_blocker(&self) -> Result<Option<String>> {
        let name = self.previous_name().await?.unwrap_or_else(|| self.name());
        let page = self
            .account
            .s3
            .list_objects_v2()
            .bucket(&name)
            .max_keys(1000)
            .send()
            .await
            .call_context("s3:ListBucket", &format!("bucket `{name}`"))?;
        // Objects that `provision` uploads are not data, because it can upload them again.
        let dag = crate::spark::schedule::dag::dag_key(&self.account.config);
        let is_uploaded = |key: &str| is_zip(key) || key == REQUIREMENTS || key == dag;
        let objects =
            page.contents().iter().filter(|object| !object.key().is_some_and(is_uploaded)).count();
        let prefix = if page.is_truncated() == Some(true) { "more than " } else { "" };
        Ok((objects > 0).then(|| format!("{prefix}{objects} objects")))
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        if let Some(previous) = self.previous_name().await? {
            if self.account.is_unrecorded(self.purpose.key()).await {
                observed.found(previous.as_str());
            }
            // A name that cannot be checked is treated as taken by another AWS account.
            return Ok(Observation::renamed(
                &previous,
                self.exists(&self.name()).await.unwrap_or(true),
            ));
        }
        if !self.exists(&self.name()).await? {
            return Ok(Observation::missing());
        }
        let tags = self.tags(&self.name()).await?;
        if !self.is_managed(&self.name(), &tags).await {
            return Ok(Observation::unmanaged());
        }
        observed.found(self.name());
        let repairs = self.repairs(&tags).await?;
        Ok(Observation::compared(
            repairs.iter().map(Repair::difference).collect::<Vec<_>>(),
            "private, encrypted",
        ))
    }

    async fn create(&self) -> Result<()> {
        let region = &self.account.config.aws.region;
        // Recorded before the call, so that the bucket is managed while it has no tags.
        self.account.state.record(&self.name(), &self.created_here(), "here").await?;
        let request = self.account.s3.create_bucket().bucket(self.name());
        let location = BucketLocationConstraint::from(region.as_str());
        let request = match region.as_str() {
            // S3 rejects this region as a location constraint.
            "us-east-1" => request,
            _ => request.create_bucket_configuration(
                CreateBucketConfiguration::builder().location_constraint(location).build(),
            ),
        };
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == "BucketAlreadyOwnedByYou" => Ok(()),
            Err(error) if code(&error) == "BucketAlreadyExists" => {
                Err(error.call_context("s3:CreateBucket", &self.display_name()).hint(
                    "bucket names are globally unique: choose another `id` or another \
                         `s3.bucket.name`",
                ))
            }
            Err(error) => Err(error.call_context("s3:CreateBucket", &self.display_name())),
        }
    }

    async fn update(&self) -> Result<()> {
        let tags = self.tags(&self.name()).await?;
        for repair in self.repairs(&tags).await? {
            self.apply(&repair).await?;
        }
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        let name = self.previous_name().await?.unwrap_or_else(|| self.name());
        if !self.exists(&name).await? || !self.is_managed(&name, &self.tags(&name).await?).await {
            return Ok(false);
        }
        let may_lose_data = self.account.may_lose_data.borrow().contains(self.purpose.key());
        if !may_lose_data && let Some(objects) = self.deletion_blocker().await? {
            return Err(Error::failed(format!("bucket `{name}` now holds {objects}")).hint(
                "delete the bucket and its data with `pinpipe destroy --data` or `pinpipe \
                     provision --allow-replace`",
            ));
        }
        self.empty(&name).await?;
        match self.account.s3.delete_bucket().bucket(&name).send().await {
            Err(error) if code(&error) != "NoSuchBucket" => {
                Err(error.call_context("s3:DeleteBucket", &format!("bucket `{name}`")))
            }
            _ => Ok(true),
        }
    }
}
