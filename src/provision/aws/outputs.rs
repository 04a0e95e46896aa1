//! Outputs of resources that other modules read.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use secrecy::{ExposeSecret, SecretString};

use crate::base::error::Result;
use crate::provision::aws::context::Account;
use crate::provision::aws::names::{Member, proxy_secret_name};
use crate::provision::aws::{keys, parameter};

/// User name of the REST proxy's password.
pub const USER: &str = "api-gateway";

/// Returns the `Authorization` header that the API adds to each request to the proxy; `None` if
/// the password does not exist yet.
pub async fn proxy_authorization(account: &Account) -> Result<Option<SecretString>> {
    let secret = parameter::get(account, &proxy_secret_name(&account.config)).await?;
    Ok(secret.map(|secret| {
        format!("Basic {}", STANDARD.encode(format!("{USER}:{}", secret.expose_secret()))).into()
    }))
}

/// Returns the ids of the recorded subnets.
///
/// # Errors
/// The network has not been observed yet.
pub async fn subnets(account: &Account) -> Result<Vec<String>> {
    Ok(account
        .state
        .require_output(keys::NETWORK, "subnets")
        .await?
        .split(',')
        .map(String::from)
        .collect())
}

/// Whether Airflow's security group is recorded, which indicates that the rest of Airflow exists
/// too.
pub async fn is_airflow_known(account: &Account) -> bool {
    account.state.output(Member::Airflow.key(), "id").await.is_some()
}
