//! Tags of API Gateway resources.

use crate::base::error::Result;
use crate::clients::aws::call::CallContext;
use crate::provision::aws::context::Account;

/// Sets the desired tags on the API Gateway resource with this path.
pub async fn put_tags(account: &Account, key: &str, path: &str) -> Result<()> {
    let response = account
        .api
        .tag_resource()
        .resource_arn(arn(account, path))
        .set_tags(Some(account.tags(key).into_iter().collect()))
        .send()
        .await;
    response.map(|_| ()).call_context("apigateway:PUT", &format!("`{path}`"))
}

/// ARN of the API Gateway resource with this path.
pub fn arn(account: &Account, path: &str) -> String {
    format!("arn:{}:apigateway:{}::{path}", account.partition, account.config.aws.region)
}
