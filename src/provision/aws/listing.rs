//! What is in the account beside the pipeline's own: all connectors, all APIs.

use serde::Serialize;

use crate::base::config::schema::Config;
use crate::base::error::Result;
use crate::clients::aws::call::{Call, failed};
use crate::clients::aws::sdk_config;

/// Something by its name, and how it is doing.
#[derive(Debug, Serialize)]
pub struct ListedResource {
    pub name: String,
    pub state: String,
}

/// Every connector of MSK Connect.
///
/// # Errors
/// They cannot be listed.
pub async fn connectors(config: &Config) -> Result<Vec<ListedResource>> {
    let client = aws_sdk_kafkaconnect::Client::new(&sdk_config(config).await);
    let found = client
        .list_connectors()
        .into_paginator()
        .items()
        .send()
        .collect::<std::result::Result<Vec<_>, _>>()
        .await;
    let found = found.map_err(|error| {
        failed(
            Call("kafkaconnect:ListConnectors", "all connectors"),
            &error,
        )
    })?;
    let listings = found.into_iter().map(|connector| ListedResource {
        state: connector
            .connector_state
            .map(|state| state.as_str().to_string())
            .unwrap_or_default(),
        name: connector.connector_name.unwrap_or_default(),
    });
    Ok(listings.collect())
}

/// Every REST API of API Gateway, its id as its state.
///
/// # Errors
/// They cannot be listed.
pub async fn apis(config: &Config) -> Result<Vec<ListedResource>> {
    let client = aws_sdk_apigateway::Client::new(&sdk_config(config).await);
    let found = client
        .get_rest_apis()
        .limit(500)
        .into_paginator()
        .items()
        .send()
        .collect::<std::result::Result<Vec<_>, _>>()
        .await;
    let found = found.map_err(|error| failed(Call("apigateway:GET", "all APIs"), &error))?;
    let listings = found.into_iter().map(|api| ListedResource {
        name: api.name.unwrap_or_default(),
        state: api.id.unwrap_or_default(),
    });
    Ok(listings.collect())
}
