//! Lists and tags MSK Connect resources: connector, plugin and worker configuration.

use std::collections::HashMap;

use crate::base::error::Result;
use crate::clients::aws::call::{CallContext, code, is_access_denied};
use crate::provision::aws::context::Account;
use crate::provision::aws::tags::pairs;

/// A resource that MSK Connect lists.
pub trait Listed: Sized {
    fn name(&self) -> Option<&str>;
    fn arn(&self) -> Option<&str>;

    /// Lists the resources whose names start with `prefix`; all if it is `None`.
    ///
    /// # Errors
    /// MSK Connect cannot be called.
    async fn all(account: &Account, prefix: Option<&str>) -> Result<Vec<Self>>;
}

/// Finds a resource by its recorded or configured name; by its tags if the state has no entry.
///
/// # Errors
/// MSK Connect cannot be called.
pub async fn find<T: Listed>(account: &Account, key: &str, name: &str) -> Result<Option<T>> {
    let named = account
        .find_by_names(key, name, |name| async move { find_named(account, &name).await })
        .await?;
    if named.is_some() || !account.is_unrecorded(key).await {
        return Ok(named);
    }
    for listed in T::all(account, None).await? {
        let Some(arn) = listed.arn() else { continue };
        match account.connect.list_tags_for_resource().resource_arn(arn).send().await {
            Ok(response)
                if response.tags().is_some_and(|tags| account.is_tagged_as(key, pairs(tags))) =>
            {
                return Ok(Some(listed));
            }
            Ok(_) => {}
            // If access to its tags is denied, pinpipe does not manage the resource.
            Err(error) if is_access_denied(&error) || code(&error) == "NotFoundException" => {}
            Err(error) => {
                return Err(
                    error.call_context("kafkaconnect:ListTagsForResource", &format!("`{arn}`"))
                );
            }
        }
    }
    Ok(None)
}

/// Finds the resource with exactly this name.
///
/// # Errors
/// MSK Connect cannot be called.
pub async fn find_named<T: Listed>(account: &Account, name: &str) -> Result<Option<T>> {
    Ok(T::all(account, Some(name)).await?.into_iter().find(|listed| listed.name() == Some(name)))
}

/// Returns the tags of a resource; `None` if it was deleted after it was listed.
///
/// # Errors
/// MSK Connect cannot be called.
pub async fn tags(account: &Account, arn: &str) -> Result<Option<HashMap<String, String>>> {
    match account.connect.list_tags_for_resource().resource_arn(arn).send().await {
        Ok(response) => Ok(Some(response.tags().cloned().unwrap_or_default())),
        Err(error) if code(&error) == "NotFoundException" => Ok(None),
        Err(error) => {
            Err(error.call_context("kafkaconnect:ListTagsForResource", &format!("`{arn}`")))
        }
    }
}

/// Sets the configured tags of a resource.
///
/// # Errors
/// MSK Connect rejects the call.
pub async fn put_tags(account: &Account, key: &str, arn: &str) -> Result<()> {
    let response = account
        .connect
        .tag_resource()
        .resource_arn(arn)
        .set_tags(Some(account.tags(key).into_iter().collect()))
        .send()
        .await;
    response.map(|_| ()).call_context("kafkaconnect:TagResource", &format!("`{arn}`"))
}
