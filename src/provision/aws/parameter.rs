//! Secrets in SSM Parameter Store.

use aws_sdk_ssm::types::{
    ParameterStringFilter, ParameterTier, ParameterType, ResourceTypeForTagging, Tag,
};
use secrecy::{ExposeSecret, SecretString};

use crate::base::error::{ErrorContext, Result};
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::context::Account;
use crate::provision::resource::Difference;

/// Reads a secret; `None` if the parameter does not exist.
pub async fn get(account: &Account, name: &str) -> Result<Option<SecretString>> {
    match account.ssm.get_parameter().name(name).with_decryption(true).send().await {
        Ok(response) => {
            Ok(response.parameter().and_then(|parameter| parameter.value()).map(SecretString::from))
        }
        Err(error) if code(&error) == "ParameterNotFound" => Ok(None),
        Err(error) => Err(error.call_context("ssm:GetParameter", &format!("`{name}`"))),
    }
}

/// Reads a parameter's description without its value; `None` if the parameter does not exist.
pub async fn description(account: &Account, name: &str) -> Result<Option<String>> {
    let filter = ParameterStringFilter::builder()
        .key("Name")
        .option("Equals")
        .values(name)
        .build()
        .context(|| "cannot build a parameter filter")?;
    let response = account
        .ssm
        .describe_parameters()
        .parameter_filters(filter)
        .send()
        .await
        .call_context("ssm:DescribeParameters", &format!("`{name}`"))?;
    Ok(response
        .parameters()
        .first()
        .map(|parameter| parameter.description().unwrap_or_default().to_string()))
}

/// Stores a secret encrypted. An existing parameter is not changed.
pub async fn put(
    account: &Account,
    key: &str,
    name: &str,
    value: &SecretString,
    description: &str,
) -> Result<()> {
    let request = account
        .ssm
        .put_parameter()
        .name(name)
        .value(value.expose_secret())
        .description(description);
    let request = request
        .r#type(ParameterType::SecureString)
        .tier(ParameterTier::Standard)
        .set_tags(Some(tags(account, key)?));
    match request.send().await {
        Ok(_) => Ok(()),
        Err(error) if code(&error) == "ParameterAlreadyExists" => Ok(()),
        Err(error) => Err(error.call_context("ssm:PutParameter", &format!("`{name}`"))),
    }
}

/// Returns the differences between the parameter's desired tags and its existing ones.
pub async fn tag_differences(account: &Account, key: &str, name: &str) -> Result<Vec<Difference>> {
    let response = account
        .ssm
        .list_tags_for_resource()
        .resource_type(ResourceTypeForTagging::Parameter)
        .resource_id(name)
        .send()
        .await;
    let listed = response.call_context("ssm:ListTagsForResource", &format!("`{name}`"))?;
    Ok(account.tag_differences(key, listed.tag_list().iter().map(|tag| (tag.key(), tag.value()))))
}

/// Sets the desired tags on a parameter.
pub async fn put_tags(account: &Account, key: &str, name: &str) -> Result<()> {
    let request = account
        .ssm
        .add_tags_to_resource()
        .resource_type(ResourceTypeForTagging::Parameter)
        .resource_id(name);
    let response = request.set_tags(Some(tags(account, key)?)).send().await;
    response.map(|_| ()).call_context("ssm:AddTagsToResource", &format!("`{name}`"))
}

fn tags(account: &Account, key: &str) -> Result<Vec<Tag>> {
    let tags = account.tags(key).into_iter();
    tags.map(|(key, value)| {
        Tag::builder().key(key).value(value).build().context(|| "cannot build a tag")
    })
    .collect()
}

/// Deletes a secret; `false` if the parameter does not exist.
pub async fn delete(account: &Account, name: &str) -> Result<bool> {
    match account.ssm.delete_parameter().name(name).send().await {
        Ok(_) => Ok(true),
        Err(error) if code(&error) == "ParameterNotFound" => Ok(false),
        Err(error) => Err(error.call_context("ssm:DeleteParameter", &format!("`{name}`"))),
    }
}
