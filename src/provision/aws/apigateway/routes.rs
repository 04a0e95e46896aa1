//! Desired routes of the API, each with its integration.

use std::collections::BTreeMap;

use aws_sdk_apigateway::types::{IntegrationType, Method, Resource as ApiResource};
use secrecy::{ExposeSecret, SecretString};

use crate::base::config::schema::ApiAuth;
use crate::provision::aws::context::Account;
use crate::provision::aws::names::PROXY_PORT;
use crate::provision::aws::names::{Principal, role_arn};
use crate::provision::aws::placeholders;
use crate::provision::aws::templates;

/// One method of one path.
pub struct Route {
    pub path: &'static str,
    pub method: &'static str,
    /// Authorization type of API Gateway: `AWS_IAM` or `NONE`.
    pub authorization: &'static str,
    /// Whether the method requires an API key.
    pub needs_key: bool,
    /// Path parameters that the method declares, and whether each is required.
    pub request_parameters: BTreeMap<String, bool>,
    pub integration: Integration,
}

/// Backend of a route, as API Gateway calls it.
pub struct Integration {
    pub kind: IntegrationType,
    pub method: &'static str,
    pub uri: String,
    pub credentials: Option<String>,
    /// Request parameters; those of the proxy's route include the password of the proxy.
    pub parameters: BTreeMap<String, SecretString>,
    pub templates: BTreeMap<String, String>,
    pub passthrough: &'static str,
    /// Status codes of the API, each with the pattern of the backend's status codes that it is
    /// returned for. Empty if every response is returned unchanged.
    pub responses: Vec<(&'static str, Option<&'static str>)>,
}

/// Responses of the Kinesis routes. Without the patterns, API Gateway would return errors of
/// Kinesis with status 200.
const RESPONSES: [(&str, Option<&str>); 3] =
    [("200", None), ("400", Some("4\\d{2}")), ("500", Some("5\\d{2}"))];

/// Returns all routes, each path after its parent.
pub fn routes(account: &Account, proxy_ip: &str, proxy_authorization: &SecretString) -> Vec<Route> {
    let auth = account.config.api.auth;
    let authorization = if auth == ApiAuth::Iam { "AWS_IAM" } else { "NONE" };
    let needs_key = auth == ApiAuth::Key;
    let proxy = Route {
        path: "/{proxy+}",
        method: "ANY",
        authorization,
        needs_key,
        request_parameters: BTreeMap::from([("method.request.path.proxy".to_string(), true)]),
        integration: Integration {
            kind: IntegrationType::HttpProxy,
            method: "ANY",
            uri: format!("http://{proxy_ip}:{PROXY_PORT}/{{proxy}}"),
            credentials: None,
            parameters: BTreeMap::from([
                ("integration.request.path.proxy".to_string(), "method.request.path.proxy".into()),
                (
                    "integration.request.header.Authorization".to_string(),
                    format!("'{}'", proxy_authorization.expose_secret()).into(),
                ),
            ]),
            templates: BTreeMap::new(),
            passthrough: "WHEN_NO_MATCH",
            responses: Vec::new(),
        },
    };
    let kinesis = |path: &'static str, method: &'static str, action: &str, template: &str| Route {
        path,
        method,
        authorization,
        needs_key,
        request_parameters: BTreeMap::new(),
        integration: Integration {
            kind: IntegrationType::Aws,
            method: "POST",
            uri: format!(
                "arn:{}:apigateway:{}:kinesis:action/{action}",
                account.partition, account.config.aws.region
            ),
            credentials: Some(role_arn(account, Principal::Kinesis)),
            parameters: BTreeMap::from([(
                "integration.request.header.Content-Type".to_string(),
                "'application/x-amz-json-1.1'".into(),
            )]),
            templates: BTreeMap::from([(
                "application/json".to_string(),
                templates::render(template, &placeholders::values(account)),
            )]),
            passthrough: "NEVER",
            responses: RESPONSES.to_vec(),
        },
    };
    vec![
        proxy,
        kinesis("/streams", "GET", "ListStreams", templates::LIST_STREAMS),
        kinesis("/streams/{stream-name}", "GET", "DescribeStream", templates::DESCRIBE_STREAM),
        kinesis("/streams/{stream-name}", "POST", "CreateStream", templates::CREATE_STREAM),
        kinesis("/streams/{stream-name}", "DELETE", "DeleteStream", templates::DELETE_STREAM),
        kinesis("/streams/{stream-name}/record", "PUT", "PutRecord", templates::PUT_RECORD),
        kinesis("/streams/{stream-name}/records", "PUT", "PutRecords", templates::PUT_RECORDS),
    ]
}

/// Splits a path into its parent and its last part.
pub fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", last)) => ("/", last),
        Some((parent, last)) => (parent, last),
        None => ("/", path),
    }
}

/// Returns the differences between the desired method and the existing one, without secrets.
pub fn differences(route: &Route, found: Option<&ApiResource>) -> Vec<String> {
    let named = |text: &str| format!("{} {} {text}", route.method, route.path);
    let method = found
        .and_then(|resource| resource.resource_methods())
        .and_then(|methods| methods.get(route.method));
    let Some(method) = method else {
        return vec![named("is missing")];
    };
    let mut differences = Vec::new();
    if method.authorization_type() != Some(route.authorization)
        || method.api_key_required().unwrap_or(false) != route.needs_key
    {
        differences.push(named("has a different authorization"));
    }
    let parameters = method.request_parameters().cloned().unwrap_or_default();
    if route.request_parameters.iter().any(|(name, value)| parameters.get(name) != Some(value)) {
        differences.push(named("declares different parameters"));
    }
    differences.extend(
        integration_differences(&route.integration, method).into_iter().map(|text| named(&text)),
    );
    differences
}

fn integration_differences(desired: &Integration, method: &Method) -> Vec<String> {
    let Some(existing) = method.method_integration() else {
        return vec!["has no integration".into()];
    };
    let mut differences = Vec::new();
    if existing.uri() != Some(desired.uri.as_str()) {
        differences.push(format!(
            "integration URI: {} → {}",
            existing.uri().unwrap_or("none"),
            desired.uri
        ));
    }
    let is_same_kind =
        existing.r#type() == Some(&desired.kind) && existing.http_method() == Some(desired.method);
    if !is_same_kind || existing.credentials() != desired.credentials.as_deref() {
        differences.push("has a different integration type, method or role".into());
    }
    let parameters = existing.request_parameters().cloned().unwrap_or_default();
    let is_same_parameters = parameters.len() == desired.parameters.len()
        && desired.parameters.iter().all(|(name, value)| {
            parameters.get(name).map(String::as_str) == Some(value.expose_secret())
        });
    if !is_same_parameters {
        differences.push("passes different parameters to the integration".into());
    }
    let templates: BTreeMap<String, String> =
        existing.request_templates().cloned().unwrap_or_default().into_iter().collect();
    if templates != desired.templates
        || existing.passthrough_behavior().is_some_and(|behavior| behavior != desired.passthrough)
    {
        differences.push("has a different request mapping".into());
    }
    let responses = existing.integration_responses().cloned().unwrap_or_default();
    let is_same_responses = desired.responses.iter().all(|(status, pattern)| {
        responses.get(*status).is_some_and(|response| {
            response.selection_pattern().filter(|pattern| !pattern.is_empty()) == *pattern
        })
    });
    if !is_same_responses {
        differences.push("has a different response mapping".into());
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_a_path_into_parent_and_last_part() {
        assert_eq!(split("/{proxy+}"), ("/", "{proxy+}"));
        assert_eq!(split("/streams/{stream-name}/record"), ("/streams/{stream-name}", "record"));
    }
}
