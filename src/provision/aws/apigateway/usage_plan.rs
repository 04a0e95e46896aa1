//! The usage plan, which associates the API key with the API's stage.

use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_apigateway::types::{ApiStage, Op, PatchOperation, UsagePlan as GatewayPlan};

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

const KEY: &str = keys::USAGE_PLAN;

pub struct UsagePlan {
    pub account: Rc<Account>,
}

impl UsagePlan {
    fn display_name(&self) -> String {
        format!("usage plan `{}`", self.name())
    }

    async fn find_all(&self) -> Result<Vec<GatewayPlan>> {
        let mut pages =
            self.account.api.get_usage_plans().limit(500).into_paginator().items().send();
        let mut all = Vec::new();
        while let Some(item) = pages.next().await {
            let plan = item.call_context("apigateway:GET", &self.display_name())?;
            let tags = plan.tags().cloned().unwrap_or_default();
            if plan.name() == Some(self.name().as_str()) && self.account.is_managed(pairs(&tags)) {
                all.push(plan);
            }
        }
        all.sort_by_key(|plan| plan.id().map(String::from));
        Ok(all)
    }

    async fn find(&self) -> Result<Option<GatewayPlan>> {
        let all = self.find_all().await?;
        let known = self.account.state.output(&outputs::USAGE_PLAN_ID).await;
        Ok(all.iter().find(|plan| plan.id() == known.as_deref()).or(all.first()).cloned())
    }

    /// Ids of the API keys in a usage plan.
    async fn keys(&self, plan: &str) -> Result<Vec<String>> {
        let mut pages = self
            .account
            .api
            .get_usage_plan_keys()
            .usage_plan_id(plan)
            .limit(500)
            .into_paginator()
            .items()
            .send();
        let mut all = Vec::new();
        while let Some(item) = pages.next().await {
            let key = item.call_context("apigateway:GET", &self.display_name())?;
            all.extend(key.id().map(String::from));
        }
        Ok(all)
    }

    /// The API's stage in the form that usage plans require: `<api>:<stage>`.
    async fn stage(&self) -> Option<String> {
        let api = self.account.state.output(&outputs::API_ID).await?;
        Some(format!("{api}:{}", self.account.config.api.stage))
    }

    async fn patch(&self, plan: &str, operation: Op, value: &str) -> Result<()> {
        let patch = PatchOperation::builder().op(operation).path("/apiStages").value(value).build();
        match self
            .account
            .api
            .update_usage_plan()
            .usage_plan_id(plan)
            .patch_operations(patch)
            .send()
            .await
        {
            Err(error) if !matches!(code(&error), "NotFoundException" | "ConflictException") => {
                Err(error.call_context("apigateway:PATCH", &self.display_name()))
            }
            _ => Ok(()),
        }
    }
}

fn stages(plan: &GatewayPlan) -> Vec<String> {
    plan.api_stages()
        .iter()
        .map(|stage| {
            format!("{}:{}", stage.api_id().unwrap_or_default(), stage.stage().unwrap_or_default())
        })
        .collect()
}

#[async_trait(?Send)]
impl Resource for UsagePlan {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "usage-plan"
    }

    fn name(&self) -> String {
        self.account.named("usage-plan")
    }

    fn depends_on(&self) -> Vec<String> {
        vec![keys::API.into(), keys::API_KEY.into()]
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
        let id = found.id().unwrap_or_default();
        observed.found(self.name()).set(&outputs::USAGE_PLAN_ID, id);
        let tags = found.tags().cloned().unwrap_or_default();
        let mut differences = self.account.tag_differences(KEY, pairs(&tags));
        let stages = stages(&found);
        if self.stage().await.is_none_or(|stage| !stages.contains(&stage)) {
            differences.push("the API's stage is not in the usage plan".into());
        }
        let key = self.account.state.output(&outputs::API_KEY_ID).await;
        let keys = self.keys(id).await?;
        if key.is_none_or(|key| !keys.contains(&key)) {
            differences.push("the API key is not in the usage plan".into());
        }
        Ok(Observation::compared(differences, "contains the API key"))
    }

    async fn create(&self) -> Result<()> {
        let api = self.account.state.require_output(&outputs::API_ID).await?;
        let stage = ApiStage::builder().api_id(api).stage(&self.account.config.api.stage).build();
        let create = || async {
            let request = self
                .account
                .api_once
                .create_usage_plan()
                .name(self.name())
                .description("created by pinpipe")
                .api_stages(stage.clone());
            let response =
                request.set_tags(Some(self.account.tags(KEY).into_iter().collect())).send().await;
            let created = response.map_err(|error| {
                CreateError::new("apigateway:POST", &self.display_name(), error)
            })?;
            Ok(GatewayPlan::builder().set_id(created.id).build())
        };
        let plan = self.account.create_idempotently(|| self.find(), create).await?;
        self.account
            .state
            .record(&self.name(), &outputs::USAGE_PLAN_ID, plan.id().unwrap_or_default())
            .await
    }

    async fn update(&self) -> Result<()> {
        let Some(found) = self.find().await? else {
            return Ok(());
        };
        let id = found.id().unwrap_or_default();
        if let Some(stage) = self.stage().await
            && !stages(&found).contains(&stage)
        {
            self.patch(id, Op::Add, &stage).await?;
        }
        let key = self.account.state.require_output(&outputs::API_KEY_ID).await?;
        if !self.keys(id).await?.contains(&key) {
            let request = self
                .account
                .api
                .create_usage_plan_key()
                .usage_plan_id(id)
                .key_id(key)
                .key_type("API_KEY");
            match request.send().await {
                Err(error) if code(&error) != "ConflictException" => {
                    return Err(error.call_context("apigateway:POST", &self.display_name()));
                }
                _ => {}
            }
        }
        let tags = found.tags().cloned().unwrap_or_default();
        if !self.account.tag_differences(KEY, pairs(&tags)).is_empty() {
            put_tags(&self.account, KEY, &format!("/usageplans/{id}")).await?;
        }
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        let all = self.find_all().await?;
        for plan in &all {
            let id = plan.id().unwrap_or_default();
            // A usage plan with stages cannot be deleted.
            for stage in stages(plan) {
                self.patch(id, Op::Remove, &stage).await?;
            }
            match self.account.api.delete_usage_plan().usage_plan_id(id).send().await {
                Err(error) if code(&error) != "NotFoundException" => {
                    return Err(error.call_context("apigateway:DELETE", &self.display_name()));
                }
                _ => {}
            }
        }
        Ok(!all.is_empty())
    }
}
