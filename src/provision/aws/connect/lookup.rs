//! What connector, plugin and worker configuration share: they are listed, and tagged, alike.

use std::collections::HashMap;

use crate::base::error::Result;
use crate::clients::aws::call::{Call, code, failed, is_access_denied};
use crate::provision::aws::context::Account;
use crate::provision::aws::tags::pairs;

/// Something that MSK Connect lists.
pub trait Listed: Sized {
    fn name(&self) -> Option<&str>;
    fn arn(&self) -> Option<&str>;

    /// Those whose names begin so, or all.
    async fn all(account: &Account, prefix: Option<&str>) -> Result<Vec<Self>>;
}

/// Finds one by the name that it was made under, or by that of now; where nobody remembers
/// the name, by its tags.
///
/// # Errors
/// MSK Connect cannot be asked.
pub async fn find<T: Listed>(account: &Account, key: &str, name: &str) -> Result<Option<T>> {
    let found = account
        .found_under(
            key,
            name,
            |name| async move { find_named(account, &name).await },
        )
        .await?;
    if found.is_some() || !account.is_forgotten(key).await {
        return Ok(found);
    }
    for listed in T::all(account, None).await? {
        let Some(arn) = listed.arn() else { continue };
        match account
            .connect
            .list_tags_for_resource()
            .resource_arn(arn)
            .send()
            .await
        {
            Ok(found)
                if found
                    .tags()
                    .is_some_and(|tags| account.is_tagged_as(key, pairs(tags))) =>
            {
                return Ok(Some(listed));
            }
            Ok(_) => {}
            // What may not be looked at is somebody else's.
            Err(error) if is_access_denied(&error) || code(&error) == "NotFoundException" => {}
            Err(error) => {
                return Err(failed(
                    Call("kafkaconnect:ListTagsForResource", &format!("`{arn}`")),
                    &error,
                ));
            }
        }
    }
    Ok(None)
}

/// The one of this very name.
///
/// # Errors
/// MSK Connect cannot be asked.
pub async fn find_named<T: Listed>(account: &Account, name: &str) -> Result<Option<T>> {
    Ok(T::all(account, Some(name))
        .await?
        .into_iter()
        .find(|found| found.name() == Some(name)))
}

/// The tags of something; `None`: it went between being listed and being asked.
///
/// # Errors
/// MSK Connect cannot be asked.
pub async fn tags(account: &Account, arn: &str) -> Result<Option<HashMap<String, String>>> {
    match account
        .connect
        .list_tags_for_resource()
        .resource_arn(arn)
        .send()
        .await
    {
        Ok(found) => Ok(Some(found.tags().cloned().unwrap_or_default())),
        Err(error) if code(&error) == "NotFoundException" => Ok(None),
        Err(error) => Err(failed(
            Call("kafkaconnect:ListTagsForResource", &format!("`{arn}`")),
            &error,
        )),
    }
}

/// Puts the wanted tags on something.
///
/// # Errors
/// MSK Connect refuses.
pub async fn put_tags(account: &Account, key: &str, arn: &str) -> Result<()> {
    let put = account
        .connect
        .tag_resource()
        .resource_arn(arn)
        .set_tags(Some(account.tags(key).into_iter().collect()))
        .send()
        .await;
    put.map(|_| ()).map_err(|error| {
        failed(
            Call("kafkaconnect:TagResource", &format!("`{arn}`")),
            &error,
        )
    })
}
