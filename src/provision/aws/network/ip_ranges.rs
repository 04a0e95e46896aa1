//! The addresses that API Gateway calls from, as AWS publishes them.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::base::error::{Error, Result};
use crate::provision::aws::context::Account;

/// What stands for these addresses in `client.proxy_from`.
pub const API_GATEWAY: &str = "api-gateway";

#[derive(Debug, Deserialize)]
struct Published {
    prefixes: Vec<Prefix>,
}

#[derive(Debug, Deserialize)]
struct Prefix {
    ip_prefix: String,
    region: String,
    service: String,
}

/// Address ranges with `api-gateway` replaced by what AWS publishes for the region.
///
/// # Errors
/// The list cannot be had, or knows nothing of this region.
pub async fn resolved(account: &Account, configured: &[String]) -> Result<Vec<String>> {
    let mut ranges = BTreeSet::new();
    for entry in configured {
        match entry.as_str() {
            API_GATEWAY => ranges.extend(
                account
                    .gateway_ranges
                    .get_or_try_init(|| published(account))
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

async fn published(account: &Account) -> Result<Vec<String>> {
    let (url, region) = (
        &account.config.network.ip_ranges_url,
        &account.config.aws.region,
    );
    let hint = "name address ranges yourself in `client.proxy_from`";
    let failure = |error: reqwest::Error| {
        Error::failed(format!("cannot read API Gateway's addresses from `{url}`"))
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
    let published: Published = serde_json::from_slice(&text).map_err(|error| {
        Error::failed(format!("`{url}` is not the list that AWS publishes"))
            .with_source(error)
            .hint(hint)
    })?;
    let ours = published
        .prefixes
        .into_iter()
        .filter(|prefix| prefix.service == "API_GATEWAY" && prefix.region == *region);
    let ranges: Vec<String> = ours.map(|prefix| prefix.ip_prefix).collect();
    if ranges.is_empty() {
        return Err(Error::failed(format!(
            "`{url}` knows no addresses of API Gateway in {region}"
        ))
        .hint(hint));
    }
    Ok(ranges)
}
