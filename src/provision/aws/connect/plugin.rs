//! The custom plugin of MSK Connect, which is created from the connector's zip.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_kafkaconnect::types::{
    CustomPluginContentType, CustomPluginLocation, CustomPluginState, CustomPluginSummary,
    S3Location,
};

use crate::base::error::{Error, ErrorContext, Result};
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::connect::lookup;
use crate::provision::aws::connect::lookup::{Listed, put_tags, tags};
use crate::provision::aws::connect::plugin_object;
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::names::BucketUse;
use crate::provision::aws::outputs;
use crate::provision::aws::tags::pairs;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::PLUGIN;

pub struct Plugin {
    pub account: Rc<Account>,
}

impl Listed for CustomPluginSummary {
    fn name(&self) -> Option<&str> {
        self.name()
    }

    fn arn(&self) -> Option<&str> {
        self.custom_plugin_arn()
    }

    async fn all(account: &Account, prefix: Option<&str>) -> Result<Vec<Self>> {
        let request =
            account.connect.list_custom_plugins().set_name_prefix(prefix.map(String::from));
        let all: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        all.call_context("kafkaconnect:ListCustomPlugins", "plugins")
    }
}

impl Plugin {
    fn display_name(&self) -> String {
        format!("plugin `{}`", self.name())
    }

    async fn find(&self) -> Result<Option<CustomPluginSummary>> {
        lookup::find(&self.account, KEY, &self.name()).await
    }

    /// Reads the plugin again; `None` if it no longer exists.
    async fn refresh(&self, arn: &str) -> Result<Option<CustomPluginSummary>> {
        Ok(self.find().await?.filter(|current| current.custom_plugin_arn() == Some(arn)))
    }

    /// Describes how the plugin's copy of the zip differs from the configured zip. The plugin keeps
    /// the copy from which it was created.
    async fn zip_difference(&self, summary: &CustomPluginSummary) -> Option<&'static str> {
        let latest = summary.latest_revision();
        let location =
            latest.and_then(|latest| latest.location()).and_then(|location| location.s3_location());
        let key = plugin_object::key(&self.account.config).unwrap_or_default();
        if location.is_some_and(|location| {
            location.bucket_arn() != Some(&self.bucket_arn()) || location.file_key() != Some(&key)
        }) {
            return Some("created from another object");
        }
        let copied_md5 =
            latest.and_then(|latest| latest.file_description()).and_then(|file| file.file_md5());
        // A value that is not an MD5 cannot be compared.
        let copied_md5 = copied_md5.filter(|text| text.len() == 32)?;
        match self.account.state.output(&outputs::PLUGIN_OBJECT_MD5).await?.as_str() {
            desired if copied_md5.eq_ignore_ascii_case(desired) => None,
            "" => Some("the URL of the zip has changed"),
            _ => Some("created from a zip with other content"),
        }
    }

    fn bucket_arn(&self) -> String {
        format!(
            "arn:{}:s3:::{}",
            self.account.partition,
            BucketUse::Lake.name(&self.account.config)
        )
    }
}

#[async_trait(?Send)]
impl Resource for Plugin {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "plugin"
    }

    fn name(&self) -> String {
        let configured = &self.account.config.connector.plugin_name;
        if configured.is_empty() { self.account.named("plugin") } else { configured.clone() }
    }

    fn depends_on(&self) -> Vec<String> {
        vec![keys::PLUGIN_OBJECT.into()]
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let Some(summary) = self.find().await? else {
            return Ok(Observation::missing());
        };
        let (arn, name) =
            (summary.custom_plugin_arn().unwrap_or_default(), summary.name().unwrap_or_default());
        let Some(tags) = tags(&self.account, arn).await? else {
            return Ok(Observation::missing());
        };
        let is_renamed = name != self.name();
        if !self.account.is_managed(pairs(&tags)) {
            // The previous name now belongs to an unmanaged resource, which is ignored.
            return Ok(if is_renamed { Observation::missing() } else { Observation::unmanaged() });
        }
        let revision = summary.latest_revision().map_or(1, |latest| latest.revision());
        observed
            .found(name)
            .set(&outputs::PLUGIN_ARN, arn)
            .set(&outputs::PLUGIN_REVISION, revision);
        if is_renamed {
            return Ok(Observation::renamed(
                name,
                lookup::find_named::<CustomPluginSummary>(&self.account, &self.name())
                    .await?
                    .is_some(),
            ));
        }
        match summary.custom_plugin_state() {
            Some(CustomPluginState::Active) => {}
            Some(CustomPluginState::CreateFailed | CustomPluginState::UpdateFailed) => {
                return Ok(Observation::not_updatable(vec!["MSK Connect rejected the zip"]));
            }
            state => {
                return Ok(Observation::pending(
                    state.map_or("unknown", CustomPluginState::as_str),
                ));
            }
        }
        if let Some(reason) = self.zip_difference(&summary).await {
            return Ok(Observation::not_updatable(vec![reason]));
        }
        Ok(Observation::compared(
            self.account.tag_differences(KEY, pairs(&tags)),
            format!("revision {revision}"),
        ))
    }

    async fn create(&self) -> Result<()> {
        let key = plugin_object::key(&self.account.config).unwrap_or_default();
        let location = S3Location::builder()
            .bucket_arn(self.bucket_arn())
            .file_key(key)
            .build()
            .context(|| "cannot build the S3 location of the plugin")?;
        let request = self
            .account
            .connect
            .create_custom_plugin()
            .name(self.name())
            .content_type(CustomPluginContentType::Zip);
        let request = request
            .description("created by pinpipe")
            .location(CustomPluginLocation::builder().s3_location(location).build());
        match request.set_tags(Some(self.account.tags(KEY).into_iter().collect())).send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == "ConflictException" => Ok(()),
            Err(error) => {
                Err(error.call_context("kafkaconnect:CreateCustomPlugin", &self.display_name()))
            }
        }
    }

    async fn update(&self) -> Result<()> {
        let Some(summary) = self.find().await? else {
            return Ok(());
        };
        put_tags(&self.account, KEY, summary.custom_plugin_arn().unwrap_or_default()).await
    }

    async fn wait(&self) -> Result<()> {
        let check = || async {
            let Some(summary) = self.find().await? else {
                return Ok(None);
            };
            Ok(match summary.custom_plugin_state() {
                Some(CustomPluginState::Active) => None,
                Some(CustomPluginState::CreateFailed) => {
                    return Err(Error::failed(format!(
                        "cannot create {} from `{}`",
                        self.display_name(),
                        self.account.config.connector.plugin
                    ))
                    .hint("set `connector.plugin` to the complete zip that Confluent publishes"));
                }
                state => Some(state.map_or("unknown", CustomPluginState::as_str).to_string()),
            })
        };
        self.account.wait_until(&self.display_name(), check).await
    }

    async fn delete(&self) -> Result<bool> {
        let Some(summary) = self.find().await? else {
            return Ok(false);
        };
        let arn = summary.custom_plugin_arn().unwrap_or_default();
        let Some(tags) = tags(&self.account, arn).await? else {
            return Ok(true);
        };
        if !self.account.is_managed(pairs(&tags)) {
            return Ok(false);
        }
        if summary.custom_plugin_state() == Some(&CustomPluginState::Creating) {
            // MSK Connect rejects other calls while it creates the plugin. A failure of the
            // creation is ignored, because the plugin is deleted anyway.
            if let Err(error) = self.wait().await
                && self.account.stop.is_cancelled()
            {
                return Err(error);
            }
        }
        if summary.custom_plugin_state() != Some(&CustomPluginState::Deleting) {
            match self.account.connect.delete_custom_plugin().custom_plugin_arn(arn).send().await {
                Err(error) if code(&error) != "NotFoundException" => {
                    // An attempt whose response was lost may have succeeded.
                    let state = self
                        .refresh(arn)
                        .await?
                        .and_then(|summary| summary.custom_plugin_state().cloned());
                    if state.is_some_and(|state| state != CustomPluginState::Deleting) {
                        return Err(error.call_context(
                            "kafkaconnect:DeleteCustomPlugin",
                            &self.display_name(),
                        ));
                    }
                }
                _ => {}
            }
        }
        let check = || async { Ok(self.refresh(arn).await?.map(|_| "DELETING".to_string())) };
        self.account.wait_until(&self.display_name(), check).await?;
        Ok(true)
    }
}
