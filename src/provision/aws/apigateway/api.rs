//! The REST API in front of the Kafka REST proxy and Kinesis: routes, deployment and stage.

use std::collections::BTreeMap;
use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_apigateway::types::{
    EndpointConfiguration, EndpointType, Op, PatchOperation, Resource as ApiResource, RestApi,
};
use secrecy::ExposeSecret;

use crate::base::checksum;
use crate::base::error::Result;
use crate::clients::aws::call::{CallContext, CreateError, code};
use crate::provision::aws::apigateway::routes::{Route, differences, routes, split};
use crate::provision::aws::apigateway::tags::{arn, put_tags};
use crate::provision::aws::context::{Account, TAG_RESOURCE};
use crate::provision::aws::keys;
use crate::provision::aws::names::Principal;
use crate::provision::aws::outputs;
use crate::provision::resource::{Difference, Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::API;

pub struct Api {
    pub account: Rc<Account>,
}

/// Name of the API: `api.name`, by default `<id>-api`.
pub fn name(account: &Account) -> String {
    if account.config.api.name.is_empty() {
        account.named("api")
    } else {
        account.config.api.name.clone()
    }
}

impl Api {
    fn display_name(&self) -> String {
        format!("API `{}`", self.name())
    }

    fn is_named(&self, api: &RestApi) -> bool {
        api.name() == Some(self.name().as_str())
    }

    async fn find_all(&self) -> Result<Vec<RestApi>> {
        let mut pages = self.account.api.get_rest_apis().limit(500).into_paginator().items().send();
        let mut all = Vec::new();
        while let Some(item) = pages.next().await {
            let api = item.call_context("apigateway:GET", &self.display_name())?;
            let tags = api.tags().cloned().unwrap_or_default();
            // API names are not unique, so an API of the same name that pinpipe does not manage
            // is ignored. The managed API may still have the name of an earlier configuration.
            let is_named =
                self.is_named(&api) || tags.get(TAG_RESOURCE).is_some_and(|key| key == KEY);
            if is_named && self.account.is_managed(crate::provision::aws::tags::pairs(&tags)) {
                all.push(api);
            }
        }
        all.sort_by_key(|api| (!self.is_named(api), api.id().map(String::from)));
        Ok(all)
    }

    async fn find(&self) -> Result<Option<RestApi>> {
        let all = self.find_all().await?;
        let known = self.account.state.output(&outputs::API_ID).await;
        Ok(all.iter().find(|api| api.id() == known.as_deref()).or(all.first()).cloned())
    }

    async fn resources(&self, api: &str) -> Result<BTreeMap<String, ApiResource>> {
        let mut pages = self
            .account
            .api
            .get_resources()
            .rest_api_id(api)
            .embed("methods")
            .limit(500)
            .into_paginator()
            .items()
            .send();
        let mut all = BTreeMap::new();
        while let Some(item) = pages.next().await {
            let resource = item.call_context("apigateway:GET", &self.display_name())?;
            all.insert(resource.path().unwrap_or_default().to_string(), resource);
        }
        Ok(all)
    }

    /// Returns the desired routes; `None` if the proxy's address or password does not exist yet.
    async fn routes(&self) -> Result<Option<Vec<Route>>> {
        let Some(ip) = self.account.state.output(&outputs::ADDRESS_IP).await else {
            return Ok(None);
        };
        let authorization = outputs::proxy_authorization(&self.account).await?;
        Ok(authorization.map(|authorization| routes(&self.account, &ip, &authorization)))
    }

    /// Checksum of the definition, which is stored in the description of each deployment.
    fn checksum(routes: &[Route]) -> String {
        let mut text = String::new();
        for route in routes {
            let integration = &route.integration;
            text.push_str(&format!(
                "{} {} {} {}\n",
                route.method, route.path, route.authorization, route.needs_key
            ));
            text.push_str(&format!(
                "{:?} {} {:?}\n",
                integration.kind, integration.uri, integration.credentials
            ));
            for (name, value) in &integration.parameters {
                text.push_str(&format!("{name}={}\n", value.expose_secret()));
            }
            for template in integration.templates.values() {
                text.push_str(template);
            }
            text.push_str(&format!("{:?}\n", integration.responses));
        }
        checksum::short(&text)
    }

    /// Reads the stage and its deployment; `None` if the stage does not exist.
    async fn stage(&self, api: &str) -> Result<Option<DeployedStage>> {
        let response = self
            .account
            .api
            .get_stage()
            .rest_api_id(api)
            .stage_name(&self.account.config.api.stage)
            .send()
            .await;
        let stage = match response {
            Err(error) if code(&error) == "NotFoundException" => return Ok(None),
            result => result.call_context("apigateway:GET", &self.display_name())?,
        };
        let response = self
            .account
            .api
            .get_tags()
            .resource_arn(arn(&self.account, &self.stage_path(api)))
            .send()
            .await;
        let tags =
            response.call_context("apigateway:GET", &self.display_name())?.tags.unwrap_or_default();
        let tag_differences =
            self.account.tag_differences(KEY, crate::provision::aws::tags::pairs(&tags));
        let deployment = stage.deployment_id().unwrap_or_default();
        match self
            .account
            .api
            .get_deployment()
            .rest_api_id(api)
            .deployment_id(deployment)
            .send()
            .await
        {
            Ok(deployment) => Ok(Some(DeployedStage {
                checksum: deployment.description().map(String::from),
                tag_differences,
            })),
            Err(error) if code(&error) == "NotFoundException" => {
                Ok(Some(DeployedStage { checksum: None, tag_differences }))
            }
            Err(error) => Err(error.call_context("apigateway:GET", &self.display_name())),
        }
    }

    fn stage_path(&self, api: &str) -> String {
        format!("/restapis/{api}/stages/{}", self.account.config.api.stage)
    }

    /// URL of the deployed stage.
    fn url(&self, api: &str) -> String {
        let stage = &self.account.config.api.stage;
        match self.account.endpoint() {
            // A custom endpoint has no host name for each API: the path contains the API's id.
            Some(endpoint) => {
                format!("{}/restapis/{api}/{stage}/_user_request_", endpoint.trim_end_matches('/'))
            }
            None => {
                let domain = if self.account.partition == "aws-cn" {
                    "amazonaws.com.cn"
                } else {
                    "amazonaws.com"
                };
                format!(
                    "https://{api}.execute-api.{}.{domain}/{stage}",
                    self.account.config.aws.region
                )
            }
        }
    }

    /// Stage of an earlier configuration; `None` if `api.stage` has not changed.
    async fn previous_stage(&self) -> Option<String> {
        self.account
            .state
            .output(&outputs::API_STAGE)
            .await
            .filter(|stage| *stage != self.account.config.api.stage)
    }

    /// Deletes a stage. A stage in a usage plan cannot be deleted, so it is removed from the plan
    /// first.
    async fn remove_stage(&self, api: &str, stage: &str) -> Result<()> {
        if let Some(plan) = self.account.state.output(&outputs::USAGE_PLAN_ID).await {
            let patch = PatchOperation::builder()
                .op(Op::Remove)
                .path("/apiStages")
                .value(format!("{api}:{stage}"))
                .build();
            match self
                .account
                .api
                .update_usage_plan()
                .usage_plan_id(plan)
                .patch_operations(patch)
                .send()
                .await
            {
                Err(error)
                    if !matches!(code(&error), "NotFoundException" | "BadRequestException") =>
                {
                    return Err(error.call_context("apigateway:PATCH", &self.display_name()));
                }
                _ => {}
            }
        }
        match self.account.api.delete_stage().rest_api_id(api).stage_name(stage).send().await {
            Err(error) if code(&error) != "NotFoundException" => {
                Err(error.call_context("apigateway:DELETE", &self.display_name()))
            }
            _ => Ok(()),
        }
    }

    /// Returns the id of a path's resource. Creates missing resources, parents before children.
    async fn ensure_path(
        &self,
        api: &str,
        path: &str,
        resources: &mut BTreeMap<String, String>,
    ) -> Result<String> {
        let mut missing = Vec::new();
        let mut ancestor = path;
        while !resources.contains_key(ancestor) && ancestor != "/" {
            missing.push(ancestor);
            ancestor = split(ancestor).0;
        }
        for path in missing.into_iter().rev() {
            let (parent, last) = split(path);
            let parent_id = resources.get(parent).cloned().unwrap_or_default();
            let response = self
                .account
                .api
                .create_resource()
                .rest_api_id(api)
                .parent_id(parent_id)
                .path_part(last)
                .send()
                .await;
            let id = match response {
                Ok(resource) => resource.id().unwrap_or_default().to_string(),
                Err(error) if code(&error) == "ConflictException" => {
                    let existing = self.resources(api).await?;
                    existing
                        .get(path)
                        .and_then(|resource| resource.id())
                        .unwrap_or_default()
                        .to_string()
                }
                Err(error) => {
                    return Err(error.call_context("apigateway:POST", &self.display_name()));
                }
            };
            resources.insert(path.to_string(), id);
        }
        Ok(resources.get(path).cloned().unwrap_or_default())
    }

    /// Creates or replaces a method and its integration.
    async fn put_method(&self, api: &str, id: &str, route: &Route, exists: bool) -> Result<()> {
        let (client, display_name) = (&self.account.api, self.display_name());
        if exists {
            // `PutMethod` fails for an existing method.
            match client
                .delete_method()
                .rest_api_id(api)
                .resource_id(id)
                .http_method(route.method)
                .send()
                .await
            {
                Err(error) if code(&error) != "NotFoundException" => {
                    return Err(error.call_context("apigateway:DELETE", &display_name));
                }
                _ => {}
            }
        }
        let method = client.put_method().rest_api_id(api).resource_id(id).http_method(route.method);
        let method =
            method.authorization_type(route.authorization).api_key_required(route.needs_key);
        let method = method
            .set_request_parameters(Some(route.request_parameters.clone().into_iter().collect()));
        match method.send().await {
            Err(error) if code(&error) != "ConflictException" => {
                return Err(error.call_context("apigateway:PUT", &display_name));
            }
            _ => {}
        }
        let desired = &route.integration;
        for (status, _) in &desired.responses {
            let response = client
                .put_method_response()
                .rest_api_id(api)
                .resource_id(id)
                .http_method(route.method)
                .status_code(*status);
            match response.send().await {
                Err(error) if code(&error) != "ConflictException" => {
                    return Err(error.call_context("apigateway:PUT", &display_name));
                }
                _ => {}
            }
        }
        let parameters = desired
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), value.expose_secret().to_string()))
            .collect();
        let integration =
            client.put_integration().rest_api_id(api).resource_id(id).http_method(route.method);
        let integration = integration
            .r#type(desired.kind.clone())
            .integration_http_method(desired.method)
            .uri(&desired.uri);
        let integration = integration
            .set_credentials(desired.credentials.clone())
            .set_request_parameters(Some(parameters));
        let templates = Some(desired.templates.clone().into_iter().collect())
            .filter(|_| !desired.templates.is_empty());
        let integration =
            integration.set_request_templates(templates).passthrough_behavior(desired.passthrough);
        integration.send().await.map_err(|error| {
            // The response may quote the request, which contains the password.
            let failure = error.call_context("apigateway:PUT", &display_name);
            desired.parameters.values().fold(failure, |failure, value| {
                failure
                    .redact(value.expose_secret().trim_matches('\'').trim_start_matches("Basic "))
            })
        })?;
        for (status, pattern) in &desired.responses {
            let response = client
                .put_integration_response()
                .rest_api_id(api)
                .resource_id(id)
                .http_method(route.method);
            let response =
                response.status_code(*status).set_selection_pattern(pattern.map(String::from));
            response.send().await.call_context("apigateway:PUT", &display_name)?;
        }
        Ok(())
    }
}

/// The deployed stage.
struct DeployedStage {
    /// Checksum of the deployed definition, from the description of the deployment.
    checksum: Option<String>,
    tag_differences: Vec<Difference>,
}

#[async_trait(?Send)]
impl Resource for Api {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "api"
    }

    fn name(&self) -> String {
        name(&self.account)
    }

    fn depends_on(&self) -> Vec<String> {
        vec![keys::ADDRESS.into(), keys::PROXY_SECRET.into(), Principal::Kinesis.key().into()]
    }

    async fn observe(&self, observed: &mut ObservedOutputs) -> Result<Observation> {
        let Some(found) = self.find().await? else {
            return Ok(Observation::missing());
        };
        let api = found.id().unwrap_or_default();
        observed.found(self.name()).set(&outputs::API_ID, api);
        let tags = found.tags().cloned().unwrap_or_default();
        let mut problems =
            self.account.tag_differences(KEY, crate::provision::aws::tags::pairs(&tags));
        if !self.is_named(&found) {
            problems
                .push(format!("the API is named `{}`", found.name().unwrap_or_default()).into());
        }
        let Some(routes) = self.routes().await? else {
            return Ok(Observation::compared(
                vec!["the Kafka REST proxy or its password does not exist"],
                "",
            ));
        };
        let resources = self.resources(api).await?;
        for route in &routes {
            problems.extend(
                differences(route, resources.get(route.path)).into_iter().map(Difference::from),
            );
        }
        if let Some(previous) = self.previous_stage().await {
            problems
                .push(format!("the stage `{previous}` is no longer in the configuration").into());
        }
        let stage = &self.account.config.api.stage;
        match self.stage(api).await? {
            None => problems.push(format!("the API is not deployed to the stage `{stage}`").into()),
            Some(deployed) => {
                // The URL is recorded only for a deployed stage, because other commands send
                // requests to it.
                observed.set(&outputs::API_URL, self.url(api));
                if deployed.checksum.as_deref() != Some(&Self::checksum(&routes)) {
                    problems
                        .push(format!("the stage `{stage}` serves a different definition").into());
                }
                problems.extend(
                    deployed
                        .tag_differences
                        .into_iter()
                        .map(|difference| format!("stage `{stage}`: {}", difference.text).into()),
                );
            }
        }
        Ok(Observation::compared(problems, self.url(api)))
    }

    async fn create(&self) -> Result<()> {
        let create = || async {
            let endpoint = EndpointConfiguration::builder().types(EndpointType::Regional).build();
            let request = self
                .account
                .api_once
                .create_rest_api()
                .name(self.name())
                .description("created by pinpipe")
                .endpoint_configuration(endpoint);
            let response =
                request.set_tags(Some(self.account.tags(KEY).into_iter().collect())).send().await;
            let created = response.map_err(|error| {
                CreateError::new("apigateway:POST", &self.display_name(), error)
            })?;
            Ok(RestApi::builder().set_id(created.id).build())
        };
        let api = self.account.create_idempotently(|| self.find(), create).await?;
        self.account
            .state
            .record(&self.name(), &outputs::API_ID, api.id().unwrap_or_default())
            .await
    }

    async fn update(&self) -> Result<()> {
        let Some(found) = self.find().await? else {
            return Ok(());
        };
        let api = found.id().unwrap_or_default();
        let tags = found.tags().cloned().unwrap_or_default();
        if !self.account.tag_differences(KEY, crate::provision::aws::tags::pairs(&tags)).is_empty()
        {
            put_tags(&self.account, KEY, &format!("/restapis/{api}")).await?;
        }
        if !self.is_named(&found) {
            let patch =
                PatchOperation::builder().op(Op::Replace).path("/name").value(self.name()).build();
            let response = self
                .account
                .api
                .update_rest_api()
                .rest_api_id(api)
                .patch_operations(patch)
                .send()
                .await;
            response.call_context("apigateway:PATCH", &self.display_name())?;
            self.account.state.rename(KEY, &self.name()).await?;
        }
        let Some(routes) = self.routes().await? else {
            return Ok(());
        };
        let existing = self.resources(api).await?;
        let mut ids: BTreeMap<String, String> = existing
            .iter()
            .map(|(path, resource)| (path.clone(), resource.id().unwrap_or_default().to_string()))
            .collect();
        for route in &routes {
            let resource = existing.get(route.path);
            if !differences(route, resource).is_empty() {
                let id = self.ensure_path(api, route.path, &mut ids).await?;
                let methods = resource.and_then(|resource| resource.resource_methods());
                self.put_method(
                    api,
                    &id,
                    route,
                    methods.is_some_and(|methods| methods.contains_key(route.method)),
                )
                .await?;
            }
        }
        let checksum = Self::checksum(&routes);
        let deployed = self.stage(api).await?;
        if deployed.as_ref().and_then(|deployed| deployed.checksum.as_deref()) != Some(&checksum) {
            let stage = &self.account.config.api.stage;
            let response = self
                .account
                .api
                .create_deployment()
                .rest_api_id(api)
                .stage_name(stage)
                .description(checksum)
                .send()
                .await;
            response.call_context("apigateway:POST", &self.display_name())?;
        }
        if deployed.is_none_or(|deployed| !deployed.tag_differences.is_empty()) {
            put_tags(&self.account, KEY, &self.stage_path(api)).await?;
        }
        if let Some(previous) = self.previous_stage().await {
            self.remove_stage(api, &previous).await?;
        }
        self.account
            .state
            .record(&self.name(), &outputs::API_STAGE, self.account.config.api.stage.as_str())
            .await
    }

    async fn delete(&self) -> Result<bool> {
        let all = self.find_all().await?;
        for api in &all {
            match self.account.api.delete_rest_api().set_rest_api_id(api.id.clone()).send().await {
                Err(error) if code(&error) != "NotFoundException" => {
                    return Err(error.call_context("apigateway:DELETE", &self.display_name()));
                }
                _ => {}
            }
        }
        Ok(!all.is_empty())
    }
}
