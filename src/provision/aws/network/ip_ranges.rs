//! Address ranges from which API Gateway sends requests, as published by AWS.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::base::error::{Error, Result};
use crate::provision::aws::context::Account;

/// Placeholder for these address ranges in `client.proxy_from`.
pub const API_GATEWAY: &str = "api-gateway";

/// The part of <https://ip-ranges.amazonaws.com/ip-ranges.json> that is used.
#[derive(Debug, Deserialize)]
struct IpRanges {
    prefixes: Vec<Prefix>,
}

#[derive(Debug, Deserialize)]
struct Prefix {
    ip_prefix: String,
    region: String,
    service: String,
}

/// Replaces `api-gateway` by the address ranges that AWS publishes for the region. Downloads them
/// once.
///
/// # Errors
/// The list cannot be read; it has no ranges for this region.
pub async fn resolve(account: &Account, configured: &[String]) -> Result<Vec<String>> {
    let mut ranges = BTreeSet::new();
    for entry in configured {
        match entry.as_str() {
            API_GATEWAY => ranges.extend(
                account
                    .gateway_ranges
                    .get_or_try_init(|| gateway_ranges(account))
                    .await?
                    .iter()
                    .cloned(),
            ),
            range => {
                ranges.insert(range.to_string());
            }
        }
    }
    Ok(ranges.into_iter().collect())
}

/// Downloads API Gateway's address ranges in the configured region.
async fn gateway_ranges(account: &Account) -> Result<Vec<String>> {
    let (url, region) = (&account.config.network.ip_ranges_url, &account.config.aws.region);
    let hint = "list address ranges in `client.proxy_from`";
    let failure = |error: reqwest::Error| {
        Error::failed(format!("cannot read API Gateway's address ranges from `{url}`"))
            .with_source(error.without_url())
            .hint(hint)
    };
    let text = reqwest::get(url)
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(failure)?
        .bytes()
        .await
        .map_err(failure)?;
    let published: IpRanges = serde_json::from_slice(&text).map_err(|error| {
        Error::failed(format!("cannot parse API Gateway's address ranges from `{url}`"))
            .with_source(error)
            .hint(hint)
    })?;
    let prefixes = published
        .prefixes
        .into_iter()
        .filter(|prefix| prefix.service == "API_GATEWAY" && prefix.region == *region);
    let ranges: Vec<String> = prefixes.map(|prefix| prefix.ip_prefix).collect();
    if ranges.is_empty() {
        return Err(Error::failed(format!(
            "`{url}` lists no address ranges of API Gateway in {region}"
        ))
        .hint(hint));
    }
    Ok(ranges)
}
