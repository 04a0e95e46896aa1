//! Outputs of resources in the state that other rooms need.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use secrecy::{ExposeSecret, SecretString};

use crate::base::error::Result;
use crate::provision::aws::context::Account;
use crate::provision::aws::names::{Member, proxy_secret_name};
use crate::provision::aws::{keys, parameter};

/// The user that the password belongs to.
pub const USER: &str = "api-gateway";

/// The header that the API adds to each request to the proxy; `None`: there is no password yet.
pub async fn proxy_authorization(account: &Account) -> Result<Option<SecretString>> {
    let secret = parameter::get(account, &proxy_secret_name(&account.config)).await?;
    Ok(secret.map(|secret| {
        format!(
            "Basic {}",
            STANDARD.encode(format!("{USER}:{}", secret.expose_secret()))
        )
        .into()
    }))
}

/// The subnets that were found.
///
/// # Errors
/// The network was not read.
pub async fn subnets(account: &Account) -> Result<Vec<String>> {
    Ok(account
        .state
        .require_output(keys::NETWORK, "subnets")
        .await?
        .split(',')
        .map(String::from)
        .collect())
}

/// Whether Airflow's group was there when it was read: a sign that the rest of Airflow is there too.
pub async fn is_airflow_known(account: &Account) -> bool {
    account
        .state
        .output(Member::Airflow.key(), "id")
        .await
        .is_some()
}
