//! The API key, which clients send in the header `x-api-key`.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_apigateway::types::ApiKey as GatewayKey;

use crate::base::config::schema::ApiAuth;
use crate::base::error::Result;
use crate::clients::aws::call::{CallContext, CreateError, code};
use crate::provision::aws::apigateway::tags::put_tags;
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::outputs;
use crate::provision::aws::tags::pairs;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::API_KEY;

pub struct ApiKey {
    pub account: Rc<Account>,
}

impl ApiKey {
    fn display_name(&self) -> String {
        format!("API key `{}`", self.name())
    }

    async fn find_all(&self) -> Result<Vec<GatewayKey>> {
        let mut pages = self
            .account
            .api
            .get_api_keys()
            .name_query(self.name())
            .limit(500)
            .into_paginator()
            .items()
            .send();
        let mut all = Vec::new();
        while let Some(item) = pages.next().await {
            let key = item.call_context("apigateway:GET", &self.display_name())?;
            let tags = key.tags().cloned().unwrap_or_default();
            if key.name() == Some(self.name().as_str()) && self.account.is_managed(pairs(&tags)) {
                all.push(key);
            }
        }
        all.sort_by_key(|key| key.id().map(String::from));
        Ok(all)
    }

    async fn find(&self) -> Result<Option<GatewayKey>> {
        let all = self.find_all().await?;
        let known = self.account.state.output(&outputs::API_KEY_ID).await;
        Ok(all.iter().find(|key| key.id() == known.as_deref()).or(all.first()).cloned())
    }
}

#[async_trait(?Send)]
impl Resource for ApiKey {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "api-key"
    }

    fn name(&self) -> String {
        self.account.named("api-key")
    }

    fn is_enabled(&self) -> bool {
        self.account.config.api.auth == ApiAuth::Key
    }

    async fn may_be_orphaned(&self) -> bool {
        true
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let Some(found) = self.find().await? else {
            return Ok(Observation::missing());
        };
        observed.found(self.name()).set(&outputs::API_KEY_ID, found.id().unwrap_or_default());
        let tags = found.tags().cloned().unwrap_or_default();
        let mut differences = self.account.tag_differences(KEY, pairs(&tags));
        if !found.enabled() {
            differences.push("the API key is disabled".into());
        }
        Ok(Observation::compared(differences, "sent as the header x-api-key"))
    }

    async fn create(&self) -> Result<()> {
        let create = || async {
            let request = self
                .account
                .api_once
                .create_api_key()
                .name(self.name())
                .description("created by pinpipe")
                .enabled(true);
            let response =
                request.set_tags(Some(self.account.tags(KEY).into_iter().collect())).send().await;
            let created = response.map_err(|error| {
                CreateError::new("apigateway:POST", &self.display_name(), error)
            })?;
            Ok(GatewayKey::builder().set_id(created.id).build())
        };
        let key = self.account.create_idempotently(|| self.find(), create).await?;
        self.account
            .state
            .record(&self.name(), &outputs::API_KEY_ID, key.id().unwrap_or_default())
            .await
    }

    async fn update(&self) -> Result<()> {
        use aws_sdk_apigateway::types::{Op, PatchOperation};
        let Some(found) = self.find().await? else {
            return Ok(());
        };
        let id = found.id().unwrap_or_default();
        if !found.enabled() {
            let enable =
                PatchOperation::builder().op(Op::Replace).path("/enabled").value("true").build();
            let response =
                self.account.api.update_api_key().api_key(id).patch_operations(enable).send().await;
            response.call_context("apigateway:PATCH", &self.display_name())?;
        }
        let tags = found.tags().cloned().unwrap_or_default();
        if !self.account.tag_differences(KEY, pairs(&tags)).is_empty() {
            put_tags(&self.account, KEY, &format!("/apikeys/{id}")).await?;
        }
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        let all = self.find_all().await?;
        for key in &all {
            match self.account.api.delete_api_key().set_api_key(key.id.clone()).send().await {
                Err(error) if code(&error) != "NotFoundException" => {
                    return Err(error.call_context("apigateway:DELETE", &self.display_name()));
                }
                _ => {}
            }
        }
        Ok(!all.is_empty())
    }
}
