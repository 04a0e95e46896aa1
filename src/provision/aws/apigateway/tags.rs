//! Tags of API Gateway's resources.

use crate::base::error::Result;
use crate::clients::aws::call::{Call, failed};
use crate::provision::aws::context::Account;

/// Puts the wanted tags on something of API Gateway's, by its path.
pub async fn put_tags(account: &Account, key: &str, path: &str) -> Result<()> {
    let put = account
        .api
        .tag_resource()
        .resource_arn(arn(account, path))
        .set_tags(Some(account.tags(key).into_iter().collect()))
        .send()
        .await;
    put.map(|_| ())
        .map_err(|error| failed(Call("apigateway:PUT", &format!("`{path}`")), &error))
}

/// ARN of a resource of API Gateway, by its path.
pub fn arn(account: &Account, path: &str) -> String {
    format!(
        "arn:{}:apigateway:{}::{path}",
        account.partition, account.config.aws.region
    )
}
