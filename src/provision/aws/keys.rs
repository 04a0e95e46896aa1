//! Keys of the resources, as used in the state, in `--only` and `--skip`, and in dependencies
//! between modules.

use crate::base::model::Kind;

pub const ADDRESS: &str = "address";
pub const AIRFLOW: &str = "airflow";
pub const AIRFLOW_CONNECTION: &str = "airflow-connection";
pub const AIRFLOW_DAG: &str = "airflow-dag";
pub const AIRFLOW_REQUIREMENTS: &str = "airflow-requirements";
pub const API: &str = "api";
pub const API_KEY: &str = "api-key";
pub const CLIENT: &str = "client";
pub const CLUSTER: &str = "cluster";
pub const CONNECTOR: &str = "connector";
pub const DATABRICKS_JOB: &str = "databricks-job";
pub const INSTANCE_PROFILE: &str = "instance-profile";
pub const KEY_PAIR: &str = "key-pair";
pub const NETWORK: &str = "network";
pub const PLUGIN: &str = "plugin";
pub const PLUGIN_OBJECT: &str = "plugin-object";
pub const PROXY_SECRET: &str = "proxy-secret";
pub const S3_ENDPOINT: &str = "s3-endpoint";
pub const USAGE_PLAN: &str = "usage-plan";
pub const WORKER_CONFIGURATION: &str = "worker-configuration";

/// Key of a record kind's topic.
pub fn topic(kind: Kind) -> String {
    format!("topic-{}", kind.name())
}
