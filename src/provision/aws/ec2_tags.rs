//! Tags of EC2 resources, and filters that find resources by their tags.

use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification};

use crate::base::error::Result;
use crate::clients::aws::call::CallContext;
use crate::provision::aws::context::{Account, TAG_ID, TAG_RESOURCE};

/// Tags of a resource, as a parameter of the call that creates the resource.
pub fn tag_specification(account: &Account, key: &str, resource: ResourceType) -> TagSpecification {
    TagSpecification::builder()
        .resource_type(resource)
        .set_tags(Some(ec2_tags(account, key)))
        .build()
}

/// Desired tags of a resource in EC2's type.
pub fn ec2_tags(account: &Account, key: &str) -> Vec<Tag> {
    account
        .tags(key)
        .into_iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

/// Keys and values of tags that EC2 returned.
pub fn pairs(tags: &[Tag]) -> Vec<(&str, &str)> {
    tags.iter().filter_map(|tag| Some((tag.key()?, tag.value()?))).collect()
}

/// Sets the desired tags on the EC2 resource with this id.
pub async fn put_tags(account: &Account, key: &str, id: &str) -> Result<()> {
    let request = account.ec2.create_tags().resources(id).set_tags(Some(ec2_tags(account, key)));
    request.send().await.map(|_| ()).call_context("ec2:CreateTags", &format!("`{id}`"))
}

/// Filter with one value, for `Describe…` calls of EC2.
pub fn filter(name: &str, value: impl Into<String>) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// Filters that match the tags of a resource.
pub fn tag_filters(account: &Account, key: &str) -> Vec<Filter> {
    vec![
        filter(&format!("tag:{TAG_ID}"), &account.config.id),
        filter(&format!("tag:{TAG_RESOURCE}"), key),
    ]
}
