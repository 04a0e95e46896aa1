//! Values of the placeholders in templates.

use crate::provision::aws::context::Account;
use crate::provision::aws::names;
use crate::provision::aws::names::BucketUse;
use crate::provision::aws::names::{Principal, role_arn};

/// Returns every placeholder with its value. All values are known before creation.
pub fn values(account: &Account) -> Vec<(&'static str, String)> {
    let config = &account.config;
    vec![
        ("account", account.id.clone()),
        ("partition", account.partition.clone()),
        ("region", config.aws.region.clone()),
        ("id", config.id.clone()),
        ("bucket", BucketUse::Lake.name(config)),
        ("airflow-bucket", BucketUse::Airflow.name(config)),
        ("airflow", config.airflow_name()),
        ("cluster", names::cluster_name(config)),
        ("connector", config.connector_name()),
        ("role-arn", role_arn(account, Principal::Client)),
        ("proxy-secret-parameter", names::proxy_secret_name(config)),
        ("shards", config.kinesis.shards.to_string()),
    ]
}
