//! Buckets: the lake's, and Airflow's.

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
use crate::clients::aws::call::{Call, code, failed};
use crate::provision::aws::context::Account;
use crate::provision::aws::names::BucketUse;
use crate::provision::aws::object_keys::{REQUIREMENTS, is_zip};
use crate::provision::aws::outputs::is_airflow_known;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::document::Phase;

/// Buckets whose tags are asked for at a time.
const TAGS_AT_ONCE: usize = 8;

pub struct Bucket {
    pub purpose: BucketUse,
    pub account: Rc<Account>,
}

/// How a bucket should be and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Drift {
    Tags(String),
    Public,
    Unencrypted,
    Unversioned,
}

impl std::fmt::Display for Drift {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tags(text) => formatter.write_str(text),
            Self::Public => formatter.write_str("public access is not blocked"),
            Self::Unencrypted => formatter.write_str("it is not encrypted"),
            Self::Unversioned => {
                formatter.write_str("it keeps no versions, which Airflow asks for")
            }
        }
    }
}

impl Bucket {
    fn display_name(&self) -> String {
        format!("bucket `{}`", self.name())
    }

    /// The bucket that an earlier configuration asked for, while it is there.
    async fn former(&self) -> Result<Option<String>> {
        let key = self.purpose.key();
        if self.account.is_forgotten(key).await {
            // The name of now costs one call, that of all buckets many.
            let is_there = self.exists(&self.name()).await.unwrap_or(true);
            return if is_there {
                Ok(None)
            } else {
                self.tagged().await
            };
        }
        for name in self
            .account
            .names(key, &self.name())
            .await
            .into_iter()
            .filter(|name| *name != self.name())
        {
            let is_there = match self.exists(&name).await {
                // It went, and the name is somebody else's by now.
                Err(_)
                    if self
                        .of_account()
                        .await
                        .is_ok_and(|own| !own.contains(&name)) =>
                {
                    false
                }
                is_there => is_there?,
            };
            if is_there && self.is_ours(&name, &self.tags(&name).await?).await {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// The bucket that carries the tags of this one, whatever its name.
    async fn tagged(&self) -> Result<Option<String>> {
        let names = match self.of_account().await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "a bucket that the state has forgotten is not looked for");
                return Ok(None);
            }
        };
        let with_tags = |name: String| async move {
            // What cannot be looked at is not ours.
            let tags = self.tags(&name).await.unwrap_or_default();
            let found = tags
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()));
            self.account
                .is_tagged_as(self.purpose.key(), found)
                .then_some(name)
        };
        let found: Vec<Option<String>> = stream::iter(names)
            .map(with_tags)
            .buffered(TAGS_AT_ONCE)
            .collect()
            .await;
        Ok(found.into_iter().flatten().next())
    }

    /// Names of the account's buckets in its region.
    async fn of_account(&self) -> Result<Vec<String>> {
        let request = self
            .account
            .s3
            .list_buckets()
            .bucket_region(&self.account.config.aws.region)
            .max_buckets(1000);
        let pages: Result<Vec<_>, _> = request.into_paginator().send().collect().await;
        let pages =
            pages.map_err(|error| failed(Call("s3:ListAllMyBuckets", "the account"), &error))?;
        Ok(pages
            .iter()
            .flat_map(|page| page.buckets())
            .filter_map(|bucket| bucket.name.clone())
            .collect())
    }

    /// Whether it is there, in this account.
    async fn exists(&self, name: &str) -> Result<bool> {
        match self.account.s3.head_bucket().bucket(name).send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.raw_response().map(|response| response.status().as_u16()) {
                Some(404) => Ok(false),
                Some(301 | 403) => {
                    Err(Error::failed(format!("bucket `{name}` is somebody else's, in another region, or not allowed to you"))
                        .with_source(crate::clients::aws::call::describe(&error))
                        .hint("names of buckets are shared by everybody: choose another `id`, or allow `s3:ListBucket` on it"))
                }
                _ => Err(failed(Call("s3:ListBucket", &format!("bucket `{name}`")), &error)),
            },
        }
    }

    async fn tags(&self, name: &str) -> Result<Vec<(String, String)>> {
        match self
            .account
            .s3
            .get_bucket_tagging()
            .bucket(name)
            .send()
            .await
        {
            Ok(found) => Ok(found
                .tag_set()
                .iter()
                .map(|tag| (tag.key().to_string(), tag.value().to_string()))
                .collect()),
            Err(error) if matches!(code(&error), "NoSuchTagSet" | "NoSuchBucket") => Ok(Vec::new()),
            Err(error) => Err(failed(
                Call("s3:GetBucketTagging", &format!("bucket `{name}`")),
                &error,
            )),
        }
    }

    /// A bucket cannot be made with its tags on: one that this state began to make is ours too.
    async fn is_ours(&self, name: &str, tags: &[(String, String)]) -> bool {
        let is_begun = self
            .account
            .state
            .entry(self.purpose.key())
            .await
            .is_some_and(|entry| {
                entry.phase != Phase::Ready
                    && entry.name == name
                    && entry.values.get("made").is_some_and(|made| made == "here")
            });
        is_begun
            || self.account.is_ours(
                tags.iter()
                    .map(|(key, value)| (key.as_str(), value.as_str())),
            )
    }

    async fn differences(&self, tags: &[(String, String)]) -> Result<Vec<Drift>> {
        let (s3, name) = (&self.account.s3, self.name());
        let found = tags
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let mut differences: Vec<Drift> = self
            .account
            .tag_differences(self.purpose.key(), found)
            .into_iter()
            .map(Drift::Tags)
            .collect();
        let block = match s3.get_public_access_block().bucket(&name).send().await {
            Ok(found) => found.public_access_block_configuration().cloned(),
            Err(error) if code(&error) == "NoSuchPublicAccessBlockConfiguration" => None,
            Err(error) => {
                return Err(failed(
                    Call("s3:GetBucketPublicAccessBlock", &self.display_name()),
                    &error,
                ));
            }
        };
        if block != Some(blocked()) {
            differences.push(Drift::Public);
        }
        let encryption = match s3.get_bucket_encryption().bucket(&name).send().await {
            Ok(found) => found
                .server_side_encryption_configuration()
                .map(|found| !found.rules().is_empty()),
            Err(error) if code(&error) == "ServerSideEncryptionConfigurationNotFoundError" => None,
            Err(error) => {
                return Err(failed(
                    Call("s3:GetEncryptionConfiguration", &self.display_name()),
                    &error,
                ));
            }
        };
        if encryption != Some(true) {
            differences.push(Drift::Unencrypted);
        }
        if self.purpose == BucketUse::Airflow {
            let found = s3.get_bucket_versioning().bucket(&name).send().await;
            let found = found.map_err(|error| {
                failed(Call("s3:GetBucketVersioning", &self.display_name()), &error)
            })?;
            if found.status() != Some(&BucketVersioningStatus::Enabled) {
                differences.push(Drift::Unversioned);
            }
        }
        Ok(differences)
    }

    async fn mend(&self, drift: &Drift) -> Result<()> {
        let (s3, name) = (&self.account.s3, self.name());
        match drift {
            Drift::Tags(_) => {
                // Putting tags replaces all of them: those of others are put again.
                let mut all: std::collections::BTreeMap<String, String> =
                    self.tags(&name).await?.into_iter().collect();
                all.extend(self.account.tags(self.purpose.key()));
                let tags = all.into_iter().map(|(key, value)| {
                    Tag::builder()
                        .key(key)
                        .value(value)
                        .build()
                        .context(|| "a tag is not whole")
                });
                let tagging = Tagging::builder()
                    .set_tag_set(Some(tags.collect::<Result<_>>()?))
                    .build()
                    .context(|| "tags are not whole")?;
                let put = s3
                    .put_bucket_tagging()
                    .bucket(name)
                    .tagging(tagging)
                    .send()
                    .await;
                put.map_err(|error| {
                    failed(Call("s3:PutBucketTagging", &self.display_name()), &error)
                })?;
            }
            Drift::Public => {
                let put = s3
                    .put_public_access_block()
                    .bucket(name)
                    .public_access_block_configuration(blocked())
                    .send()
                    .await;
                put.map_err(|error| {
                    failed(
                        Call("s3:PutBucketPublicAccessBlock", &self.display_name()),
                        &error,
                    )
                })?;
            }
            Drift::Unencrypted => {
                let default = ServerSideEncryptionByDefault::builder()
                    .sse_algorithm(ServerSideEncryption::Aes256)
                    .build();
                let rule = ServerSideEncryptionRule::builder()
                    .apply_server_side_encryption_by_default(
                        default.context(|| "an encryption is not whole")?,
                    )
                    .build();
                let rules = ServerSideEncryptionConfiguration::builder()
                    .rules(rule)
                    .build()
                    .context(|| "an encryption is not whole")?;
                let put = s3
                    .put_bucket_encryption()
                    .bucket(name)
                    .server_side_encryption_configuration(rules)
                    .send()
                    .await;
                put.map_err(|error| {
                    failed(
                        Call("s3:PutEncryptionConfiguration", &self.display_name()),
                        &error,
                    )
                })?;
            }
            Drift::Unversioned => {
                let versioning = VersioningConfiguration::builder()
                    .status(BucketVersioningStatus::Enabled)
                    .build();
                let put = s3
                    .put_bucket_versioning()
                    .bucket(name)
                    .versioning_configuration(versioning)
                    .send()
                    .await;
                put.map_err(|error| {
                    failed(Call("s3:PutBucketVersioning", &self.display_name()), &error)
                })?;
            }
        }
        Ok(())
    }

    /// Removes every object, in all versions.
    async fn empty(&self, name: &str) -> Result<()> {
        let (s3, what) = (&self.account.s3, format!("bucket `{name}`"));
        loop {
            let page = s3
                .list_object_versions()
                .bucket(name)
                .max_keys(1000)
                .send()
                .await;
            let page =
                page.map_err(|error| failed(Call("s3:ListBucketVersions", &what), &error))?;
            let versions = page
                .versions()
                .iter()
                .map(|found| (found.key(), found.version_id()));
            let marks = page
                .delete_markers()
                .iter()
                .map(|found| (found.key(), found.version_id()));
            let objects = versions.chain(marks).filter_map(|(key, version)| {
                let version = version
                    .filter(|version| *version != "null")
                    .map(String::from);
                Some(
                    ObjectIdentifier::builder()
                        .key(key?)
                        .set_version_id(version)
                        .build()
                        .context(|| "an object has no key"),
                )
            });
            let objects: Vec<ObjectIdentifier> = objects.collect::<Result<_>>()?;
            if objects.is_empty() {
                return Ok(());
            }
            self.account.progress.say(format!("emptying {what}"));
            let delete = Delete::builder()
                .set_objects(Some(objects))
                .quiet(true)
                .build()
                .context(|| "nothing to delete")?;
            let removed = s3.delete_objects().bucket(name).delete(delete).send().await;
            let removed =
                removed.map_err(|error| failed(Call("s3:DeleteObjectVersion", &what), &error))?;
            if let Some(error) = removed.errors().first() {
                return Err(Error::failed(format!(
                    "`{}` of {what} cannot be removed",
                    error.key().unwrap_or_default()
                ))
                .with_source(format!(
                    "{}: {}",
                    error.code().unwrap_or_default(),
                    error.message().unwrap_or_default()
                )));
            }
            if self.account.stop.is_cancelled() {
                return Err(self.account.stopped(&format!("{what} is half empty")));
            }
        }
    }
}

fn blocked() -> PublicAccessBlockConfiguration {
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
        let name = self.former().await?.unwrap_or_else(|| self.name());
        let page = self
            .account
            .s3
            .list_objects_v2()
            .bucket(&name)
            .max_keys(1000)
            .send()
            .await;
        let page = page
            .map_err(|error| failed(Call("s3:ListBucket", &format!("bucket `{name}`")), &error))?;
        // What provision itself put there comes back by itself.
        let dag = crate::spark::schedule::dag::dag_key(&self.account.config);
        let is_own = |key: &str| is_zip(key) || key == REQUIREMENTS || key == dag;
        let objects = page
            .contents()
            .iter()
            .filter(|object| !object.key().is_some_and(is_own))
            .count();
        let more = if page.is_truncated() == Some(true) {
            "more than "
        } else {
            ""
        };
        Ok((objects > 0).then(|| format!("{more}{objects} objects")))
    }

    async fn read(&self) -> Result<Observation> {
        if let Some(former) = self.former().await? {
            if self.account.is_forgotten(self.purpose.key()).await {
                self.account
                    .state
                    .record_outputs(self.purpose.key(), &former, &[])
                    .await?;
            }
            // A name that cannot be looked at is somebody else's.
            return Ok(Observation::renamed(
                &former,
                self.exists(&self.name()).await.unwrap_or(true),
            ));
        }
        if !self.exists(&self.name()).await? {
            return Ok(Observation::missing());
        }
        let tags = self.tags(&self.name()).await?;
        if !self.is_ours(&self.name(), &tags).await {
            return Ok(Observation::unmanaged());
        }
        self.account
            .state
            .record_outputs(self.purpose.key(), &self.name(), &[])
            .await?;
        let differences = self.differences(&tags).await?;
        Ok(Observation::from_drift(
            differences.iter().map(ToString::to_string).collect(),
            "private, encrypted",
        ))
    }

    async fn create(&self) -> Result<()> {
        let region = &self.account.config.aws.region;
        // Noted first, so that the bucket is known as ours although it has no tags yet.
        self.account
            .state
            .record_outputs(self.purpose.key(), &self.name(), &[("made", "here")])
            .await?;
        let request = self.account.s3.create_bucket().bucket(self.name());
        let place = BucketLocationConstraint::from(region.as_str());
        let request = match region.as_str() {
            // The one region that must not be named.
            "us-east-1" => request,
            _ => request.create_bucket_configuration(
                CreateBucketConfiguration::builder()
                    .location_constraint(place)
                    .build(),
            ),
        };
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == "BucketAlreadyOwnedByYou" => Ok(()),
            Err(error) if code(&error) == "BucketAlreadyExists" => Err(failed(Call("s3:CreateBucket", &self.display_name()), &error)
                .hint("names of buckets are shared by everybody: choose another `id`, or another `s3.bucket.name`")),
            Err(error) => Err(failed(Call("s3:CreateBucket", &self.display_name()), &error)),
        }
    }

    async fn update(&self) -> Result<()> {
        let tags = self.tags(&self.name()).await?;
        for drift in self.differences(&tags).await? {
            self.mend(&drift).await?;
        }
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        let name = self.former().await?.unwrap_or_else(|| self.name());
        if !self.exists(&name).await? || !self.is_ours(&name, &self.tags(&name).await?).await {
            return Ok(false);
        }
        let may_lose_data = self
            .account
            .may_lose_data
            .borrow()
            .contains(self.purpose.key());
        if !may_lose_data && let Some(held) = self.deletion_blocker().await? {
            return Err(
                Error::failed(format!("bucket `{name}` holds {held} by now")).hint(
                    "`destroy --data`, or `provision --allow-replace`, deletes it with its data",
                ),
            );
        }
        self.empty(&name).await?;
        match self.account.s3.delete_bucket().bucket(&name).send().await {
            Err(error) if code(&error) != "NoSuchBucket" => Err(failed(
                Call("s3:DeleteBucket", &format!("bucket `{name}`")),
                &error,
            )),
            _ => Ok(true),
        }
    }
}
