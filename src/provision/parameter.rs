//! Secrets in SSM Parameter Store.

use aws_sdk_ssm::types::{ParameterStringFilter, ParameterTier, ParameterType, Tag};
use secrecy::{ExposeSecret, SecretString};

use super::account::Account;
use crate::aws::{Call, code, failed};
use crate::error::{OrFail, Result};

/// The value; `None`: there is no such parameter.
pub async fn get(account: &Account, name: &str) -> Result<Option<SecretString>> {
    match account.ssm.get_parameter().name(name).with_decryption(true).send().await {
        Ok(found) => Ok(found.parameter().and_then(|parameter| parameter.value()).map(SecretString::from)),
        Err(error) if code(&error) == "ParameterNotFound" => Ok(None),
        Err(error) => Err(failed(Call("ssm:GetParameter", &format!("`{name}`")), &error)),
    }
}

/// Whether there is one, without asking for its value.
pub async fn exists(account: &Account, name: &str) -> Result<bool> {
    let filter = ParameterStringFilter::builder().key("Name").option("Equals").values(name).build().or_fail(|| "a filter is not whole")?;
    let found = account.ssm.describe_parameters().parameter_filters(filter).send().await;
    found.map(|found| !found.parameters().is_empty()).map_err(|error| failed(Call("ssm:DescribeParameters", &format!("`{name}`")), &error))
}

/// Keeps a secret, encrypted. One that is there already stays as it is.
pub async fn put(account: &Account, key: &str, name: &str, value: &SecretString, description: &str) -> Result<()> {
    let tags =
        account.tags(key).into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build().or_fail(|| "a tag is not whole"));
    let request = account.ssm.put_parameter().name(name).value(value.expose_secret()).description(description);
    let request = request.r#type(ParameterType::SecureString).tier(ParameterTier::Standard).set_tags(Some(tags.collect::<Result<_>>()?));
    match request.send().await {
        Ok(_) => Ok(()),
        Err(error) if code(&error) == "ParameterAlreadyExists" => Ok(()),
        Err(error) => Err(failed(Call("ssm:PutParameter", &format!("`{name}`")), &error)),
    }
}

/// Removes a secret; `false`: it was not there.
pub async fn delete(account: &Account, name: &str) -> Result<bool> {
    match account.ssm.delete_parameter().name(name).send().await {
        Ok(_) => Ok(true),
        Err(error) if code(&error) == "ParameterNotFound" => Ok(false),
        Err(error) => Err(failed(Call("ssm:DeleteParameter", &format!("`{name}`")), &error)),
    }
}
