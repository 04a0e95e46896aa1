//! Outputs of resources in the state. Any resource may read the outputs of others.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use secrecy::{ExposeSecret, SecretString};

use crate::base::error::Result;
use crate::provision::aws::context::Account;
use crate::provision::aws::names::{GroupMember, proxy_secret_name};
use crate::provision::aws::{keys, parameter};
use crate::provision::state::output::Output;

pub const ADDRESS_ID: Output = Output::new(keys::ADDRESS, "id");
pub const ADDRESS_IP: Output = Output::new(keys::ADDRESS, "ip");
pub const AIRFLOW_ARN: Output = Output::new(keys::AIRFLOW, "arn");
pub const API_ID: Output = Output::new(keys::API, "id");
pub const API_KEY_ID: Output = Output::new(keys::API_KEY, "id");
/// Stage that the API was last deployed to.
pub const API_STAGE: Output = Output::new(keys::API, "stage");
/// URL of the deployed stage.
pub const API_URL: Output = Output::new(keys::API, "url");
/// Brokers for IAM authentication, separated by commas.
pub const BOOTSTRAP_SERVERS: Output = Output::new(keys::CLUSTER, "bootstrap_servers");
/// Id of the instance whose REST proxy has responded.
pub const CLIENT_ANSWERED: Output = Output::new(keys::CLIENT, "answered");
pub const CLIENT_ID: Output = Output::new(keys::CLIENT, "id");
pub const CLIENT_RUNNING: Output<bool> = Output::new(keys::CLIENT, "running");
pub const CLUSTER_ARN: Output = Output::new(keys::CLUSTER, "arn");
/// ARN of the last started operation, until its result is known; empty otherwise.
pub const CLUSTER_OPERATION: Output = Output::new(keys::CLUSTER, "operation");
pub const CONNECTOR_ARN: Output = Output::new(keys::CONNECTOR, "arn");
/// ARN of the last started operation, until its result is known; empty otherwise.
pub const CONNECTOR_OPERATION: Output = Output::new(keys::CONNECTOR, "operation");
/// Folder of the job's files in the Databricks workspace.
pub const DATABRICKS_FOLDER: Output = Output::new(keys::DATABRICKS_JOB, "folder");
pub const KAFKA_VERSION: Output = Output::new(keys::CLUSTER, "kafka_version");
pub const PLUGIN_ARN: Output = Output::new(keys::PLUGIN, "arn");
/// MD5 checksum of the uploaded zip, in hexadecimal; empty if it is not known.
pub const PLUGIN_OBJECT_MD5: Output = Output::new(keys::PLUGIN_OBJECT, "md5");
pub const PLUGIN_REVISION: Output<i64> = Output::new(keys::PLUGIN, "revision");
/// Description of the parameter that stores the password. It ends with a random identifier of the
/// password.
pub const PROXY_SECRET_MARK: Output = Output::new(keys::PROXY_SECRET, "mark");
/// Version of the object that lists Airflow's packages.
pub const REQUIREMENTS_VERSION: Output = Output::new(keys::AIRFLOW_REQUIREMENTS, "version");
pub const SUBNETS: Output<Vec<String>> = Output::new(keys::NETWORK, "subnets");
pub const USAGE_PLAN_ID: Output = Output::new(keys::USAGE_PLAN, "id");
pub const VPC: Output = Output::new(keys::NETWORK, "vpc");
pub const WORKER_CONFIGURATION_ARN: Output = Output::new(keys::WORKER_CONFIGURATION, "arn");
pub const WORKER_CONFIGURATION_REVISION: Output<i64> =
    Output::new(keys::WORKER_CONFIGURATION, "revision");

/// Reason why the setup of an instance failed.
pub fn client_failure(instance: &str) -> Output {
    Output::of(keys::CLIENT, format!("failed-{instance}"))
}

pub fn group_id(member: GroupMember) -> Output {
    Output::new(member.key(), "id")
}

/// User name with which the API authenticates to the REST proxy.
pub const USER: &str = "api-gateway";

/// Returns the `Authorization` header that the API adds to each request to the proxy; `None` if
/// the password does not exist yet.
pub async fn proxy_authorization(account: &Account) -> Result<Option<SecretString>> {
    let secret = parameter::get(account, &proxy_secret_name(&account.config)).await?;
    Ok(secret.map(|secret| {
        format!("Basic {}", STANDARD.encode(format!("{USER}:{}", secret.expose_secret()))).into()
    }))
}

/// Whether the state contains Airflow's security group, which indicates that the other resources
/// of Airflow may exist too.
pub async fn is_airflow_known(account: &Account) -> bool {
    account.state.output(&group_id(GroupMember::Airflow)).await.is_some()
}
