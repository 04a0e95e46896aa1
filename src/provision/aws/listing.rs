//! Listings of the whole account: all connectors and all APIs, not only this pipeline's.

use serde::Serialize;

use crate::base::config::schema::Config;
use crate::base::error::Result;
use crate::clients::aws::call::CallContext;
use crate::clients::aws::sdk_config;

/// A listed resource: its name, and the state of a connector or the id of an API.
#[derive(Debug, Serialize)]
pub struct ListedResource {
    pub name: String,
    pub state: String,
}

/// Lists every connector of MSK Connect.
///
/// # Errors
/// The connectors cannot be listed.
pub async fn connectors(config: &Config) -> Result<Vec<ListedResource>> {
    let client = aws_sdk_kafkaconnect::Client::new(&sdk_config(config).await);
    let response = client
        .list_connectors()
        .into_paginator()
        .items()
        .send()
        .collect::<std::result::Result<Vec<_>, _>>()
        .await;
    let connectors = response.call_context("kafkaconnect:ListConnectors", "all connectors")?;
    let listings = connectors.into_iter().map(|connector| ListedResource {
        state: connector
            .connector_state
            .map(|state| state.as_str().to_string())
            .unwrap_or_default(),
        name: connector.connector_name.unwrap_or_default(),
    });
    Ok(listings.collect())
}

/// Lists every REST API of API Gateway. The field `state` contains the id of the API.
///
/// # Errors
/// The APIs cannot be listed.
pub async fn apis(config: &Config) -> Result<Vec<ListedResource>> {
    let client = aws_sdk_apigateway::Client::new(&sdk_config(config).await);
    let response = client
        .get_rest_apis()
        .limit(500)
        .into_paginator()
        .items()
        .send()
        .collect::<std::result::Result<Vec<_>, _>>()
        .await;
    let apis = response.call_context("apigateway:GET", "all APIs")?;
    let listings = apis.into_iter().map(|api| ListedResource {
        name: api.name.unwrap_or_default(),
        state: api.id.unwrap_or_default(),
    });
    Ok(listings.collect())
}
