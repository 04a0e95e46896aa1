//! The REST API in front of the proxy and of Kinesis: routes, deployment and stage.

use std::collections::BTreeMap;
use std::rc::Rc;

use async_trait::async_trait;
use aws_sdk_apigateway::types::{
    EndpointConfiguration, EndpointType, Op, PatchOperation, Resource as ApiResource, RestApi,
};
use secrecy::ExposeSecret;

use crate::base::checksum;
use crate::base::error::Result;
use crate::clients::aws::call::{Call, CreateError, code, failed};
use crate::provision::aws::apigateway::routes::{Route, differences, routes, split};
use crate::provision::aws::apigateway::tags::{arn, put_tags};
use crate::provision::aws::context::{Account, TAG_RESOURCE};
use crate::provision::aws::keys;
use crate::provision::aws::names::Holder;
use crate::provision::aws::outputs;
use crate::provision::resource::{Observation, Resource};

const KEY: &str = keys::API;

pub struct Api {
    pub account: Rc<Account>,
}

/// The API's name.
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

    fn is_named(&self, found: &RestApi) -> bool {
        found.name() == Some(self.name().as_str())
    }

    async fn find_all(&self) -> Result<Vec<RestApi>> {
        let mut pages = self
            .account
            .api
            .get_rest_apis()
            .limit(500)
            .into_paginator()
            .items()
            .send();
        let mut all = Vec::new();
        while let Some(found) = pages.next().await {
            let found = found
                .map_err(|error| failed(Call("apigateway:GET", &self.display_name()), &error))?;
            let tags = found.tags().cloned().unwrap_or_default();
            // Names are not unique: somebody else's API of the same name is nobody's business. Ours
            // may have another name, from an earlier configuration.
            let is_named =
                self.is_named(&found) || tags.get(TAG_RESOURCE).is_some_and(|key| key == KEY);
            if is_named
                && self
                    .account
                    .is_ours(crate::provision::aws::tags::pairs(&tags))
            {
                all.push(found);
            }
        }
        all.sort_by_key(|api| (!self.is_named(api), api.id().map(String::from)));
        Ok(all)
    }

    async fn find(&self) -> Result<Option<RestApi>> {
        let all = self.find_all().await?;
        let known = self.account.state.output(KEY, "id").await;
        Ok(all
            .iter()
            .find(|api| api.id() == known.as_deref())
            .or(all.first())
            .cloned())
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
        while let Some(found) = pages.next().await {
            let found = found
                .map_err(|error| failed(Call("apigateway:GET", &self.display_name()), &error))?;
            all.insert(found.path().unwrap_or_default().to_string(), found);
        }
        Ok(all)
    }

    /// `None`: what the routes lead to is not there yet.
    async fn routes(&self) -> Result<Option<Vec<Route>>> {
        let Some(ip) = self.account.state.output(keys::ADDRESS, "ip").await else {
            return Ok(None);
        };
        let authorization = outputs::proxy_authorization(&self.account).await?;
        Ok(authorization.map(|authorization| routes(&self.account, &ip, &authorization)))
    }

    /// The definition's checksum: a deployment says which definition it deployed.
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

    /// The stage, where there is one.
    async fn stage(&self, api: &str) -> Result<Option<Served>> {
        let stage = self
            .account
            .api
            .get_stage()
            .rest_api_id(api)
            .stage_name(&self.account.config.api.stage)
            .send()
            .await;
        let stage = match stage {
            Err(error) if code(&error) == "NotFoundException" => return Ok(None),
            stage => stage
                .map_err(|error| failed(Call("apigateway:GET", &self.display_name()), &error))?,
        };
        let tags = self
            .account
            .api
            .get_tags()
            .resource_arn(arn(&self.account, &self.stage_path(api)))
            .send()
            .await;
        let tags = tags
            .map_err(|error| failed(Call("apigateway:GET", &self.display_name()), &error))?
            .tags
            .unwrap_or_default();
        let tag_problems = self
            .account
            .tag_differences(KEY, crate::provision::aws::tags::pairs(&tags));
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
            Ok(found) => Ok(Some(Served {
                checksum: found.description().map(String::from),
                tag_problems,
            })),
            Err(error) if code(&error) == "NotFoundException" => Ok(Some(Served {
                checksum: None,
                tag_problems,
            })),
            Err(error) => Err(failed(Call("apigateway:GET", &self.display_name()), &error)),
        }
    }

    fn stage_path(&self, api: &str) -> String {
        format!("/restapis/{api}/stages/{}", self.account.config.api.stage)
    }

    /// Where the API is called.
    fn url(&self, api: &str) -> String {
        let stage = &self.account.config.api.stage;
        match self.account.endpoint() {
            // A server of one's own has no names for APIs.
            Some(endpoint) => format!(
                "{}/restapis/{api}/{stage}/_user_request_",
                endpoint.trim_end_matches('/')
            ),
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

    /// A stage that an earlier configuration asked for.
    async fn old_stage(&self) -> Option<String> {
        self.account
            .state
            .output(KEY, "stage")
            .await
            .filter(|stage| *stage != self.account.config.api.stage)
    }

    /// Takes such a stage away, and out of the usage plan, which would hold it.
    async fn remove_stage(&self, api: &str, stage: &str) -> Result<()> {
        if let Some(plan) = self
            .account
            .state
            .output(crate::provision::aws::keys::USAGE_PLAN, "id")
            .await
        {
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
                    return Err(failed(
                        Call("apigateway:PATCH", &self.display_name()),
                        &error,
                    ));
                }
                _ => {}
            }
        }
        match self
            .account
            .api
            .delete_stage()
            .rest_api_id(api)
            .stage_name(stage)
            .send()
            .await
        {
            Err(error) if code(&error) != "NotFoundException" => Err(failed(
                Call("apigateway:DELETE", &self.display_name()),
                &error,
            )),
            _ => Ok(()),
        }
    }

    async fn note(&self, key: &str, value: &str) -> Result<()> {
        self.account
            .state
            .record_outputs(KEY, &self.name(), &[(key, value)])
            .await
    }

    /// Id of a path's resource, which is made where it is missing, its parents first.
    async fn path_id(
        &self,
        api: &str,
        path: &str,
        resources: &mut BTreeMap<String, String>,
    ) -> Result<String> {
        let mut missing = Vec::new();
        let mut at = path;
        while !resources.contains_key(at) && at != "/" {
            missing.push(at);
            at = split(at).0;
        }
        for path in missing.into_iter().rev() {
            let (parent, last) = split(path);
            let parent_id = resources.get(parent).cloned().unwrap_or_default();
            let made = self
                .account
                .api
                .create_resource()
                .rest_api_id(api)
                .parent_id(parent_id)
                .path_part(last)
                .send()
                .await;
            let id = match made {
                Ok(made) => made.id().unwrap_or_default().to_string(),
                Err(error) if code(&error) == "ConflictException" => {
                    let found = self.resources(api).await?;
                    found
                        .get(path)
                        .and_then(|resource| resource.id())
                        .unwrap_or_default()
                        .to_string()
                }
                Err(error) => {
                    return Err(failed(
                        Call("apigateway:POST", &self.display_name()),
                        &error,
                    ));
                }
            };
            resources.insert(path.to_string(), id);
        }
        Ok(resources.get(path).cloned().unwrap_or_default())
    }

    /// Puts a method and what is behind it, whatever was there before.
    async fn put(&self, api: &str, id: &str, route: &Route, is_there: bool) -> Result<()> {
        let (client, what) = (&self.account.api, self.display_name());
        if is_there {
            // A method that is there cannot be put again.
            match client
                .delete_method()
                .rest_api_id(api)
                .resource_id(id)
                .http_method(route.method)
                .send()
                .await
            {
                Err(error) if code(&error) != "NotFoundException" => {
                    return Err(failed(Call("apigateway:DELETE", &what), &error));
                }
                _ => {}
            }
        }
        let method = client
            .put_method()
            .rest_api_id(api)
            .resource_id(id)
            .http_method(route.method);
        let method = method
            .authorization_type(route.authorization)
            .api_key_required(route.needs_key);
        let method = method
            .set_request_parameters(Some(route.request_parameters.clone().into_iter().collect()));
        match method.send().await {
            Err(error) if code(&error) != "ConflictException" => {
                return Err(failed(Call("apigateway:PUT", &what), &error));
            }
            _ => {}
        }
        let wanted = &route.integration;
        for (status, _) in &wanted.responses {
            let response = client
                .put_method_response()
                .rest_api_id(api)
                .resource_id(id)
                .http_method(route.method)
                .status_code(*status);
            match response.send().await {
                Err(error) if code(&error) != "ConflictException" => {
                    return Err(failed(Call("apigateway:PUT", &what), &error));
                }
                _ => {}
            }
        }
        let parameters = wanted
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), value.expose_secret().to_string()))
            .collect();
        let integration = client
            .put_integration()
            .rest_api_id(api)
            .resource_id(id)
            .http_method(route.method);
        let integration = integration
            .r#type(wanted.kind.clone())
            .integration_http_method(wanted.method)
            .uri(&wanted.uri);
        let integration = integration
            .set_credentials(wanted.credentials.clone())
            .set_request_parameters(Some(parameters));
        let templates = Some(wanted.templates.clone().into_iter().collect())
            .filter(|_| !wanted.templates.is_empty());
        let integration = integration
            .set_request_templates(templates)
            .passthrough_behavior(wanted.passthrough);
        integration.send().await.map_err(|error| {
            // An answer may quote what was sent.
            let failure = failed(Call("apigateway:PUT", &what), &error);
            wanted.parameters.values().fold(failure, |failure, value| {
                failure.redact(
                    value
                        .expose_secret()
                        .trim_matches('\'')
                        .trim_start_matches("Basic "),
                )
            })
        })?;
        for (status, pattern) in &wanted.responses {
            let response = client
                .put_integration_response()
                .rest_api_id(api)
                .resource_id(id)
                .http_method(route.method);
            let response = response
                .status_code(*status)
                .set_selection_pattern(pattern.map(String::from));
            response
                .send()
                .await
                .map_err(|error| failed(Call("apigateway:PUT", &what), &error))?;
        }
        Ok(())
    }
}

/// What a stage serves.
struct Served {
    /// Of the definition, by the deployment's description.
    checksum: Option<String>,
    tag_problems: Vec<String>,
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
        vec![
            keys::ADDRESS.into(),
            keys::PROXY_SECRET.into(),
            Holder::Kinesis.key().into(),
        ]
    }

    async fn read(&self) -> Result<Observation> {
        let Some(found) = self.find().await? else {
            return Ok(Observation::missing());
        };
        let api = found.id().unwrap_or_default();
        self.note("id", api).await?;
        let tags = found.tags().cloned().unwrap_or_default();
        let mut problems = self
            .account
            .tag_differences(KEY, crate::provision::aws::tags::pairs(&tags));
        if !self.is_named(&found) {
            problems.push(format!(
                "its name is `{}`",
                found.name().unwrap_or_default()
            ));
        }
        let Some(routes) = self.routes().await? else {
            return Ok(Observation::from_drift(
                vec!["the proxy it leads to, or its password, is not there".into()],
                "",
            ));
        };
        let resources = self.resources(api).await?;
        for route in &routes {
            problems.extend(differences(route, resources.get(route.path)));
        }
        if let Some(old) = self.old_stage().await {
            problems.push(format!("the stage `{old}` is not asked for any more"));
        }
        let stage = &self.account.config.api.stage;
        match self.stage(api).await? {
            None => problems.push(format!("it is not deployed to the stage `{stage}`")),
            Some(served) => {
                // Only now: others post to it.
                self.note("url", &self.url(api)).await?;
                if served.checksum.as_deref() != Some(&Self::checksum(&routes)) {
                    problems.push(format!("the stage `{stage}` serves another definition"));
                }
                problems.extend(
                    served
                        .tag_problems
                        .into_iter()
                        .map(|problem| format!("stage `{stage}`: {problem}")),
                );
            }
        }
        Ok(Observation::from_drift(problems, self.url(api)))
    }

    async fn create(&self) -> Result<()> {
        let make = || async {
            let endpoint = EndpointConfiguration::builder()
                .types(EndpointType::Regional)
                .build();
            let request = self
                .account
                .api_once
                .create_rest_api()
                .name(self.name())
                .description("made by pinpipe")
                .endpoint_configuration(endpoint);
            let made = request
                .set_tags(Some(self.account.tags(KEY).into_iter().collect()))
                .send()
                .await;
            let made = made.map_err(|error| {
                CreateError::new(Call("apigateway:POST", &self.display_name()), &error)
            })?;
            Ok(RestApi::builder().set_id(made.id).build())
        };
        let made = self
            .account
            .create_idempotently(|| self.find(), make)
            .await?;
        self.note("id", made.id().unwrap_or_default()).await
    }

    async fn update(&self) -> Result<()> {
        let Some(found) = self.find().await? else {
            return Ok(());
        };
        let api = found.id().unwrap_or_default();
        let tags = found.tags().cloned().unwrap_or_default();
        if !self
            .account
            .tag_differences(KEY, crate::provision::aws::tags::pairs(&tags))
            .is_empty()
        {
            put_tags(&self.account, KEY, &format!("/restapis/{api}")).await?;
        }
        if !self.is_named(&found) {
            let patch = PatchOperation::builder()
                .op(Op::Replace)
                .path("/name")
                .value(self.name())
                .build();
            let put = self
                .account
                .api
                .update_rest_api()
                .rest_api_id(api)
                .patch_operations(patch)
                .send()
                .await;
            put.map_err(|error| failed(Call("apigateway:PATCH", &self.display_name()), &error))?;
            self.account.state.rename(KEY, &self.name()).await?;
        }
        let Some(routes) = self.routes().await? else {
            return Ok(());
        };
        let there = self.resources(api).await?;
        let mut ids: BTreeMap<String, String> = there
            .iter()
            .map(|(path, resource)| (path.clone(), resource.id().unwrap_or_default().to_string()))
            .collect();
        for route in &routes {
            let resource = there.get(route.path);
            if !differences(route, resource).is_empty() {
                let id = self.path_id(api, route.path, &mut ids).await?;
                let has_method = resource.and_then(|resource| resource.resource_methods());
                self.put(
                    api,
                    &id,
                    route,
                    has_method.is_some_and(|methods| methods.contains_key(route.method)),
                )
                .await?;
            }
        }
        let checksum = Self::checksum(&routes);
        let served = self.stage(api).await?;
        if served
            .as_ref()
            .and_then(|served| served.checksum.as_deref())
            != Some(&checksum)
        {
            let stage = &self.account.config.api.stage;
            let deployed = self
                .account
                .api
                .create_deployment()
                .rest_api_id(api)
                .stage_name(stage)
                .description(checksum)
                .send()
                .await;
            deployed
                .map_err(|error| failed(Call("apigateway:POST", &self.display_name()), &error))?;
        }
        if served.is_none_or(|served| !served.tag_problems.is_empty()) {
            put_tags(&self.account, KEY, &self.stage_path(api)).await?;
        }
        if let Some(old) = self.old_stage().await {
            self.remove_stage(api, &old).await?;
        }
        self.account
            .state
            .record_outputs(
                KEY,
                &self.name(),
                &[("stage", &self.account.config.api.stage)],
            )
            .await
    }

    async fn delete(&self) -> Result<bool> {
        let all = self.find_all().await?;
        for api in &all {
            match self
                .account
                .api
                .delete_rest_api()
                .set_rest_api_id(api.id.clone())
                .send()
                .await
            {
                Err(error) if code(&error) != "NotFoundException" => {
                    return Err(failed(
                        Call("apigateway:DELETE", &self.display_name()),
                        &error,
                    ));
                }
                _ => {}
            }
        }
        Ok(!all.is_empty())
    }
}
